"""How much a retriever finds, alone and with a matcher behind it; and how one is trained on the rated pairs.

Queries are the anchors of a frame in their classes, the corpus the distinct targets of all splits. What people rated
counts by its score; a target that nobody rated for this query counts as not relevant: all figures are lower bounds.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from lancedb.index import FTS

from patsim_utils import metrics
from patsim_utils.data.pairs import normalise
from patsim_utils.method.matcher import Matcher
from patsim_utils.search.index import Index

CANDIDATES = 100
# name -> depth and the score from which on a target is to be found; nDCG apart
MEASURES = {f"recall@{n} of {level} or more": (n, float(level)) for level in (".5", ".75") for n in (10, 100)}
# nDCG of the first ten, unrated phrases as not relevant; and of the first ten of those that people rated for the query,
# the others left out (condensed lists, Sakai 2007), which does not hold good phrases that nobody rated against a system
ORDERS = ("nDCG@10", "nDCG@10 of rated")
Retriever = Callable[[str, str], list[str]]  # query, class -> phrases, the nearest first


def corpus(splits: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The distinct targets of all splits, a column `phrase`."""
    return pd.DataFrame({"phrase": pd.concat(splits.values())["target"].drop_duplicates()})


def by_vectors(index: Index) -> Retriever:
    return lambda query, _: index.candidates(query, count=CANDIDATES)["phrase"].to_list()


def by_words(index: Index) -> Retriever:
    """BM25 over the index's phrases, by LanceDB."""
    index.table.create_index("phrase", config=FTS())
    asked = index.table.search

    def find(query: str, _: str) -> list[str]:
        found = asked(query, query_type="fts").limit(10 * CANDIDATES)  # with a small limit it misses some of the best
        return found.to_pandas()["phrase"].head(CANDIDATES).to_list()

    return find


def reranked(retriever: Retriever, matcher: Matcher) -> Retriever:
    """The retriever's candidates in the order of the matcher's scores."""

    def find(query: str, context: str) -> list[str]:
        found = retriever(query, context)
        return matcher.rank(query, found, context=context)["target"].to_list() if found else []

    return find


def measure(retriever: Retriever, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a query: anchor, context, MEASURES and ORDERS (gain: the score), NaN where there is nothing to find."""
    rows = []
    for (anchor, context), group in frame.groupby(["anchor", "context"], sort=False):
        rated = dict(zip(group["target"], group["score"], strict=True))
        found = [normalise(phrase) for phrase in retriever(anchor, context)]
        row = {"anchor": anchor, "context": context}
        for name, (depth, level) in MEASURES.items():
            wanted = {target for target, score in rated.items() if score >= level}
            row[name] = len(wanted & {*found[:depth]}) / len(wanted) if wanted else np.nan
        ideal = sorted(rated.values(), reverse=True)[:10]
        discount = 1 / np.log2(np.arange(2, 12))
        best = ideal @ discount[: len(ideal)]
        for name, kept in zip(ORDERS, (found, [phrase for phrase in found if phrase in rated]), strict=True):
            gains = [rated.get(phrase, 0.0) for phrase in kept[:10]]
            row[name] = gains @ discount[: len(gains)] / best if best else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def compare(retrievers: Mapping[str, Retriever], frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Means over queries: system, measure, value, low, high, and the paired difference to the row's system before
    reranking (a system named "<name>, reranked") or to the first system, with its interval.
    """
    measured = {name: measure(retriever, frame) for name, retriever in retrievers.items()}
    rows = []
    for name, table in measured.items():
        other = measured[name.removesuffix(", reranked") if name.endswith(", reranked") else next(iter(measured))]
        for what in (*MEASURES, *ORDERS):
            known = table[what].notna()
            anchors, value = table.loc[known, "anchor"], table.loc[known, what]
            row = (name, what, *metrics.mean_interval(anchors, value, seed=seed))
            difference = metrics.mean_interval(anchors, value - other.loc[known, what], seed=seed)
            rows.append((*row, *(difference if other is not table else (np.nan,) * 3)))
    columns = ["system", "measure", "value", "low", "high", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns)
