"""Retrievers: what is found, by counting; BM25 finds shared words; each loss trains a model that an index takes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer
from sklearn.metrics import ndcg_score

from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import backbones
from patsim_utils.search import evaluation
from patsim_utils.search.index import Index
from patsim_utils.search.retriever import LOSSES, train

FRAME = pd.DataFrame(
    {
        "anchor": ["a"] * 4 + ["b"] * 2,
        "target": ["t1", "t2", "t3", "t4", "t1", "t5"],
        "context": "H01",
        "score": [1.0, 0.75, 0.5, 0.0, 0.0, 0.0],
    }
)


def test_measures_count_what_is_found() -> None:
    found = ["T2 ", *(f"x{i}" for i in range(8)), "t4", "t1"]
    table = evaluation.measure(lambda query, context: found, FRAME)
    assert table["recall@10 of .75 or more"].tolist()[0] == 1 / 2
    assert table["recall@100 of .75 or more"].tolist()[0] == 1
    assert table["recall@100 of .5 or more"].tolist()[0] == 2 / 3
    assert table.iloc[1].drop(["anchor", "context"]).isna().all()  # nothing to find
    gains = np.zeros(15)
    gains[[0, 10, 11, 12]] = [0.75, 1.0, 0.5, 0.0]  # t2 first, t1 behind the first ten, t3 not found
    expected = ndcg_score(gains[None], -np.arange(15.0)[None], k=10)
    assert table["nDCG@10"].tolist()[0] == pytest.approx(expected)
    condensed = ndcg_score(np.array([[0.75, 0.0, 1.0, 0.5]]), -np.array([[0.0, 1.0, 2.0, 9.0]]), k=3)  # t3 is not found
    gains = 0.75 + 1.0 / 2
    ideal = 1.0 + 0.75 / np.log2(3) + 0.5 / 2
    assert table["nDCG@10 of rated"].tolist()[0] == pytest.approx(gains / ideal)
    assert condensed == pytest.approx(gains / ideal)


def test_a_comparison_is_paired_and_reranking_against_its_own_retriever() -> None:
    good, bad = (lambda query, context: ["t1", "t2", "t3"]), (lambda query, context: ["x", "t3"])
    frame = pd.concat([FRAME[:4], FRAME[:4].assign(anchor="c")])
    table = evaluation.compare({"bad": bad, "good": good, "bad, reranked": good}, frame)
    value = table.pivot(index="system", columns="measure", values=["value", "difference"])
    what = "recall@10 of .5 or more"
    assert value["value"][what].to_dict() == pytest.approx({"bad": 1 / 3, "bad, reranked": 1, "good": 1})
    assert value["difference"][what].to_dict() == pytest.approx(
        {"bad": np.nan, "bad, reranked": 2 / 3, "good": 2 / 3}, nan_ok=True
    )


def test_words_find_shared_words(tmp_path) -> None:
    index = Index(tmp_path / "index", retriever="minilm", create=True)
    index.add(pd.DataFrame({"phrase": ["steel beam", "wooden beam", "paper"]}))
    assert evaluation.by_words(index)("steel", "E04") == ["steel beam"]
    assert evaluation.by_vectors(index)("paper sheet", "D21")[0] == "paper"


def test_a_trained_retriever_brings_rated_pairs_together(tmp_path, capfd) -> None:
    frame, fit = load("sample")["train"].iloc[:120], {}
    folders = {loss: train(frame, tmp_path / loss, loss=loss, epochs=3) for loss in LOSSES}
    assert "example" not in "".join(capfd.readouterr())  # a progress bar would fill the page
    for name, folder in {"pretrained": Path(backbones.path("minilm")), **folders}.items():
        model = SentenceTransformer(str(folder))
        anchor, target = (
            model.encode(frame[side].to_list(), normalize_embeddings=True) for side in ("anchor", "target")
        )
        fit[name] = np.corrcoef((anchor * target).sum(1), frame["score"])[0, 1]
    assert min(fit[loss] for loss in folders) > fit["pretrained"] + 0.02
    loss, folder = next(iter(folders.items()))
    index = Index(tmp_path / "index", retriever=str(folder), create=True)
    index.add(evaluation.corpus({"train": frame}))
    assert len(evaluation.by_vectors(index)("gear", "F16")) == 100
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    assert train(frame, folder, loss=loss, epochs=3) == folder  # it is there
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights
    assert {path.name for path in tmp_path.iterdir()} == {*LOSSES, "index"}
    with pytest.raises(InputError, match="parameter train_retriever: 'x' is none of"):
        train(frame, tmp_path, loss="x")
