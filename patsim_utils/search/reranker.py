"""A matcher as a reranker of LanceDB: it orders what a hybrid query of any LanceDB table finds."""

import numpy as np
import pandas as pd
import pyarrow as pa
from lancedb.rerankers import Reranker

from patsim_utils.method.matcher import Matcher
from patsim_utils.search.corpus import class_of


class MatcherReranker(Reranker):
    """Orders phrases by their score for the query in one CPC class.

    `table.search(query, query_type="hybrid").rerank(MatcherReranker(matcher, "H04"))`; it takes the results of a vector
    and of a full-text search as well. `column` is the table's column of phrases. InputError: no CPC class.
    """

    def __init__(self, matcher: Matcher, context: str, *, column: str = "phrase") -> None:
        super().__init__()
        self.matcher = matcher
        self.context = class_of(context, where="context")
        self.column = column

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """What either of the two searches found, each row once."""
        return self._keep_relevance_score(self._ordered(query, self.merge_results(vector_results, fts_results)))

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        return self._ordered(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        return self._ordered(query, fts_results)

    def _ordered(self, query: str, rows: pa.Table) -> pa.Table:
        """The rows by falling `_relevance_score`."""
        pairs = pd.DataFrame({"target": rows[self.column].to_pylist()}, dtype=object)
        pairs.insert(0, "anchor", query)
        pairs["context"] = self.context
        scores = self.matcher.score(pairs).astype(np.float32)
        scored = rows.append_column("_relevance_score", pa.array(scores))
        return scored.sort_by([("_relevance_score", "descending")])
