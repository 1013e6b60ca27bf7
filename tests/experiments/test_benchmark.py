"""Speed: every system really trains, reads the same words and scores as its own API does; rates are what they say."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import CrossEncoder

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.experiments import benchmark, systems
from patsim_utils.experiments.processes import Ended, Processes
from patsim_utils.method import encoder
from patsim_utils.method.matcher import Matcher


@pytest.fixture(scope="module")
def config(tiny_backbone) -> Config:
    rates = {"learning_rate": 5e-3, "head_learning_rate": 5e-3}
    return Config(backbone=tiny_backbone("bert"), contrast_layer=1, epochs=1, precision="fp32", **rates)


def test_all_systems_read_the_words_of_the_pair_layout(config: Config, pairs_frame: pd.DataFrame) -> None:
    tokenizer = encoder.load_tokenizer(config.backbone)
    ours = Matcher(config).pairs(pairs_frame)
    for row, (first, second) in enumerate(systems.words(config)(pairs_frame)):
        assert tokenizer(first, second)["input_ids"] == ours[np.array([row])].tokens
    bare = systems.words(config.model_copy(update={"context_text": "none"}))(pairs_frame)
    assert bare == list(zip(pairs_frame["anchor"], pairs_frame["target"], strict=True))


def test_a_query_has_one_anchor_and_distinct_candidates(pairs_frame: pd.DataFrame) -> None:
    asked = benchmark.query(pairs_frame, 100)
    assert asked["target"].nunique() == len(asked) == 100
    assert asked[["anchor", "context"]].drop_duplicates().shape == (1, 2)


def run_main(system: str, config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the benchmark's process writes about a system."""
    monkeypatch.setattr(benchmark, "seconds_of", lambda work: 0.5 + 0 * len(work()))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    request = {"system": system, "config": config.model_dump(), "share": 0.1, "threads": 1}
    (folder / "request.json").write_text(json.dumps(request))
    monkeypatch.setattr(sys, "argv", ["benchmark", str(folder)])
    benchmark.main()
    measured = json.loads((folder / "result.json").read_text())
    assert measured["pairs_per_second"]["1 x 100"] == 200
    assert measured["peak_memory_mb"] > 50
    return measured


def scored(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "scored.csv", keep_default_na=False).head(20)


def test_our_scores_are_those_of_the_run(config: Config, tmp_path, monkeypatch) -> None:
    measured = run_main("ours", config, tmp_path, monkeypatch)
    assert measured["train_seconds"] > 0
    assert measured["pairs_per_second"]["training"] > 0
    frame = scored(tmp_path)
    np.testing.assert_allclose(frame["prediction"], Matcher.load(tmp_path / "run").score(frame), atol=1e-4)


def test_the_cross_encoder_learns_and_scores_by_its_own_model(config: Config, tmp_path, monkeypatch) -> None:
    models = []

    class Kept(CrossEncoder):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            models.append(self)

    monkeypatch.setattr(systems.sentence_transformers, "CrossEncoder", Kept)
    measured = run_main("cross_encoder", config, tmp_path, monkeypatch)
    assert measured["pairs_per_second"]["training"] > 0
    [model] = [kept.model for kept in models]
    frame = scored(tmp_path)
    anchors, targets = zip(*systems.words(config)(frame), strict=True)
    batch = encoder.load_tokenizer(config.backbone)(list(anchors), list(targets), padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model.eval()(**batch).logits[:, 0].sigmoid()
    np.testing.assert_allclose(frame["prediction"], expected, atol=1e-4)
    before = encoder.load_backbone(config.backbone).get_input_embeddings().weight
    assert (model.get_input_embeddings().weight - before).abs().max() > 1e-3  # it has learned


def test_a_process_measures_once_and_a_failure_says_why(
    config: Config, tmp_path: Path, monkeypatch, in_this_process
) -> None:
    monkeypatch.setattr(benchmark, "seconds_of", lambda work: 0.5)
    options = {"share": 0.1, "threads": 1, "folder": tmp_path / "cosine"}
    measured = benchmark.measure("bi_encoder", config, **options)
    assert measured["train_seconds"] == 0
    assert "training" not in measured["pairs_per_second"]
    expected = encoder.pretrained_cosine(measured["validation"], backbone=config.backbone)
    np.testing.assert_allclose(measured["validation"]["prediction"], expected, atol=1e-4)
    monkeypatch.setattr(Processes, "run", lambda *_, **__: Ended(1, "OSError: disk full"))
    assert benchmark.measure("bi_encoder", config, **options).keys() == measured.keys()  # not measured twice
    with pytest.raises(RuntimeError, match="^ours: OSError: disk full$"):
        benchmark.measure("ours", config, **options)
    assert not (tmp_path / "cosine" / "result.json").exists()


def result(system: str, precision: str, rate: float, noise: float) -> dict:
    frame = load("sample")["validation"]
    prediction = frame["score"] + noise * np.random.default_rng(0).normal(size=len(frame))
    return {
        "system": system,
        "precision": precision,
        "pairs_per_second": {"training": rate, "1 x 10": 2 * rate},
        "train_seconds": 1.0,
        "peak_memory_mb": 2.0,
        "validation": frame.assign(prediction=prediction),
    }


def test_rates_and_accuracies_stand_beside_the_cross_encoder_of_the_same_precision() -> None:
    results = {
        "A": result("ours", "bf16", 60, 0.1),
        "B": result("ours", "fp32", 40, 0.1),
        "C": result("cross_encoder", "fp32", 10, 0.5),
        "D": result("cross_encoder", "bf16", 20, 0.4),
    }
    rates = benchmark.rates(results).set_index(["what", "system"])["times"]
    assert rates["training"].to_dict() == {"A": 3, "B": 4, "C": 1, "D": 1}
    table = benchmark.accuracy(results).set_index("system")
    assert table.loc[["C", "D"], ["difference", "difference_low", "difference_high"]].eq(0).all(axis=None)
    assert (table.loc[["A", "B"], "difference_low"] > 0).all()
    assert table.loc["A", "difference"] == pytest.approx(table.loc["A", "pearson"] - table.loc["D", "pearson"])
