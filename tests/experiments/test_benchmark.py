"""Speed: every system really trains, reads the same words and scores as its own API does; rates are what they say."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.experiments import benchmark
from patsim_utils.method import encoder
from patsim_utils.method.matcher import Matcher


@pytest.fixture(scope="module")
def config(tiny_backbone) -> Config:
    rates = {"learning_rate": 5e-3, "head_learning_rate": 5e-3}
    return Config(backbone=tiny_backbone("bert"), contrast_layer=1, epochs=1, precision="fp32", **rates)


def test_all_systems_read_the_words_of_the_pair_layout(config: Config, pairs_frame: pd.DataFrame) -> None:
    tokenizer, matcher = encoder.load_tokenizer(config.backbone), Matcher(config)
    ours, theirs = matcher.pairs(pairs_frame), benchmark.words(config)(pairs_frame)
    for row, (first, second) in enumerate(theirs):
        assert tokenizer(first, second)["input_ids"] == ours[np.array([row])].tokens
    bare = benchmark.words(config.model_copy(update={"context_text": "none"}))(pairs_frame)
    assert bare == list(zip(pairs_frame["anchor"], pairs_frame["target"], strict=True))


def test_a_query_has_one_anchor_and_distinct_candidates(pairs_frame: pd.DataFrame) -> None:
    asked = benchmark.query(pairs_frame, 100)
    assert asked["target"].nunique() == len(asked) == 100
    assert asked[["anchor", "context"]].drop_duplicates().shape == (1, 2)


@pytest.mark.parametrize("system", benchmark.SYSTEMS)
def test_a_system_learns_and_its_scores_are_its_models(system: str, config: Config, tmp_path, monkeypatch) -> None:
    kept, sequence = [], benchmark.transformers.AutoModelForSequenceClassification
    load = sequence.from_pretrained
    monkeypatch.setattr(sequence, "from_pretrained", lambda *a, **k: kept.append(load(*a, **k)) or kept[0])
    monkeypatch.setattr(benchmark, "seconds_of", lambda work: 0.5 + 0 * len(work()))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    request = {"system": system, "config": config.model_dump(), "share": 0.1, "threads": 1}
    (tmp_path / "request.json").write_text(json.dumps(request))
    monkeypatch.setattr(sys, "argv", ["benchmark", str(tmp_path)])
    benchmark.main()
    found = json.loads((tmp_path / "result.json").read_text())
    frame = pd.read_csv(tmp_path / "scored.csv", keep_default_na=False).head(20)
    assert found["pairs_per_second"]["1 x 100"] == 200
    assert ("training" in found["pairs_per_second"]) == (system != "bi_encoder") == (found["train_seconds"] > 0)
    assert found["peak_memory_mb"] > 50
    if system == "ours":
        expected = Matcher.load(tmp_path / "run").score(frame)
    elif system == "bi_encoder":
        expected = encoder.pretrained_cosine(frame, backbone=config.backbone)
    else:
        [model], sides = kept, map(list, zip(*benchmark.words(config)(frame), strict=True))
        batch = encoder.load_tokenizer(config.backbone)(*sides, padding=True, return_tensors="pt")
        with torch.inference_mode():
            expected = model.eval()(**batch).logits[:, 0]
        expected = expected.sigmoid() if system == "cross_encoder" else expected
        before = encoder.load_backbone(config.backbone).get_input_embeddings().weight
        assert (model.get_input_embeddings().weight - before).abs().max() > 1e-3  # it has learned
    np.testing.assert_allclose(frame["prediction"], expected, atol=1e-4)


def test_the_other_trainers_compute_in_the_precision_of_ours(config: Config, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        arguments = benchmark._arguments(config.model_copy(update={"precision": precision}), tmp_path)
        assert arguments["bf16"] == (precision == "bf16")


def test_a_process_measures_once_and_a_failure_says_why(
    config: Config, tmp_path: Path, monkeypatch, in_this_process
) -> None:
    monkeypatch.setattr(benchmark, "seconds_of", lambda work: 0.5)
    options = {"share": 0.1, "threads": 1, "folder": tmp_path / "cosine"}
    found = benchmark.measure("bi_encoder", config, **options)
    expected = encoder.pretrained_cosine(found["validation"], backbone=config.backbone)
    np.testing.assert_allclose(found["validation"]["prediction"], expected, atol=1e-4)
    monkeypatch.setattr(benchmark.ablation, "process", lambda *_, **__: (1, "OSError: disk full"))
    assert benchmark.measure("bi_encoder", config, **options).keys() == found.keys()  # not measured twice
    with pytest.raises(RuntimeError, match="^ours: OSError: disk full$"):
        benchmark.measure("ours", config, **options)
    assert not (tmp_path / "cosine" / "result.json").exists()


def result(system: str, precision: str, rate: float, noise: float) -> dict:
    frame = load("sample")["validation"]
    prediction = frame["score"] + noise * np.random.default_rng(0).normal(size=len(frame))
    found = {"system": system, "precision": precision, "pairs_per_second": {"training": rate, "1 x 10": 2 * rate}}
    return found | {"train_seconds": 1.0, "peak_memory_mb": 2.0, "validation": frame.assign(prediction=prediction)}


def test_rates_and_accuracies_stand_beside_the_cross_encoder_of_the_same_precision() -> None:
    slow, fast = result("cross_encoder", "fp32", 10, 0.5), result("cross_encoder", "bf16", 20, 0.4)
    results = {"A": result("ours", "bf16", 60, 0.1), "B": result("ours", "fp32", 40, 0.1), "C": slow, "D": fast}
    rates = benchmark.rates(results).set_index(["what", "system"])["times"]
    assert rates["training"].to_dict() == {"A": 3, "B": 4, "C": 1, "D": 1}
    table = benchmark.accuracy(results).set_index("system")
    assert table.loc[["C", "D"], ["difference", "difference_low", "difference_high"]].eq(0).all(axis=None)
    assert (table.loc[["A", "B"], "difference_low"] > 0).all()
    assert table.loc["A", "difference"] == pytest.approx(table.loc["A", "pearson"] - table.loc["D", "pearson"])


def test_growth_and_step_measure_a_model(config: Config, pairs_frame: pd.DataFrame, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(benchmark, "seconds_of", lambda work: asked.append(work) or 0.5)
    assert benchmark.growth(Matcher(config), pairs_frame)["candidates"].max() == len(asked[-1].args[0]) == 10_000
    assert benchmark.matrix_rate("fp32") == pytest.approx(2 * 1024**3 / 0.5 / 1e9)
    found = benchmark.step(config.model_copy(update={"batch_size": 4, "adapter": "full"}), pairs_frame)
    assert found["pairs"] == 4
    assert found["share"] == pytest.approx(found["gflop"] / 0.5 / benchmark.matrix_rate("fp32"))
    width, layers, tokens = 32, 3, 4 * 12
    assert found["gflop"] * 1e9 > 3 * 2 * tokens * layers * (4 * width**2 + 2 * width * 48) * 0.5
    with monkeypatch.context() as patch:  # what is counted holds the products of attention
        patch.setattr(benchmark, "sdpa_kernel", lambda _: nullcontext())
        without = benchmark.step(config.model_copy(update={"batch_size": 4, "adapter": "full"}), pairs_frame)
    assert found["gflop"] > without["gflop"]
