"""Search: an index that is added to, gone on from and refused; candidates; an answer in every form."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import backbones
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATIONS
from patsim_utils.search import index as index_module
from patsim_utils.search.index import Index
from patsim_utils.search.search import Search
from patsim_utils.tool import cli

PHRASES = ["steel", "Cordless  phone", "mobile telephone", "robust material", "cordless phone", "antenna", "paper"]
CORPUS = pd.DataFrame({"phrase": PHRASES, "context": ["E04", "H04", "H04", "E04", "H04", "", "D21"], "id": range(7)})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = Index(tmp_path_factory.mktemp("index"), retriever="minilm", create=True)
    made.add(CORPUS.iloc[:4])
    made.add(CORPUS.iloc[4:])
    return made


@pytest.fixture
def run(tiny_backbone, tmp_path: Path) -> Path:
    Matcher(Config(backbone=tiny_backbone("bert"), layout="packed", contrast_layer=1)).save(tmp_path / "run" / "model")
    return tmp_path / "run"


def test_candidates_are_the_nearest_by_cosine_each_once(index: Index) -> None:
    found = index.candidates("wireless handset", count=10)
    model = SentenceTransformer(backbones.path("minilm"), device="cpu")
    vectors = model.encode(["wireless handset", *found["phrase"].str.lower()], normalize_embeddings=True)
    np.testing.assert_allclose(
        found["similarity"], vectors[1:] @ vectors[0], atol=4e-3
    )  # the index is read in bfloat16
    assert found["similarity"].is_monotonic_decreasing
    assert len(found) == 6  # the cordless phone stands twice, in two spellings
    assert found["found"].tolist() == [1, 2, 3, 4, 5, 6]
    assert found.set_index("phrase")["id"]["antenna"] == "5"


def test_the_class_is_preferred_and_a_filter_only_where_asked(index: Index, monkeypatch) -> None:
    assert index.candidates("paper", context="E04", count=10)["phrase"][0] == "paper"  # of another class
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "SAME_CLASS", 2.0)
        preferred = index.candidates("paper", context="E04", count=10)["phrase"]
    assert set(preferred[:2]) == {"steel", "robust material"}
    assert set(index.candidates("paper", context="E04", only_class=True)["context"]) == {"E04"}
    assert index.candidates("aerial telephone")["similarity"].is_monotonic_decreasing  # no class is none to prefer


def test_rows_are_asked_for_until_enough_phrases_differ(tmp_path: Path) -> None:
    made = Index(tmp_path, retriever="minilm", create=True)
    made.add(pd.DataFrame({"phrase": ["wireless handset"] * 60 + PHRASES}))
    assert len(made.candidates("wireless handset", count=6)) == 6
    assert len(made.candidates("wireless handset", count=60)) == 7


def test_a_kill_within_the_first_write_is_mended(tmp_path: Path) -> None:
    Index(tmp_path, retriever="minilm", create=True)
    (tmp_path / "phrases.lance" / "data").mkdir(parents=True)
    (tmp_path / "phrases.lance" / "data" / "half.lance").touch()
    Index(tmp_path, retriever="minilm", create=True).add(CORPUS)
    assert len(Index(tmp_path, retriever="minilm")) == 7


def test_a_file_of_the_index_that_is_gone_is_one_line(run: Path, tmp_path: Path, capsys) -> None:
    Index(tmp_path / "one", retriever="minilm", create=True).add(CORPUS)
    for path in (tmp_path / "one" / "phrases.lance" / "data").iterdir():
        path.unlink()
    words = ["search", "--run", str(run), "--corpus", str(tmp_path / "one"), "--context", "H04", "handset"]
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert "one: cannot be read or written (" in error
    assert error.count("\n") == 1


def test_a_large_index_is_approximate_and_finds_what_an_exact_one_does(tmp_path: Path, monkeypatch) -> None:
    phrases = load("sample")["train"]["target"].drop_duplicates()[:600].to_frame("phrase").assign(context="H04")
    exact = Index(tmp_path / "exact", retriever="minilm", create=True)
    exact.add(phrases)
    monkeypatch.setattr(index_module, "INDEXED", 300)
    monkeypatch.setattr(index_module, "EXACT", 400)
    large = Index(tmp_path / "large", retriever="minilm", create=True)
    for part in (phrases[:300], phrases[300:500], phrases[500:]):
        large.add(part)
    assert exact.table.list_indices() == []
    columns = {index.columns[0]: index for index in large.table.list_indices()}
    assert set(columns) == {"context", "vector"}
    assert all(index.num_unindexed_rows == 0 for index in columns.values())
    found = {*large.candidates("wireless handset", context="H04", count=50)["phrase"]}
    assert len(found & {*exact.candidates("wireless handset", context="H04", count=50)["phrase"]}) >= 48


def test_an_answer_is_ranked_by_the_matcher_with_both_ranks(index: Index, run: Path) -> None:
    matcher = Matcher.load(run)
    found = Search(matcher, index)("wireless handset", context="h04m 1/00", top=3)
    assert list(found.columns[:3]) == ["rank", "phrase", "score"]
    pairs = pd.DataFrame({"anchor": "wireless handset", "target": found["phrase"], "context": "H04"})
    np.testing.assert_allclose(found["score"], matcher.score(pairs), atol=1e-4)
    assert found["score"].is_monotonic_decreasing
    np.testing.assert_allclose(found[list(RELATIONS)].sum(axis=1), 1, atol=1e-3)
    assert set(found["found"]) <= set(range(1, 7))
    with pytest.raises(InputError, match="no CPC class"):
        Search(matcher, index)("handset", context="X99")


def test_the_command_makes_the_index_once_and_goes_on_after_a_break(
    run: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    corpus, answer = tmp_path / "phrases.csv", tmp_path / "answer.json"
    CORPUS.to_csv(corpus, index=False)
    words = ["search", "--run", str(run), "--corpus", str(corpus), "--context", "H04", "wireless handset", "--top", "2"]
    monkeypatch.setattr(index_module, "CHUNK", 3)
    add, calls = Index.add, []

    def broken(self: Index, frame: pd.DataFrame, **_: object) -> None:
        calls.append(len(frame))
        add(self, frame.iloc[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(Index, "add", broken)
    assert cli.main(words) == 130
    monkeypatch.setattr(Index, "add", lambda self, frame, **rest: (calls.append(len(frame)), add(self, frame, **rest)))
    assert cli.main([*words, "-o", str(answer)]) == 0
    assert cli.main(words) == 0
    assert calls == [7, 4]
    rows = json.loads(answer.read_text())
    assert [row["rank"] for row in rows] == [1, 2]
    assert len(Index(tmp_path / "phrases.csv.index", retriever="minilm")) == 7
    assert not list(tmp_path.glob(".*.new"))
    assert cli.main([*words, "-o", str(answer)]) == 2
    assert capfd.readouterr().err.splitlines()[-1].endswith("answer.json': exists already; --overwrite replaces it")
    corpus.write_text("phrase\nsteel\n")
    (tmp_path / ".phrases.csv.0123456789ab.new").mkdir()  # begun for a table that has changed since
    assert cli.main(words) == 0
    assert calls == [7, 4, 1]
    assert not list(tmp_path.glob(".*.new"))
    model = SentenceTransformer(backbones.path("minilm"))
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    model.save_pretrained(str(run / "retriever"), create_model_card=False)
    assert cli.main(words) == 0  # the run has a retriever of its own: the index is made anew
    assert cli.main(["search", "--run", str(run / "model"), *words[3:]]) == 0  # the model folder is of the same run
    assert calls == [7, 4, 1, 1]
    (tmp_path / "phrases.csv.index" / "corpus.json").write_text("{")
    assert cli.main(words) == 0
    assert calls == [7, 4, 1, 1, 1]
    assert len(Index(tmp_path / "phrases.csv.index", retriever=str(run / "retriever"))) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("phrases\nsteel\n", "has no column phrase"),
        ('phrase,id\nsteel,1\n" ",2\n', "row 3, column phrase: ' ' is no phrase"),
        ("phrase,context\nsteel,E04\niron,X99\nfoo,\n", "row 3, column context: 'X99' is no CPC class"),
        ("phrase,Score\nsteel,1\n", "column 'Score' cannot be carried along"),
        ("phrase,Phrase\nsteel,iron\n", "column 'phrase' cannot be carried along"),
        ("phrase,Patent No.\nsteel,1\n", "column 'Patent No.' cannot be carried along"),
    ],
)
def test_a_bad_corpus_is_one_line(run: Path, tmp_path: Path, capsys, text: str, said: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    assert cli.main(["search", "--run", str(run), "--corpus", str(tmp_path / "bad.csv"), "--context", "H04", "x"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if "index" in path.name] == []


def test_a_bad_option_is_one_line_before_an_index_is_made(run: Path, tmp_path: Path, capsys) -> None:
    corpus, places = tmp_path / "one.csv", {*tmp_path.iterdir()}
    corpus.write_text("phrase\nsteel\n")
    words = ["search", "--run", str(run), "--corpus", str(corpus), "--context", "H04"]
    for more, said in (
        (["x", "--top", "0"], "are not at least 1"),
        (["x", "--retriever", "no/such"], "--retriever: 'no/such' is no"),
        (["x", "--context", "X99"], "--context: 'X99' is no CPC class"),
        ([" "], "query: ' ' is no phrase"),
        (["x", "-o", str(tmp_path / "no" / "answer.json")], "no file can be written there"),
        (["x", "-o", str(tmp_path), "--overwrite"], "its ending is none of .json, .csv"),
        (["x", "--corpus", "./sample"], "cannot be read"),  # a path, and not the bare word
        (["x", "--retriever", str(run / "model")], "cannot be loaded"),
    ):
        assert cli.main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    assert {*tmp_path.iterdir()} - places == {corpus, tmp_path / ".one.csv.lock"}


def test_a_finished_index_is_searched_where_nothing_can_be_locked(run: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "one.csv").write_text("phrase\nsteel\n")
    words = ["search", "--run", str(run), "--corpus", str(tmp_path / "one.csv"), "--context", "H04", "x"]
    assert cli.main(words) == 0
    monkeypatch.setattr(storage, "lock", None)  # a read-only folder, or another search that has just begun
    assert cli.main(words) == 0


def test_an_index_of_another_retriever_or_version_or_broken_or_empty_is_one_line(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(InputError, match="there is no index here"):
        Index(tmp_path / "none", retriever="minilm")
    Index(tmp_path / "one", retriever="minilm", create=True)
    with pytest.raises(InputError, match="holds no phrases"):
        Index(tmp_path / "one", retriever="minilm").candidates("steel")
    note = tmp_path / "one" / "index.json"
    for change, said in (({"retriever": "x"}, "another retriever"), ({"format": 0}, "another version")):
        kept = note.read_text()
        note.write_text(json.dumps(json.loads(kept) | change))
        with pytest.raises(InputError, match=said):
            Index(tmp_path / "one", retriever="minilm")
        note.write_text(kept)
    for broken, said in (("{", "no whole index"), ("[]", "another version")):
        note.write_text(broken)
        with pytest.raises(InputError, match=said):
            Index(tmp_path / "one", retriever="minilm")
