"""A search: the answer's columns and order, many queries at once, the command and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATIONS
from patsim_utils.search.corpus import read_queries
from patsim_utils.search.index import Index
from patsim_utils.search.nearest import Candidates
from patsim_utils.search.search import LETTERS, Search, blended, closeness, own_retriever
from patsim_utils.tool import cli

PHRASES = ["steel", "Cordless  phone", "mobile telephone", "robust material", "cordless phone", "antenna", "paper"]
CLASSES = ["E04", "H04", "H04", "E04", "H04", "", "D21"]
CORPUS = pd.DataFrame({"phrase": PHRASES, "context": CLASSES, "id": range(7)})


@pytest.fixture(scope="module")
def search(run: Path, small_retriever: Path, tmp_path_factory) -> Search:
    index = Index(tmp_path_factory.mktemp("index"), retriever=str(small_retriever), create=True)
    index.add(CORPUS)
    return Search(Matcher.load(run), index)


def test_an_answer_is_ordered_by_both_and_shows_both(search: Search) -> None:
    answer = search("wireless handset", context="h04m 1/00", top=3)
    assert list(answer) == ["rank", "phrase", "score", *RELATIONS, "context", "id", "similarity", "found", "order"]
    assert answer["rank"].tolist() == [1, 2, 3]
    pairs = pd.DataFrame({"anchor": "wireless handset", "target": answer["phrase"], "context": "H04"})
    np.testing.assert_allclose(answer["score"], search.matcher.score(pairs), atol=1e-4)
    np.testing.assert_allclose(answer[list(RELATIONS)].sum(axis=1), 1, atol=1e-3)
    whole = search("wireless handset", "H04")
    scores = (whole["score"] - whole["score"].mean()) / whole["score"].std(ddof=0)
    close = whole["similarity"] + LETTERS * whole["phrase"].map(lambda phrase: shared("wireless handset", phrase))
    close = (close - close.mean()) / close.std(ddof=0)
    np.testing.assert_allclose(whole["order"], (scores + close) / 2, atol=0.05)  # columns have four digits
    assert whole["order"].is_monotonic_decreasing
    assert set(whole["found"]) == set(range(1, 7))
    assert search("steel", "A01", only_class=True).empty


def shared(query: str, phrase: str) -> float:
    """The cosine of two phrases' n-grams, by scikit-learn."""
    vectorizer = CountVectorizer(analyzer="char_wb", ngram_range=(2, 4), binary=True)
    both = vectorizer.fit_transform([query, phrase]).toarray()
    return both[0] @ both[1] / np.linalg.norm(both[0]) / np.linalg.norm(both[1])


def test_letters_count_word_by_word() -> None:
    phrases = ["Wireless  handset", "handset wires", "set"]
    rows = pd.DataFrame({"phrase": phrases, "similarity": [0.0, 0.5, 0.5]})
    candidates = Candidates(rows, np.array([0, 0, 1]))
    queries = ["wireless handset", "paper"]
    close = closeness(candidates, queries, weight=2)
    assert close[0] == pytest.approx(2)
    assert close[1] == pytest.approx(0.5 + 2 * shared(queries[0], phrases[1]))
    assert close[2] == 0.5


def test_a_blend_of_values_that_do_not_vary_is_the_other_alone() -> None:
    similarity = pd.Series([0.1, 0.3, 0.2, 0.1, 0.3, 0.9])
    score = pd.Series([0.5, 0.5, 0.5, 1, 0, 0.7])
    query = np.array([0, 0, 0, 2, 2, 3])
    order = blended(similarity, score, query)
    np.testing.assert_allclose(order, [-0.612, 0.612, 0, 0, 0, 0], atol=1e-3)
    order = blended(similarity, score, query, weight=1)
    np.testing.assert_allclose(order, [0, 0, 0, 1, -1, 0], atol=1e-3)
    assert len(blended(similarity[:0], score[:0], query[:0])) == 0


def test_many_queries_have_the_answers_of_single_ones(search: Search, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "queries.csv"
    path.write_text("id,Query,context,note\n7,steel,E04,a\n8,handset,h04m,\n9,steel,A01,c\n7,steel,E04,d\n")
    queries = read_queries(path)
    monkeypatch.setattr("patsim_utils.search.search.BATCH", 3)
    table = search.table(queries, top=2)
    columns = ["corpus_context", "corpus_id", "similarity", "found", "order"]
    assert list(table) == ["id", "query", "context", "note", "rank", "phrase", "score", *RELATIONS, *columns]
    assert table["note"].tolist() == ["a", "a", "", "", "c", "c", "d", "d"]
    for start, query in enumerate(queries.itertuples()):
        alone = search(query.query, query.context, top=2)
        rows = table.iloc[2 * start : 2 * start + 2].reset_index(drop=True)
        assert rows["phrase"].tolist() == alone["phrase"].tolist()
        np.testing.assert_allclose(rows["score"], alone["score"], atol=2e-4)
        np.testing.assert_allclose(rows["order"], alone["order"], atol=2e-3)
    with pytest.raises(InputError, match="is no CPC class"):
        search.table(pd.DataFrame({"query": ["steel"], "context": [None]}))
    listed = search(["steel", "handset"], ["E04", "H04"], top=2)
    assert listed["query"].tolist() == ["steel", "steel", "handset", "handset"]
    assert listed["phrase"].tolist() == table["phrase"].tolist()[:4]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("query\nsteel\n", "has no column context; it has"),
        ("query,context\nsteel,E04\n ,E04\n", "row 3, column query: ' ' is no phrase"),
        ("query,context\nsteel,X99\n", "row 2, column context: 'X99' is no CPC class"),
        ("query,context,Rank\nsteel,E04,1\n", "column 'Rank' has a name that the answer needs"),
        ("query,context,a,a\nsteel,E04,1,2\n", "column 'a' stands 2 times"),
        ("query,context\n", "has no row below its header"),
    ],
)
def test_bad_queries_are_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "queries.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_queries(tmp_path / "queries.csv")


def errors(text: str) -> list[str]:
    """The lines of standard error, apart from the one that says how many threads there are."""
    return [line for line in text.splitlines() if " of 1 core" not in line and " cores" not in line]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("phrases\nsteel\n", "has no column phrase"),
        ('phrase,id\nsteel,1\n" ",2\n', "row 3, column phrase: ' ' is no phrase"),
        ("phrase,context\nsteel,E04\niron,X99\nfoo,\n", "row 3, column context: 'X99' is no CPC class"),
        ("phrase,Score\nsteel,1\n", "column 'Score' has a name that the answer needs"),
        ("phrase,Phrase\nsteel,iron\n", "column 'phrase' stands 2 times"),
        ("phrase\n", "has no row below its header"),
    ],
)
def test_a_bad_corpus_is_one_line_and_leaves_nothing(run, tmp_path: Path, capsys, text: str, reason: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    assert cli.main(["search", "--run", str(run), "--corpus", str(tmp_path / "bad.csv"), "--context", "H04", "x"]) == 2
    (error,) = errors(capsys.readouterr().err)
    assert reason in error
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_the_command_answers_into_a_file(run: Path, small_retriever: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "phrases.csv"
    answer = tmp_path / "answer.json"
    queries = tmp_path / "queries.csv"
    queries.write_text("query,context\nsteel,E04\nhandset,H04\n")
    CORPUS.to_csv(corpus, index=False)
    words = ["search", "--run", str(run), "--corpus", str(corpus), "--retriever", str(small_retriever)]
    assert cli.main([*words, "--context", "H04", "wireless handset", "--top", "2", "-o", str(answer)]) == 0
    rows = json.loads(answer.read_text())
    assert [row["rank"] for row in rows] == [1, 2]
    assert cli.main([*words, "--queries", str(queries), "--top", "2", "-o", str(answer), "--overwrite"]) == 0
    assert [row["query"] for row in json.loads(answer.read_text())] == ["steel", "steel", "handset", "handset"]


def status(words: list[str]) -> int | str | None:
    """The exit status of the command."""
    try:
        return cli.main(words)
    except SystemExit as error:
        return error.code


def test_a_bad_option_is_one_line_before_an_index_is_made(run: Path, tmp_path: Path, capsys) -> None:
    corpus = tmp_path / "phrases.csv"
    corpus.write_text("phrase\nsteel\n")
    words = ["search", "--run", str(run), "--corpus", str(corpus), "--context", "H04"]
    for options, reason in (
        (["x", "--top", "0"], "--top"),
        (["x", "--top", "2147483648"], "--top"),
        (["x", "--top", "100001"], "--top: 100001 is not in 1..100,000"),
        (["x", "--candidates", "5000000000"], "--candidates"),
        (["d\udce9tecteur"], "holds half a character"),
        (["x", "--retriever", "no/such"], "--retriever: 'no/such' is no"),
        (["x", "--retriever", ""], "backbone '': is neither a name nor a folder"),
        (["x", "--context", "X99"], "'X99' is no CPC class"),
        (["x", "--queries", str(corpus)], "name one of both"),
        (["--queries", str(corpus)], "--context: is not for --queries"),
        ([], "query: is missing"),
        (["x", "--context", "\udce9"], "is no CPC class"),
        ([" "], "' ' is no phrase"),
        (["x", "-o", str(tmp_path / "no" / "answer.json")], "no file can be written there"),
        (["x", "--corpus", "./sample"], "cannot be read"),  # a path, and not the bare word
        (["x", "--retriever", str(run / "model")], "cannot be loaded"),
    ):
        assert status([*words, *options]) == 2
        (error,) = errors(capsys.readouterr().err)
        assert reason in error
    assert [path.name for path in tmp_path.iterdir()] == ["phrases.csv"]


def test_the_retriever_of_a_run_is_found_from_its_model_folder_too(tmp_path: Path) -> None:
    assert own_retriever(tmp_path) == "tuned"
    (tmp_path / "retriever").mkdir()
    assert own_retriever(tmp_path) == own_retriever(tmp_path / "model") == str(tmp_path / "retriever")
