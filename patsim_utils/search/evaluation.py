"""How much of what people rated is found: by words, by a retriever, and with a matcher behind it.

Queries are the anchors of a frame in their classes, the corpus the distinct targets of all
splits. What people rated counts by its score; a target that nobody rated for this query counts as
not relevant: all figures are lower bounds.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from lancedb.index import FTS
from sklearn.metrics import ndcg_score

from patsim_utils import metrics
from patsim_utils.data.pairs import KEY, normalise
from patsim_utils.method.matcher import Matcher
from patsim_utils.search.index import Index
from patsim_utils.search.nearest import Candidates
from patsim_utils.search.search import BLEND, CANDIDATES, LETTERS, blended, closeness, pairs_of

DEPTHS = (10, 100, 200)  # of recall
LEVELS = {".5": 0.5, ".75": 0.75}  # score from which on a target is to be found
FIRST = 10  # phrases of which nDCG is computed
ORDERS = (f"nDCG@{FIRST}", f"nDCG@{FIRST} of rated")

System = Callable[[Sequence[str], Sequence[str]], Candidates]  # queries and their classes ->


def corpus(splits: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The distinct targets of all splits, a column `phrase`."""
    targets = pd.concat(splits.values())["target"]
    return pd.DataFrame({"phrase": targets.drop_duplicates()})


def by_vectors(index: Index) -> System:
    """The nearest CANDIDATES phrases by cosine, of all classes alike."""

    def search(queries: Sequence[str], _: Sequence[str]) -> Candidates:
        no_class = [""] * len(queries)
        return index.nearest(queries, no_class, count=CANDIDATES)

    return search


def by_words(index: Index) -> System:
    """BM25 over the index's phrases, by LanceDB, whose score is the similarity."""
    index.table.create_index("phrase", config=FTS())

    def search(queries: Sequence[str], _: Sequence[str]) -> Candidates:
        parts = []
        for query in queries:
            search = index.table.search(query, query_type="fts")
            search = search.limit(10 * CANDIDATES)  # with a small limit it misses some of the best
            rows = search.to_arrow().select(["phrase", "_score"]).to_pandas()
            parts.append(rows.head(CANDIDATES).rename(columns={"_score": "similarity"}))
        return Candidates.join(parts)

    return search


def with_letters(system: System, *, weight: float = LETTERS) -> System:
    """Orders a system's candidates by `closeness`, in which shared letters count."""

    def search(queries: Sequence[str], contexts: Sequence[str]) -> Candidates:
        candidates = system(queries, contexts)
        return candidates.sorted_by(closeness(candidates, queries, weight=weight).to_numpy())

    return search


class Remembering:
    """A matcher that scores each pair once, though several systems hand it on."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.scores: dict[tuple[str, ...], float] = {}

    def score(self, pairs: pd.DataFrame) -> np.ndarray:
        """`Matcher.score` of rows of anchor, target, context."""
        keys = list(pairs[KEY].itertuples(index=False, name=None))
        is_new = np.array([key not in self.scores for key in keys], dtype=bool)
        if is_new.any():
            fresh = pairs[is_new].drop_duplicates(KEY)
            scores = self.matcher.score(fresh)
            self.scores.update(zip(fresh[KEY].itertuples(index=False, name=None), scores, strict=True))
        return np.array([self.scores[key] for key in keys])


def first(system: System, count: int) -> System:
    """The first `count` of a system's candidates for each query."""

    def search(queries: Sequence[str], contexts: Sequence[str]) -> Candidates:
        parts = system(queries, contexts).split(len(queries))
        return Candidates.join([part.head(count) for part in parts])

    return search


def reranked(
    system: System, matcher: Matcher | Remembering, *, weight: float = BLEND, letters: float = LETTERS
) -> System:
    """Orders a system's candidates by their closeness and the matcher's score, as `Search` does.

    `weight` 1 orders by the matcher alone; with `letters` 0 closeness is the similarity alone.
    """

    def search(queries: Sequence[str], contexts: Sequence[str]) -> Candidates:
        candidates = system(queries, contexts)
        score = pd.Series(matcher.score(pairs_of(candidates, queries, contexts)))
        close = closeness(candidates, queries, weight=letters)
        order = blended(close, score, candidates.query, weight=weight)
        return candidates.sorted_by(order)

    return search


def measure(system: System, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a query: anchor, context, recall (DEPTHS x LEVELS) and ORDERS.

    A value is NaN where there is nothing to find.
    `nDCG@10 of rated` is that of the first ten phrases that people rated for the query, the
    others left out (condensed lists, Sakai 2007): good phrases that nobody rated are then not
    held against a system.
    """
    groups = list(frame.groupby(["anchor", "context"], sort=False))
    queries = [anchor for (anchor, _), _ in groups]
    contexts = [context for (_, context), _ in groups]
    rows = []
    answers = system(queries, contexts).split(len(queries))
    for (key, group), answer in zip(groups, answers, strict=True):
        rated = dict(zip(group["target"], group["score"], strict=True))
        phrases = [normalise(phrase) for phrase in answer["phrase"]]
        row = {"anchor": key[0], "context": key[1]}
        for label, level in LEVELS.items():
            wanted = {target for target, score in rated.items() if score >= level}
            for depth in DEPTHS:
                row[f"recall@{depth} of {label} or more"] = recall(phrases[:depth], wanted)
        row[ORDERS[0]] = ndcg(phrases, rated)
        row[ORDERS[1]] = ndcg([phrase for phrase in phrases if phrase in rated], rated)
        rows.append(row)
    return pd.DataFrame(rows)


def recall(phrases: Sequence[str], wanted: set[str]) -> float:
    """Share of the wanted phrases that are among `phrases`; NaN where none is wanted."""
    if not wanted:
        return np.nan
    return len(wanted & set(phrases)) / len(wanted)


def ndcg(phrases: Sequence[str], rated: Mapping[str, float]) -> float:
    """nDCG of the first FIRST phrases; NaN where all scores are 0.

    The gain of a phrase is its score in `rated`, 0 where it is not in it.
    """
    if not any(rated.values()):
        return np.nan
    shown = [rated.get(phrase, 0.0) for phrase in phrases]
    missed = [rated[phrase] for phrase in rated.keys() - set(phrases)]
    gains = np.array([*shown, *[0.0] * FIRST, *missed])  # the zeros keep what is missed out of the first ones
    return float(ndcg_score(gains[None], -np.arange(len(gains))[None], k=FIRST))


def compare(systems: Mapping[str, System], frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Means over queries of each system, with intervals of 95 % over anchors.

    Columns: system, measure, value, low, high, and the paired difference with its interval, to
    the system that is refined ("<name>, reranked" is compared with "<name>"), of others to the
    first system.
    """
    return compare_measures({name: measure(system, frame) for name, system in systems.items()}, seed=seed)


def compare_measures(measured: Mapping[str, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """The same from what `measure` gives of each system, such as of several folds below each other."""
    first = next(iter(measured))
    rows = []
    for name, table in measured.items():
        refined = name.rpartition(", ")[0]
        base = refined if refined in measured and refined != name else first
        for label in table.columns.drop(["anchor", "context"]):
            row = {"system": name, "measure": label}
            known = table[label].notna()
            anchors = table.loc[known, "anchor"]
            value = table.loc[known, label]
            row["value"], row["low"], row["high"] = metrics.mean_interval(anchors, value, seed=seed)
            difference = (np.nan, np.nan, np.nan)
            if base != name:
                difference = metrics.mean_interval(anchors, value - measured[base].loc[known, label], seed=seed)
            row["difference"], row["difference_low"], row["difference_high"] = difference
            rows.append(row)
    return pd.DataFrame(rows)
