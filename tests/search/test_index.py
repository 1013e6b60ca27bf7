"""An index: it is added to and refused; its nearest phrases, exactly and approximately."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import backbones
from patsim_utils.search import index as index_module
from patsim_utils.search import nearest
from patsim_utils.search.index import Index

PHRASES = ["steel", "Cordless  phone", "mobile telephone", "robust material", "cordless phone", "antenna", "paper"]
CLASSES = ["E04", "H04", "H04", "E04", "H04", "", "D21"]
CORPUS = pd.DataFrame({"phrase": PHRASES, "context": CLASSES, "id": range(7)})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = Index(tmp_path_factory.mktemp("index"), retriever="minilm", create=True)
    made.add(CORPUS.iloc[:4])
    made.add(CORPUS.iloc[4:])
    return made


def test_candidates_are_the_nearest_by_cosine_each_once(index: Index) -> None:
    rows = index.candidates("wireless handset", count=10)
    model = SentenceTransformer(backbones.path("minilm"), device="cpu")
    vectors = model.encode(["wireless handset", *rows["phrase"].str.lower()], normalize_embeddings=True)
    np.testing.assert_allclose(rows["similarity"], vectors[1:] @ vectors[0], atol=4e-3)  # the corpus is in bfloat16
    assert rows["similarity"].is_monotonic_decreasing
    assert len(rows) == 6  # the cordless phone stands twice, in two spellings
    assert rows["found"].tolist() == [1, 2, 3, 4, 5, 6]
    assert rows.set_index("phrase")["id"]["antenna"] == "5"
    assert index.candidates("paper")["similarity"][0] == pytest.approx(1, abs=1e-3)


def test_the_class_is_preferred_and_a_filter_only_where_asked(index: Index, monkeypatch) -> None:
    assert index.candidates("paper", context="E04", count=10)["phrase"][0] == "paper"  # of another class
    assert set(index.candidates("paper", context="E04", only_class=True)["context"]) == {"E04"}
    assert index.candidates("paper", context="it's", only_class=True).empty
    assert index.candidates("aerial telephone")["similarity"].is_monotonic_decreasing  # no class is none to prefer
    monkeypatch.setattr(nearest, "SAME_CLASS", 2.0)
    assert set(index.candidates("paper", context="E04", count=10)["phrase"][:2]) == {"steel", "robust material"}


def test_queries_together_have_the_rows_of_each_alone(index: Index) -> None:
    queries = ["steel", "wireless handset", "paper sheet", "steel"]
    contexts = ["E04", "H04", "", "D21"]
    parts = index.nearest(queries, contexts, count=4).split(4)
    for query, context, rows in zip(queries, contexts, parts, strict=True):
        alone = index.candidates(query, context=context, count=4)
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), alone, atol=1e-5)


def test_rows_are_asked_for_until_enough_phrases_differ(small_retriever: Path, tmp_path: Path) -> None:
    made = Index(tmp_path, retriever=str(small_retriever), create=True)
    made.add(pd.DataFrame({"phrase": ["wireless handset"] * 60 + PHRASES}))
    assert len(made.candidates("wireless handset", count=6)) == 6
    assert len(made.candidates("wireless handset", count=60)) == 7
    batches = list(made.batches())
    assert sum(len(phrases) for phrases, _ in batches) == 67
    np.testing.assert_array_equal(np.concatenate([vectors for _, vectors in batches]), made.whole().vectors)


def test_a_large_index_is_approximate_and_finds_what_an_exact_one_does(tmp_path: Path, monkeypatch) -> None:
    phrases = load("sample")["train"]["target"].drop_duplicates()[:600].to_frame("phrase")
    phrases = phrases.assign(context="H04", id="x")
    monkeypatch.setattr(index_module, "INDEXED", 300)
    monkeypatch.setattr(index_module, "EXACT", 400)
    large = Index(tmp_path, retriever="minilm", create=True)
    for part in (phrases[:300], phrases[300:500], phrases[500:]):
        large.add(part)
    indices = {index.columns[0]: index for index in large.table.list_indices()}
    assert set(indices) == {"context", "vector"}
    assert all(index.num_unindexed_rows == 0 for index in indices.values())
    near = large.candidates("wireless handset", context="H04", count=50)
    monkeypatch.setattr(index_module, "EXACT", 1000)
    exact = Index(tmp_path, retriever="minilm").candidates("wireless handset", context="H04", count=50)
    assert list(near.columns) == list(exact.columns) == ["phrase", "context", "id", "similarity", "found"]
    assert len(set(near["phrase"]) & set(exact["phrase"])) >= 48
    assert large.candidates("steel", context="it's", only_class=True).empty


def test_a_kill_within_the_first_write_is_mended(small_retriever: Path, tmp_path: Path) -> None:
    Index(tmp_path, retriever=str(small_retriever), create=True)
    (tmp_path / "phrases.lance" / "data").mkdir(parents=True)
    (tmp_path / "phrases.lance" / "data" / "half.lance").touch()
    Index(tmp_path, retriever=str(small_retriever), create=True).add(CORPUS)
    assert len(Index(tmp_path, retriever=str(small_retriever))) == 7


@pytest.mark.parametrize("kind", ["layers", "vocabulary", "width", "modules"])
def test_a_retriever_that_asks_for_more_than_its_weights_have_is_one_line(
    small_retriever: Path, tmp_path: Path, capfd, kind: str
) -> None:
    retriever = shutil.copytree(small_retriever, tmp_path / "retriever")
    path = retriever / "config.json"
    config = json.loads(path.read_text())
    if kind == "layers":
        path.write_text(json.dumps(config | {"num_hidden_layers": 10**9}))
    elif kind == "vocabulary":
        path.write_text(json.dumps(config | {"vocab_size": 10**10}))
    elif kind == "width":
        path.write_text(json.dumps(config | {"hidden_size": 90_000, "intermediate_size": 90_000}))
    else:
        _add_dense_layers(retriever, count=3, width=90_000)
    with pytest.raises(InputError, match="--retriever: .* cannot be loaded"):
        Index(tmp_path / "index", retriever=str(retriever), create=True)
    assert not (tmp_path / "index").exists()
    assert capfd.readouterr().err == ""


def _add_dense_layers(retriever: Path, *, count: int, width: int) -> None:
    modules = json.loads((retriever / "modules.json").read_text())
    for number in range(len(modules), len(modules) + count):
        name = f"{number}_Dense"
        kind = "sentence_transformers.models.Dense"
        modules.append({"idx": number, "name": str(number), "path": name, "type": kind})
        (retriever / name).mkdir()
        settings = {"in_features": width, "out_features": width, "bias": True}
        settings["activation_function"] = "torch.nn.modules.activation.Tanh"
        (retriever / name / "config.json").write_text(json.dumps(settings))
    (retriever / "modules.json").write_text(json.dumps(modules))


def test_an_index_that_does_not_suit_is_one_line(small_retriever: Path, tmp_path: Path) -> None:
    retriever = str(small_retriever)
    with pytest.raises(InputError, match="there is no index here"):
        Index(tmp_path / "none", retriever=retriever)
    made = Index(tmp_path / "some", retriever=retriever, create=True)
    with pytest.raises(InputError, match="holds no phrases"):
        made.candidates("steel")
    made.add(CORPUS)
    for frame, reason in (
        (CORPUS.rename(columns={"id": "Rank"}), "'Rank' has a name that the answer needs"),
        (CORPUS.rename(columns={"phrase": "text"}), "has no column phrase"),
    ):
        with pytest.raises(InputError, match=reason):
            made.add(frame)
    with pytest.raises(InputError, match="carries other columns along than this table: 'id'"):
        made.add(CORPUS.rename(columns={"id": "number"}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="holds something that is no index"):
        Index(tmp_path / "other", retriever=retriever, create=True)
    note = tmp_path / "some" / "index.json"
    whole = json.loads(note.read_text())
    for content, reason in (
        (json.dumps(whole | {"retriever": "x"}), "another retriever"),
        (json.dumps(whole | {"format": 0}), "another version"),
        ("{", "delete the folder"),
        ("[]", "delete the folder"),
        ("[" * 100_000, "delete the folder"),
    ):
        note.write_text(content)
        with pytest.raises(InputError, match=reason):
            Index(tmp_path / "some", retriever=retriever)


def test_a_copy_of_the_table_gives_what_the_table_gives(small_retriever: Path, tmp_path: Path, monkeypatch) -> None:
    made = Index(tmp_path, retriever=str(small_retriever), create=True)
    made.add(CORPUS.iloc[:3])
    made.add(CORPUS.iloc[3:])
    by_copy = Index(tmp_path, retriever=str(small_retriever))
    found = by_copy.candidates("steel", context="E04")
    assert len(by_copy) == len(found) + 1 == 7
    assert "table" not in vars(by_copy)  # LanceDB's was not opened
    (tmp_path / "phrases.arrow").unlink()
    pd.testing.assert_frame_equal(
        Index(tmp_path, retriever=str(small_retriever)).candidates("steel", context="E04"), found
    )
    monkeypatch.setattr(index_module, "EXACT", 7)
    Index(tmp_path, retriever=str(small_retriever), create=True).add(CORPUS.head(1))
    assert not (tmp_path / "phrases.arrow").exists()  # it has more rows than are compared with a query


QUICK = """
import sys
from pathlib import Path
from patsim_utils.search.index import Index
Index(Path(sys.argv[1]), retriever="minilm").candidates("steel", context="E04")
print(sorted({"lancedb", "transformers", "sentence_transformers", "sympy", "scipy"} & sys.modules.keys()))
"""


def test_a_search_imports_nothing_slow(index: Index) -> None:
    command = [sys.executable, "-c", QUICK, str(index.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
