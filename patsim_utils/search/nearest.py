"""The nearest phrases of query vectors: exactly, in memory, or approximately, by LanceDB's index."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa

from patsim_utils.data.pairs import normalise

SAME_CLASS = 0.05  # added to the similarity of a phrase of the query's class
BLOCK = 64  # queries that are multiplied with all vectors at once
PROBES = 50  # parts of an approximate index that a query is compared with


class Nearest(ABC):
    """Query vectors (Q, width) and their classes -> a frame of rows for each, the nearest first."""

    @abstractmethod
    def __call__(
        self, vectors: np.ndarray, contexts: Sequence[str], *, count: int, only_class: bool
    ) -> list[pd.DataFrame]:
        """The `count` nearest rows whose phrases differ, with `similarity` and `found`.

        A context of "" prefers no class. With `only_class` no phrase is of another class.
        """


class Exact(Nearest):
    """Compares a query with all phrases, which are in memory."""

    def __init__(self, table: pa.Table, columns: Sequence[str]) -> None:
        """`table`: columns phrase, context, one for each of the carried `columns`, vector."""
        self.vectors = unpacked(table["vector"].combine_chunks())
        rows = table.drop_columns(["vector"]).to_pandas()
        self.contexts = rows["context"].to_numpy(object)
        self.rows = rows.set_axis(["phrase", "context", *columns], axis=1)

    def __call__(
        self, vectors: np.ndarray, contexts: Sequence[str], *, count: int, only_class: bool
    ) -> list[pd.DataFrame]:
        answers = []
        for start in range(0, len(vectors), BLOCK):
            similarities = vectors[start : start + BLOCK] @ self.vectors.T
            for similarity, context in zip(similarities, contexts[start : start + BLOCK], strict=True):
                answers.append(self._answer(similarity, context, count=count, only_class=only_class))
        return answers

    def _answer(self, similarity: np.ndarray, context: str, *, count: int, only_class: bool) -> pd.DataFrame:
        """One query's rows from its similarity (n,) with all phrases."""
        is_same_class = self.contexts == context
        preference = similarity
        if context:
            preference = similarity + np.float32(SAME_CLASS) * is_same_class
        kept = np.flatnonzero(is_same_class) if only_class else np.arange(len(similarity))

        def first(limit: int) -> pd.DataFrame:
            rows = kept[_largest(preference[kept], limit)]
            return self.rows.iloc[rows].assign(similarity=similarity[rows])

        return _distinct(first, count=count, most=len(kept))


class Approximate(Nearest):
    """Compares a query with the nearest parts of the phrases, which stay on disk."""

    def __init__(self, table: lancedb.table.Table, columns: Sequence[str]) -> None:
        self.table = table
        self.columns = columns
        self.stored = [name for name in table.schema.names if name != "vector"]

    def __call__(
        self, vectors: np.ndarray, contexts: Sequence[str], *, count: int, only_class: bool
    ) -> list[pd.DataFrame]:
        pairs = zip(vectors, contexts, strict=True)
        return [self._answer(vector, context, count=count, only_class=only_class) for vector, context in pairs]

    def _answer(self, vector: np.ndarray, context: str, *, count: int, only_class: bool) -> pd.DataFrame:
        """One query's rows: the nearest of its class and, without `only_class`, of all classes."""
        conditions = []
        if context or only_class:
            escaped = context.replace("'", "''")
            conditions.append(f"context = '{escaped}'")
        if not only_class:
            conditions.append("")

        def first(limit: int) -> pd.DataFrame:
            parts = [self._search(vector, condition, limit) for condition in conditions]
            rows = pd.concat(parts, ignore_index=True)
            preference = rows["similarity"]
            if context:
                preference = preference + SAME_CLASS * (rows["context"] == context)
            return rows.loc[preference.sort_values(ascending=False, kind="stable").index]

        return _distinct(first, count=count, most=self.table.count_rows())

    def _search(self, vector: np.ndarray, condition: str, limit: int) -> pd.DataFrame:
        """The nearest rows, of those for which an SQL condition holds if there is one, with
        `similarity`.
        """
        search = self.table.search(vector).distance_type("dot").nprobes(PROBES).refine_factor(2)
        search = search.select([*self.stored, "_distance"]).limit(limit)
        if condition:
            search = search.where(condition, prefilter=True)
        rows = search.to_pandas()
        similarity = 1 - rows["_distance"]
        rows = rows[self.stored].set_axis(["phrase", "context", *self.columns], axis=1)
        return rows.assign(similarity=similarity)


def unpacked(column: pa.FixedSizeListArray) -> np.ndarray:
    """A column of vectors (n,) -> (n, width) float32."""
    return column.flatten().to_numpy().reshape(len(column), -1)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest values (n,), the largest first, ties in their order."""
    indices = np.arange(len(values))
    if count < len(values):
        indices = np.sort(np.argpartition(-values, count)[:count])
    return indices[np.argsort(-values[indices], kind="stable")]


def _distinct(first: Callable[[int], pd.DataFrame], *, count: int, most: int) -> pd.DataFrame:
    """The `count` first rows whose phrases differ, with `found`, their rank from 1.

    A phrase may stand in many rows, so that more rows are asked for until there are enough, or
    all `most` are there.
    """
    limit = min(2 * count, most)
    while True:
        rows = first(limit)
        rows = rows[~rows["phrase"].map(normalise).duplicated()]
        if len(rows) >= count or limit >= most:
            break
        limit = min(4 * limit, most)
    rows = rows.head(count).reset_index(drop=True)
    return rows.assign(found=np.arange(1, len(rows) + 1))
