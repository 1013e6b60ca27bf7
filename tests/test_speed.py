"""Speed: each system runs in its own process, reads the same words, and rates and differences are what they say."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils import data, encoder, readings, speed
from patsim_utils.matcher import Architecture, Matcher
from patsim_utils.packing import Pairs
from patsim_utils.train import Settings


@pytest.fixture
def settings(tiny_backbone) -> Settings:
    return Settings(backbone=tiny_backbone("bert"), contrast_layer=1, epochs=1, batch_size=32)


def test_all_systems_read_the_words_of_the_pair_layout(pairs_frame: pd.DataFrame) -> None:
    settings = Settings()
    tokenizer = encoder.load_tokenizer("minilm")
    ours = Pairs(pairs_frame, tokenizer, titles=Matcher(Architecture()).titles, context_tokens=8)
    theirs = speed.texts(pairs_frame, speed.class_texts(settings), tokenizer.sep_token)
    for row, (first, second) in enumerate(theirs):
        assert tokenizer(first, second)["input_ids"] == ours[np.array([row])].tokens


def test_a_share_of_the_anchors_keeps_their_rows_together() -> None:
    frame = data.load("sample")["train"]
    part = data.subset(frame, 0.25, seed=0)
    assert part["anchor"].nunique() == round(0.25 * frame["anchor"].nunique())
    assert len(part) == frame["anchor"].isin(part["anchor"].unique()).sum()
    assert len(data.subset(frame, 1.0, seed=0)) == len(frame)


def test_a_query_has_one_anchor_and_as_many_candidates_as_asked(pairs_frame: pd.DataFrame) -> None:
    for n in (3, 100):
        asked = speed.query(pairs_frame, n)
        assert len(asked) == n
        assert asked[["anchor", "context"]].drop_duplicates().shape == (1, 2)
    assert speed.query(pairs_frame, 3)["target"].is_unique


@pytest.mark.parametrize("system", speed.SYSTEMS)
def test_a_system_trains_scores_and_is_not_measured_twice(
    system: str, settings: Settings, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = speed.measure(system, settings, share=0.05, threads=1, run=tmp_path)
    frame = data.load("sample")["validation"]
    assert found["validation"]["target"].tolist() == frame["target"].tolist()
    assert np.isfinite(found["validation"]["prediction"]).all()
    assert found["pearson"] == pytest.approx(np.corrcoef(frame["score"], found["validation"]["prediction"])[0, 1])
    assert found["peak_memory_mb"] > 0
    assert all(rate > 0 for rate in found["scored_per_second"].values())
    assert ("pairs_per_second" in found) == (system != "bi_encoder")
    monkeypatch.setattr(speed.subprocess, "run", lambda *_, **__: pytest.fail("measured twice"))
    assert speed.measure(system, settings, share=0.05, threads=1, run=tmp_path)["pearson"] == found["pearson"]


def test_a_system_that_fails_says_why_and_leaves_no_result(tmp_path) -> None:
    settings = Settings(backbone=str(tmp_path / "nothing"))
    with pytest.raises(RuntimeError, match="bi_encoder: .*nothing"):
        speed.measure("bi_encoder", settings, share=1.0, threads=1, run=tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    assert json.loads((tmp_path / "run" / "request.json").read_text())["system"] == "bi_encoder"


@pytest.mark.parametrize("padded", [True, False])
def test_each_system_gets_the_rates_of_its_layout(
    settings: Settings, tmp_path, monkeypatch: pytest.MonkeyPatch, padded: bool
) -> None:
    asked = {}

    def note(system: str, chosen: Settings, **_: object) -> dict:
        asked[system, chosen.layout, chosen.adapter, chosen.layers] = chosen
        return {"train_seconds": 1.0}

    monkeypatch.setattr(speed, "measure", note)
    options = {"full_learning_rate": 1e-4, "packed_batch_size": 128, "share": 1.0, "threads": 1, "run": tmp_path}
    found = speed.compare(settings, padded=padded, **options)
    assert ("plain Trainer, padded" in found) == padded
    assert {chosen.layout for chosen in asked.values() if not chosen.target_sep} == {"packed"}
    assert len(found) == len(asked) == len(speed.SETUPS) - (not padded)
    pair, packed = asked["ours", "pair", "full", 0], asked["ours", "packed", "full", 1]
    assert (pair.batch_size, pair.learning_rate, pair.head_learning_rate) == (32, 1e-4, 1e-4)
    assert (packed.batch_size, packed.learning_rate, packed.head_learning_rate) == (128, 2e-4, 2e-4)


def result(rate: float, prediction: np.ndarray, frame: pd.DataFrame) -> dict:
    return {
        "train_seconds": 10.0,
        "pairs_per_second": rate,
        "scored_per_second": {10: 2 * rate},
        "peak_memory_mb": 100.0,
        "pearson": float(np.corrcoef(frame["score"], prediction)[0, 1]),
        "validation": frame.assign(prediction=prediction),
    }


def test_rates_and_accuracies_stand_beside_the_cross_encoder() -> None:
    frame = data.load("sample")["validation"]
    noise = np.random.default_rng(0).normal(size=len(frame))
    good, bad = frame["score"] + 0.1 * noise, frame["score"] + 0.5 * noise
    results = {"ours: packed, LoRA": result(60.0, good, frame), speed.REFERENCE: result(10.0, bad, frame)}
    rates = speed.rates(results).set_index(["system", "what"])
    assert rates.loc[("ours: packed, LoRA", "training"), "times"] == pytest.approx(6)
    assert rates.loc[("ours: packed, LoRA", "scoring 1 x 10"), "rate"] == pytest.approx(120)
    table = speed.accuracy(results).set_index("system")
    assert table.loc[speed.REFERENCE, ["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]
    assert table.loc["ours: packed, LoRA", "difference_low"] > 0


def test_growth_and_steps_measure_a_model(tiny_backbone, pairs_frame: pd.DataFrame) -> None:
    matcher = Matcher(Architecture(backbone=tiny_backbone("bert"), contrast_layer=1, layout="packed")).eval()
    growth = speed.growth(matcher, pairs_frame)
    assert (growth["seconds"] > 0).all()
    assert set(growth["what"]) == {"candidates", "words", "batch tokens"}
    operations, note = speed.steps(matcher.architecture, pairs_frame, rows=8)
    assert operations["share"].sum() == pytest.approx(1)
    assert operations["share"].is_monotonic_decreasing
    assert note["gflops"] == pytest.approx(note["gflop"] / note["seconds"])
    assert 0 <= note["padding"] < 1
    assert 4 <= note["rows"] <= 12  # one of two batches of about eight
    said = readings.step(note | {"seconds": 0.5, "rows": 8}, 100.0, model="this model", pairs=800)
    assert "on 8 pairs takes 500 ms" in said
    assert "over the 800 training pairs take 150 s" in said


def test_the_large_backbone_has_the_shape_it_says(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert speed.LARGE["hidden_size"] * speed.LARGE["num_hidden_layers"] == 1024 * 24
    smaller = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    monkeypatch.setattr(speed, "LARGE", speed.LARGE | smaller)
    folder = speed.large_backbone(tmp_path / "large")
    matcher = Matcher(Architecture(backbone=folder, contrast_layer=2, layout="packed"))
    assert matcher.encoder.config.vocab_size == 39859


def test_the_matrix_rate_is_that_of_a_known_product(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("the size is another on a GPU")
    monkeypatch.setattr(speed, "seconds_of", lambda work: 0.5)
    assert speed.matrix_rate(size=100) == pytest.approx(2 * 100**3 / 0.5 / 1e9)
