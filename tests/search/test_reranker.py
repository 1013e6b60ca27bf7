"""LanceDB's own code reranks with a matcher."""

from pathlib import Path

import lancedb
import numpy as np
import pandas as pd
import pytest
from lancedb.index import FTS

from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.search.reranker import MatcherReranker

QUERY = "mobile phone"
PHRASES = ["cordless phone", "steel", "mobile antenna", "paper", "robust material"]
VECTORS = [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [0.9, 0.1], [-1.0, 0.0]]
FOUND = {"cordless phone", "mobile antenna", "steel", "paper"}  # by its words, by its vector


@pytest.fixture(scope="module")
def matcher(run: Path) -> Matcher:
    return Matcher.load(run)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> lancedb.table.Table:
    rows = pd.DataFrame({"text": PHRASES, "number": range(5), "vector": VECTORS})
    table = lancedb.connect(tmp_path_factory.mktemp("database")).create_table("phrases", rows)
    table.create_index("text", config=FTS())
    return table


def expected(matcher: Matcher, rows: pd.DataFrame) -> np.ndarray:
    return matcher.score(pd.DataFrame({"anchor": QUERY, "target": rows["text"], "context": "H04"}))


def test_a_hybrid_query_is_ordered_by_the_matcher(matcher: Matcher, table: lancedb.table.Table) -> None:
    reranker = MatcherReranker(matcher, "H04M 1/00", column="text")
    search = table.search(query_type="hybrid").vector([1.0, 0.0]).text(QUERY)
    rows = search.rerank(reranker).limit(2).to_pandas()  # two by vector, two by words
    whole = search.rerank(reranker).limit(5).to_pandas()
    assert set(whole["text"]) >= FOUND
    for answer in (rows, whole):
        scores = expected(matcher, answer)
        np.testing.assert_allclose(answer["_relevance_score"], scores, atol=1e-4)
        assert (np.diff(scores) <= 1e-6).all()
        assert answer["number"].tolist() == [PHRASES.index(text) for text in answer["text"]]


@pytest.mark.parametrize("kind", ["vector", "fts"])
def test_the_results_of_one_search_are_ordered_too(matcher: Matcher, table: lancedb.table.Table, kind: str) -> None:
    reranker = MatcherReranker(matcher, "H04", column="text")
    if kind == "vector":
        search = table.search([1.0, 0.0]).rerank(reranker, query_string=QUERY)
    else:
        search = table.search(QUERY, query_type="fts").rerank(reranker)
    rows = search.to_pandas()
    assert len(rows) == {"vector": 5, "fts": 2}[kind]
    assert (np.diff(expected(matcher, rows)) <= 1e-6).all()


def test_nothing_is_found_or_no_class_is_named(matcher: Matcher, table: lancedb.table.Table) -> None:
    reranker = MatcherReranker(matcher, "H04", column="text")
    assert table.search("zebra", query_type="fts").rerank(reranker).to_pandas().empty
    with pytest.raises(InputError, match="context: 'Q1' is no CPC class"):
        MatcherReranker(matcher, "Q1")
