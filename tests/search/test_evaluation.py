"""Retrievers: what is found, by counting; BM25 finds shared words; a trained one brings rated pairs together."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import backbones
from patsim_utils.search import evaluation
from patsim_utils.search.index import Index
from patsim_utils.search.nearest import Candidates
from patsim_utils.search.retriever import train, training_rows

FRAME = pd.DataFrame(
    {
        "anchor": ["a"] * 4 + ["b"] * 2,
        "target": ["t1", "t2", "t3", "t4", "t1", "t5"],
        "context": "H01",
        "score": [1.0, 0.75, 0.5, 0.0, 0.0, 0.0],
    }
)


def system(*phrases: str) -> evaluation.System:
    """A system that gives the same phrases to all queries, each less similar than the one before."""
    rows = pd.DataFrame({"phrase": phrases, "similarity": np.linspace(1, 0, len(phrases))})
    return lambda queries, contexts: Candidates.join([rows] * len(queries))


class Scorer:
    """In a matcher's place: a target's score is that of FRAME."""

    def score(self, pairs: pd.DataFrame) -> np.ndarray:
        return pairs["target"].map(dict(zip(FRAME["target"][:4], FRAME["score"], strict=False))).to_numpy()


def test_measures_count_what_is_found() -> None:
    phrases = ["T2 ", *(f"x{i}" for i in range(8)), "t4", "t1"]
    table = evaluation.measure(system(*phrases), FRAME)
    assert table["recall@10 of .75 or more"][0] == 1 / 2
    assert table["recall@100 of .75 or more"][0] == 1
    assert table["recall@200 of .5 or more"][0] == 2 / 3
    assert table.iloc[1].drop(["anchor", "context"]).isna().all()  # nothing to find
    ideal = 1.0 + 0.75 / np.log2(3) + 0.5 / 2
    assert table["nDCG@10"][0] == pytest.approx(0.75 / ideal)  # t1 stands behind the first ten, t3 was not found
    assert table["nDCG@10 of rated"][0] == pytest.approx((0.75 + 1.0 / 2) / ideal)  # t2, t4, t1


def test_a_comparison_is_paired_and_a_refined_system_is_compared_with_its_own() -> None:
    frame = pd.concat([FRAME[:4], FRAME[:4].assign(anchor="c")])
    systems = {"bad": system("x", "t3"), "good": system("t1", "t2", "t3"), "bad, reranked": system("t1", "t2", "t3")}
    table = evaluation.compare(systems, frame).set_index(["measure", "system"]).loc["recall@10 of .5 or more"]
    assert table["value"].to_dict() == pytest.approx({"bad": 1 / 3, "good": 1, "bad, reranked": 1})
    assert np.isnan(table["difference"]["bad"])
    assert table["difference"].to_dict() == pytest.approx(
        {"bad": np.nan, "good": 2 / 3, "bad, reranked": 2 / 3}, nan_ok=True
    )
    swapped = {"good": systems["good"], "bad": systems["bad"], "bad, reranked": systems["good"]}
    table = evaluation.compare(swapped, frame).set_index(["measure", "system"]).loc["recall@10 of .5 or more"]
    assert table["difference"]["bad, reranked"] == pytest.approx(2 / 3)  # and not 0, to the first system


def test_reranking_orders_by_the_blend_or_by_the_model_alone() -> None:
    first = system("t3", "t4", "t2", "t1")  # similarity 1, .67, .33, 0; score .5, 0, .75, 1
    orders: dict[float, list[str]] = {}
    for weight in (0.5, 1):
        both = evaluation.reranked(first, Scorer(), weight=weight)(["a", "c"], ["H01", "H01"])
        rows, again = both.split(2)
        orders[weight] = rows["phrase"].to_list()
        assert again["phrase"].to_list() == orders[weight]
    assert orders[1] == ["t1", "t2", "t3", "t4"]
    assert orders[0.5] == ["t3", "t2", "t1", "t4"]


def test_a_pair_is_scored_once_though_two_systems_hand_it_on() -> None:
    asked: list[pd.DataFrame] = []

    class Counting(Scorer):
        def score(self, frame: pd.DataFrame) -> np.ndarray:
            asked.append(frame)
            return super().score(frame)

    first = system("t3", "t4", "t2", "t1")
    plain = evaluation.reranked(first, Scorer())(["a"], ["H01"]).rows
    remembering = evaluation.Remembering(Counting())
    for _ in range(2):
        pd.testing.assert_frame_equal(evaluation.reranked(first, remembering)(["a"], ["H01"]).rows, plain)
    assert [len(frame) for frame in asked] == [4]
    evaluation.reranked(system("t1", "t5", "t5", "t2"), remembering)(["a"], ["H01"])
    assert asked[1]["target"].to_list() == ["t5"]


def test_words_find_shared_words_and_letters_shared_parts(tmp_path: Path) -> None:
    index = Index(tmp_path / "index", retriever="minilm", create=True)
    phrases = ["steel beam", "wooden beam", "paper"]
    index.add(pd.DataFrame({"phrase": phrases}))
    words, vectors = evaluation.by_words(index), evaluation.by_vectors(index)
    answers = words(["nothing", "steel"], ["E04", "E04"])
    assert [rows["phrase"].to_list() for rows in answers.split(2)] == [[], ["steel beam"]]
    assert vectors(["paper sheet"], ["D21"]).rows["phrase"][0] == "paper"
    assert evaluation.with_letters(vectors, weight=10)(["woodenness"], ["E04"]).rows["phrase"][0] == "wooden beam"
    assert evaluation.with_letters(words)(["nothing"], ["E04"]).rows.empty
    assert len(index) == 3


def test_hard_negatives_are_rated_low_for_the_same_anchor_and_class() -> None:
    other = FRAME.assign(context="H02", score=[1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    rows = training_rows(pd.concat([FRAME, other]), hard_negatives=True, seed=0)
    assert sorted(rows.itertuples(index=False, name=None)) == [("a", "t1", "t4"), ("a", "t2", "t4"), ("b", "t1", "t5")]
    plain = training_rows(FRAME, hard_negatives=False, seed=0)
    assert plain.to_numpy().tolist() == [["a", "t1"], ["a", "t2"]]


def test_a_trained_retriever_brings_rated_pairs_together(tmp_path: Path, capfd) -> None:
    frame = load("sample")["train"].iloc[:120]
    folder = train(frame, tmp_path / "retriever", epochs=3)
    assert "example" not in "".join(capfd.readouterr())  # a progress bar would fill the page
    fit = {}
    for name in ("minilm", str(folder)):
        model = SentenceTransformer(backbones.path(name))
        anchors = model.encode(frame["anchor"].to_list(), normalize_embeddings=True)
        targets = model.encode(frame["target"].to_list(), normalize_embeddings=True)
        fit[name] = np.corrcoef((anchors * targets).sum(1), frame["score"])[0, 1]
    assert fit[str(folder)] > fit["minilm"] + 0.02
    weights = folder / "model.safetensors"
    time = weights.stat().st_mtime_ns
    assert train(frame, folder, epochs=3) == folder  # it is there
    assert weights.stat().st_mtime_ns == time
    (folder / "training.json").unlink()
    with pytest.raises(InputError, match="was not trained here"):
        train(frame, folder, epochs=3)
    assert weights.stat().st_mtime_ns == time
