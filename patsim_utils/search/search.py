"""From a phrase to the phrases of a corpus that mean the same in a class.

A retriever finds, a matcher ranks.
Candidates come from an `Index`; their order is a blend of the retriever's cosine and the
matcher's score.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATIONS
from patsim_utils.search.corpus import check_query, class_of, refuse_names, sample_table
from patsim_utils.search.index import Encode, Index, Progress
from patsim_utils.search.table_index import open_index

BLEND = 0.5  # weight of the matcher's score in the order of candidates; the cosine has the rest
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
            retriever: "auto" is that of the run (notebook 6 trains it), else MiniLM.
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
            return self._answers([query], [context], **options)[0]
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
        texts = queries["query"].to_list()
        contexts = queries["context"].to_list()
        options = {"top": top, "candidates": candidates, "only_class": only_class}
        answers = []
        for start in range(0, len(queries), BATCH):
            answers += self._answers(texts[start : start + BATCH], contexts[start : start + BATCH], **options)
        if not answers:
            raise InputError("queries: there are none")
        rows = np.repeat(np.arange(len(queries)), [len(answer) for answer in answers])
        answer = pd.concat(answers, ignore_index=True)
        answer = answer.rename(columns={name: f"corpus_{name}" for name in answer if name in queries})
        table = pd.concat([queries.iloc[rows].reset_index(drop=True), answer], axis=1)
        refuse_names(table.columns, (), where="queries")
        return table

    def _answers(
        self,
        queries: Sequence[str],
        contexts: Sequence[str],
        *,
        top: int,
        candidates: int,
        only_class: bool,
    ) -> list[pd.DataFrame]:
        """One answer a query; all pairs go through the matcher in one pass, packed across queries."""
        check_count(top, where="--top")
        check_count(candidates, where="--candidates")
        for query in queries:
            check_query(query)
        codes = [class_of(context) for context in contexts]
        count = max(candidates, top)
        candidate_rows = self.index.nearest(queries, codes, count=count, only_class=only_class)
        parts = []
        for query, code, rows in zip(queries, codes, candidate_rows, strict=True):
            parts.append(pd.DataFrame({"anchor": query, "target": rows["phrase"], "context": code}))
        readings = self._read(pd.concat(parts, ignore_index=True))
        answers = []
        start = 0
        for rows in candidate_rows:
            end = start + len(rows)
            answers.append(answer_of(rows, readings.iloc[start:end].reset_index(drop=True), top=top))
            start = end
        return answers

    def _read(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Each pair's `score` and, if the matcher has learned ratings, probability of RELATIONS."""
        predictions = self.matcher.read(pairs)
        readings = pd.DataFrame({"score": predictions.scores})
        if predictions.ratings is not None:
            for relation, ratings in RELATIONS.items():
                readings[relation] = predictions.ratings[list(ratings)].sum(axis=1)
        return readings


def answer_of(candidates: pd.DataFrame, readings: pd.DataFrame, *, top: int) -> pd.DataFrame:
    """The answer to one query: its candidates (n rows) and the matcher's readings of them (n)."""
    answer = pd.concat([candidates[["phrase"]], readings, candidates.drop(columns="phrase")], axis=1)
    answer["order"] = blended(answer["similarity"], answer["score"])
    answer = answer.sort_values("order", ascending=False, kind="stable", ignore_index=True).head(top)
    answer.insert(0, "rank", np.arange(1, len(answer) + 1))
    return answer.round(4)


def blended(similarity: pd.Series, score: pd.Series, *, weight: float = BLEND) -> np.ndarray:
    """The weighted mean of both z-scores (n,), by which a query's candidates are ordered.

    Each is standardised over the candidates, so that a cosine and a score count in the same unit.
    """
    return weight * _z_scores(score) + (1 - weight) * _z_scores(similarity)


def _z_scores(values: pd.Series) -> np.ndarray:
    """Values (n,) with mean 0 and standard deviation 1; zeros where they do not vary."""
    deviations = values.to_numpy(np.float64) - values.mean()
    spread = np.sqrt(np.mean(deviations**2)) if len(values) else 0.0
    return deviations / spread if spread > 1e-9 else np.zeros(len(values))


def own_retriever(run: Path) -> str:
    """The retriever of a run, or of the run that a model folder is of; "minilm" where it has none."""
    folder = run.parent if run.name == "model" else run
    own = folder / "retriever"
    return str(own) if own.is_dir() else "minilm"


def check_count(count: int, *, where: str) -> None:
    """InputError, which begins with `where`, where so many phrases cannot be asked for."""
    if not 1 <= count <= MOST:
        raise InputError(f"{where}: {count} is not in 1..{MOST:,}")
