"""From a phrase to the phrases of a corpus that mean the same in a class.

A retriever finds, a matcher ranks.
Candidates come from an `Index`; their order is a blend of their closeness, which is the retriever's
cosine and a little of the letters that they share with the query, and of the matcher's score.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from patsim_utils.data.pairs import normalise
from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.search.corpus import check_query, class_of, refuse_names, sample_table
from patsim_utils.search.index import Encode, Index, Progress
from patsim_utils.search.nearest import Candidates
from patsim_utils.search.table_index import open_index

BLEND = 0.5  # weight of the matcher's score in the order of candidates; their closeness has the rest
LETTERS = 0.15  # weight of shared letters in the closeness, beside the cosine
CANDIDATES = 200  # phrases of a query that the retriever hands on
MOST = 100_000  # phrases of an answer, and candidates
BATCH = 1000  # queries that are searched and ranked together


class Search:
    """An index and a matcher: `Search.open(run, corpus)("wireless handset", context="H04")`."""

    def __init__(self, matcher: Matcher, index: Index) -> None:
        self.matcher = matcher
        self.index = index

    @classmethod
    def open(
        cls,
        run: str | Path,
        corpus: str | Path,
        *,
        retriever: str = "auto",
        encode: Encode | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """The model of a run and the index of a corpus.

        Args:
            corpus: a table with a column phrase, whose index is made where it is missing or of
                other content (`table_index.open_index`); the folder of an index; or "sample" for
                the targets of the sample.
            retriever: "auto" is that of the run (notebook 6 trains it), else the one that ships.
            encode, progress: as in `Index.add`.
        """
        matcher = Matcher.load(run)
        if retriever == "auto":
            retriever = own_retriever(Path(run))
        if corpus == "sample":
            corpus = sample_table()
        if Path(corpus).is_dir():
            index = Index(Path(corpus), retriever=retriever)
        else:
            index = open_index(Path(corpus), retriever=retriever, encode=encode, progress=progress)
        return cls(matcher, index)

    def __call__(
        self,
        query: str | Sequence[str],
        context: str | Sequence[str],
        *,
        top: int = 20,
        candidates: int = CANDIDATES,
        only_class: bool = False,
    ) -> pd.DataFrame:
        """The best `top` phrases of a query in a class.

        Columns: `rank` (from 1), `phrase`, `score` (the matcher's), the probability of each of
        RELATIONS where the matcher has learned ratings, the corpus's other columns, `similarity`
        (the retriever's cosine), `found` (its rank) and `order`, by which the answer is sorted.

        Many queries with a context each, or one for all, are answered together: see `table`.

        Args:
            candidates: phrases that the retriever hands on, at least `top`.
            only_class: only phrases of the class; else they are preferred.
        """
        options = {"top": top, "candidates": candidates, "only_class": only_class}
        if isinstance(query, str):
            return self._answers([query], [context], **options).rows
        return self.table(pd.DataFrame({"query": query, "context": context}, dtype=str), **options)

    def table(
        self,
        queries: pd.DataFrame,
        *,
        top: int = 20,
        candidates: int = CANDIDATES,
        only_class: bool = False,
    ) -> pd.DataFrame:
        """The answers of many queries, which are encoded, searched and ranked together.

        `queries`: columns query, context and any others, which stand before those of each answer.
        Of the corpus's columns, `context` and those that have a name of the queries' are called
        `corpus_<name>`.
        """
        options = {"top": top, "candidates": candidates, "only_class": only_class}
        if queries.empty:
            raise InputError("queries: there are none")
        parts = []
        for start in range(0, len(queries), BATCH):
            part = queries.iloc[start : start + BATCH].reset_index(drop=True)
            answers = self._answers(part["query"].to_list(), part["context"].to_list(), **options)
            own = {name: f"corpus_{name}" for name in answers.rows if name in part}
            asked = part.iloc[answers.query].reset_index(drop=True)
            parts.append(pd.concat([asked, answers.rows.rename(columns=own)], axis=1))
        refuse_names(parts[0].columns, (), where="queries")
        return pd.concat(parts, ignore_index=True)

    def _answers(
        self,
        queries: Sequence[str],
        contexts: Sequence[str],
        *,
        top: int,
        candidates: int,
        only_class: bool,
    ) -> Candidates:
        """The answers to some queries; the matcher reads all pairs in one pass, packed across queries."""
        check_count(top, where="--top")
        check_count(candidates, where="--candidates")
        for query in queries:
            check_query(query)
        codes = [class_of(context) for context in contexts]
        count = max(candidates, top)
        nearest = self.index.nearest(queries, codes, count=count, only_class=only_class)
        readings = self._read(pairs_of(nearest, queries, codes))
        rows = pd.concat([nearest.rows[["phrase"]], readings, nearest.rows.drop(columns="phrase")], axis=1)
        rows["order"] = blended(closeness(nearest, queries), rows["score"], nearest.query)
        ranked = Candidates(rows, nearest.query).sorted_by(rows["order"].to_numpy())
        ranks = ranked.ranks()
        ranked.rows.insert(0, "rank", ranks)
        kept = np.flatnonzero(ranks <= top)
        return Candidates(ranked.rows.iloc[kept].round(4).reset_index(drop=True), ranked.query[kept])

    def _read(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Each pair's `score` and, if the matcher has learned ratings, probability of RELATIONS."""
        predictions = self.matcher.read(pairs)
        readings = pd.DataFrame({"score": predictions.scores})
        if predictions.relations is None:
            return readings
        return readings.join(predictions.relations)


def pairs_of(candidates: Candidates, queries: Sequence[str], codes: Sequence[str]) -> pd.DataFrame:
    """The pairs (anchor, target, context) of each query and its candidates."""
    anchors = np.array(queries, dtype=object)[candidates.query]
    contexts = np.array(codes, dtype=object)[candidates.query]
    targets = candidates.rows["phrase"]
    return pd.DataFrame({"anchor": anchors, "target": targets, "context": contexts})


def closeness(candidates: Candidates, queries: Sequence[str], *, weight: float = LETTERS) -> pd.Series:
    """The cosine of each candidate's vector and its query's (n,), and `weight` times that of their n-grams."""
    asked = [n_grams(query) for query in queries]
    shared = []
    for query, phrase in zip(candidates.query, candidates.rows["phrase"], strict=True):
        grams = n_grams(phrase)
        shared.append(len(asked[query] & grams) / np.sqrt(len(asked[query]) * len(grams)))
    return candidates.rows["similarity"] + weight * np.array(shared)


def n_grams(phrase: str) -> set[str]:
    """The pieces of two to four letters of each word, which has a space on both sides.

    >>> sorted(n_grams("of"))
    [' o', ' of', ' of ', 'f ', 'of', 'of ']
    """
    return set().union(*map(_n_grams_of, normalise(phrase).split()))


@lru_cache(100_000)
def _n_grams_of(word: str) -> frozenset[str]:
    spaced = f" {word} "
    grams = []
    for length in (2, 3, 4):
        grams += [spaced[start : start + length] for start in range(len(spaced) - length + 1)]
    return frozenset(grams)


def blended(close: pd.Series, score: pd.Series, query: np.ndarray, *, weight: float = BLEND) -> np.ndarray:
    """The weighted mean of both z-scores (n,), by which a query's candidates are ordered.

    Each is standardised over the candidates of its `query` (n,), so that closeness and score count
    in the same unit. `weight` is that of the score.
    """
    return weight * _z_scores(score, query) + (1 - weight) * _z_scores(close, query)


def _z_scores(values: pd.Series, query: np.ndarray) -> np.ndarray:
    """Values (n,) with mean 0 and deviation 1 within each query; zeros where they do not vary."""
    values = values.to_numpy(np.float64)
    counts = np.maximum(np.bincount(query), 1)
    means = np.bincount(query, values) / counts
    deviations = values - means[query]
    spreads = np.sqrt(np.bincount(query, deviations**2) / counts)[query]
    return np.divide(deviations, spreads, out=np.zeros_like(values), where=spreads > 1e-9)


def own_retriever(run: Path) -> str:
    """The retriever of a run, or of the run that a model folder is of; "tuned", which ships, where it has none."""
    folder = run.parent if run.name == "model" else run
    own = folder / "retriever"
    return str(own) if own.is_dir() else "tuned"


def check_count(count: int, *, where: str) -> None:
    """InputError, which begins with `where`, where so many phrases cannot be asked for."""
    if not 1 <= count <= MOST:
        raise InputError(f"{where}: {count} is not in 1..{MOST:,}")
