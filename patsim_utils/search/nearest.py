"""The nearest phrases of query vectors: exactly, in memory, or approximately, by LanceDB's index."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from patsim_utils.data.pairs import normalise

if TYPE_CHECKING:
    import lancedb

SAME_CLASS = 0.05  # added to the similarity of a phrase of the query's class
BLOCK = 64  # queries that are multiplied with all vectors at once
PROBES = 50  # parts of an approximate index that a query is compared with


@dataclass(frozen=True)
class Candidates:
    """Phrases for some queries, below each other, the best of each query first."""

    rows: pd.DataFrame  # the corpus's columns and `similarity` (n rows)
    query: np.ndarray  # which of the queries a row belongs to (n,), rising

    @classmethod
    def join(cls, parts: Sequence[pd.DataFrame]) -> "Candidates":
        """The candidates of all queries from those of each."""
        query = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return cls(pd.concat(parts, ignore_index=True), query)

    def split(self, count: int) -> list[pd.DataFrame]:
        """The rows of each of `count` queries."""
        ends = np.searchsorted(self.query, np.arange(count + 1))
        return [self.rows.iloc[ends[i] : ends[i + 1]] for i in range(count)]

    def sorted_by(self, order: np.ndarray) -> "Candidates":
        """The candidates of each query by falling `order` (n,)."""
        indices = np.lexsort((-order, self.query))
        return Candidates(self.rows.iloc[indices].reset_index(drop=True), self.query)

    def ranks(self) -> np.ndarray:
        """The rank of each row among those of its query (n,), from 1."""
        first = np.searchsorted(self.query, self.query)
        return np.arange(1, len(self.query) + 1) - first


class Nearest(ABC):
    """Query vectors (Q, width) and their classes -> candidates."""

    @abstractmethod
    def __call__(self, vectors: np.ndarray, contexts: Sequence[str], *, count: int, only_class: bool) -> Candidates:
        """The `count` nearest rows of each query whose phrases differ, with `similarity`.

        A context of "" prefers no class. With `only_class` no phrase is of another class.
        """


class Exact(Nearest):
    """Compares a query with all phrases, which are in memory."""

    def __init__(self, table: pa.Table, columns: Sequence[str]) -> None:
        """`table`: columns phrase, context, one for each of the carried `columns`, vector."""
        self.vectors = unpacked(table["vector"].combine_chunks())
        rows = table.drop_columns(["vector"]).to_pandas()
        self.phrases = rows["phrase"].to_numpy(object)
        self.code, classes = pd.factorize(rows["context"])
        self.classes = list(classes)
        self.rows = rows.set_axis(["phrase", "context", *columns], axis=1)

    def __call__(self, vectors: np.ndarray, contexts: Sequence[str], *, count: int, only_class: bool) -> Candidates:
        indices = []
        similarities = []
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK] @ self.vectors.T
            for similarity, context in zip(block, contexts[start : start + BLOCK], strict=True):
                nearest = self._nearest(similarity, context, count=count, only_class=only_class)
                indices.append(nearest)
                similarities.append(similarity[nearest])
        rows = self.rows.iloc[np.concatenate(indices)].reset_index(drop=True)
        rows["similarity"] = np.concatenate(similarities)
        query = np.repeat(np.arange(len(indices)), [len(part) for part in indices])
        return Candidates(rows, query)

    def _nearest(self, similarity: np.ndarray, context: str, *, count: int, only_class: bool) -> np.ndarray:
        """Indices of one query's rows, by its similarity (n,) with all phrases."""
        code = self.classes.index(context) if context in self.classes else -1
        is_same_class = self.code == code
        preference = similarity
        if context:
            preference = similarity + np.float32(SAME_CLASS) * is_same_class
        kept = np.arange(len(similarity))
        if only_class:
            kept = np.flatnonzero(is_same_class)
        for limit in limits(count, len(kept)):
            nearest = kept[largest(preference[kept], limit)]
            nearest = nearest[distinct(self.phrases[nearest], count)]
            if len(nearest) == count:
                break
        return nearest


class Approximate(Nearest):
    """Compares a query with the nearest parts of the phrases, which stay on disk."""

    def __init__(self, table: "lancedb.table.Table", columns: Sequence[str]) -> None:
        self.table = table
        self.columns = columns
        self.stored = [name for name in table.schema.names if name != "vector"]

    def __call__(self, vectors: np.ndarray, contexts: Sequence[str], *, count: int, only_class: bool) -> Candidates:
        parts = []
        for vector, context in zip(vectors, contexts, strict=True):
            parts.append(self._nearest(vector, context, count=count, only_class=only_class))
        return Candidates.join(parts)

    def _nearest(self, vector: np.ndarray, context: str, *, count: int, only_class: bool) -> pd.DataFrame:
        """One query's rows: the nearest of its class and, without `only_class`, of all classes."""
        conditions = []
        if context or only_class:
            escaped = context.replace("'", "''")
            conditions.append(f"context = '{escaped}'")
        if not only_class:
            conditions.append("")
        for limit in limits(count, self.table.count_rows()):
            parts = [self._search(vector, condition, limit) for condition in conditions]
            rows = pd.concat(parts, ignore_index=True)
            preference = rows["similarity"].to_numpy()
            if context:
                preference = preference + SAME_CLASS * (rows["context"] == context).to_numpy()
            rows = rows.iloc[largest(preference, len(rows))]
            rows = rows.iloc[distinct(rows["phrase"], count)]
            if len(rows) == count:
                break
        return rows

    def _search(self, vector: np.ndarray, condition: str, limit: int) -> pd.DataFrame:
        """The nearest rows, of those for which an SQL condition holds if there is one."""
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


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest values (n,), the largest first, ties in their order."""
    indices = np.arange(len(values))
    if count < len(values):
        indices = np.sort(np.argpartition(-values, count)[:count])
    return indices[np.argsort(-values[indices], kind="stable")]


def distinct(phrases: Sequence[str], count: int) -> list[int]:
    """Indices of the first `count` phrases that differ, by their normalised text."""
    first = {}
    for index, phrase in enumerate(phrases):
        first.setdefault(normalise(phrase), index)
        if len(first) == count:
            break
    return list(first.values())


def limits(count: int, most: int) -> Iterator[int]:
    """How many rows to look at until `count` phrases differ: twice as many, then more, up to all.

    >>> list(limits(10, 300))
    [20, 80, 300]
    """
    limit = min(2 * count, most)
    yield limit
    while limit < most:
        limit = min(4 * limit, most)
        yield limit
