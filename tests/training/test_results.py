"""Entries of metrics.json by hand: figures of a split, cost of a training, baselines."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils import metrics
from patsim_utils.config import Config
from patsim_utils.method import losses, ordinal
from patsim_utils.training import results


@pytest.fixture
def logits() -> torch.Tensor:
    """Cumulative logits of the twelve pairs of `pairs_frame`."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 4, generator=generator).sort(-1, descending=True).values


def test_figures_are_of_expected_scores_and_the_loss_that_was_trained(pairs_frame, logits) -> None:
    config = Config(loss="smooth_k2", alpha=2.0, beta=0.1, seed=3)
    figures = results.figures(pairs_frame, logits, config)
    rank = torch.from_numpy((4 * pairs_frame["score"]).to_numpy(np.int64))
    loss = losses.smooth_k2(4 * ordinal.score(logits), rank.float(), alpha=2.0, beta=0.1).item()
    scores = logits.sigmoid().mean(-1).double().numpy()
    assert figures == metrics.evaluate(pairs_frame, scores, loss=loss, seed=3)
    assert figures["loss"] == pytest.approx(loss)


def test_the_cost_of_a_training_counts_what_was_trained(pairs_frame, monkeypatch) -> None:
    network = torch.nn.Linear(3, 5)
    network.bias.requires_grad = False
    network.device = torch.device("cpu")
    config = Config(epochs=2, precision="fp32")
    trainer = SimpleNamespace(
        matcher=SimpleNamespace(config=config), model=network, sampler=SimpleNamespace(padding=lambda: 0.25)
    )
    history = pd.DataFrame({"step": [1, 2, 2], "seconds": [3.0, 5.0, 6.0], "eval_runtime": [np.nan, 0.5, 0.75]})
    monkeypatch.setattr(results.devices, "peak_memory", lambda: 123.456)
    monkeypatch.setattr(results.devices, "describe", lambda: "a device")
    expected = {
        "n": 12,
        "seconds": 6.0,
        "epochs": 2,
        "steps": 2,
        "pairs_per_second": 4.0,
        "peak_memory_mb": 123.5,
        "trainable_parameters": 15,
        "device": "a device",
        "precision": "fp32",
        "padding": 0.25,
        "evaluation_seconds": 1.25,
    }
    assert results._cost(pairs_frame, trainer, history) == expected
    trainer.matcher.config = config.model_copy(update={"precision": "bf16"})
    assert results._cost(pairs_frame, trainer, history) == expected | {"precision": "bf16"}


def test_an_epoch_has_its_step_seconds_and_figures() -> None:
    log = {"epoch": 1.9999, "step": 20.0, "seconds": 3.5, "eval_pearson": 0.5, "eval_spearman": 0.4, "eval_loss": 0.3}
    expected = {"epoch": 2, "step": 20, "seconds": 3.5, "pearson": 0.5, "spearman": 0.4, "loss": 0.3}
    assert results._epoch(pd.Series(log)) == expected


def test_baselines_are_words_the_pretrained_cosine_and_the_regressor(pairs_frame, monkeypatch) -> None:
    config = Config(backbone="mpnet", seed=2)
    cosine = np.linspace(-0.5, 1.5, 12)

    def pretrained_cosine(frame: pd.DataFrame, *, backbone: str) -> np.ndarray:
        assert backbone == "mpnet"
        return cosine[: len(frame)]

    def regressor(frame: pd.DataFrame) -> torch.Tensor:
        return torch.linspace(0, 1, 4 * len(frame)).view(-1, 4)

    monkeypatch.setattr(results.encoder, "pretrained_cosine", pretrained_cosine)
    held_out = {"validation": pairs_frame, "test": pairs_frame.head(2)}
    entries = results.baselines(held_out, config, regressor)
    words = metrics.word_jaccard(pairs_frame)
    assert list(entries) == ["word_jaccard", "pretrained_cosine", "features"]
    assert entries["word_jaccard"]["validation"] == metrics.evaluate(pairs_frame, words, seed=2)
    clipped = metrics.evaluate(pairs_frame, cosine.clip(0, 1), seed=2)
    assert entries["pretrained_cosine"]["validation"] == clipped
    scores = np.linspace(0, 1, 48).reshape(12, 4).mean(1)
    assert entries["features"]["validation"]["pearson"] == pytest.approx(metrics.pearson(pairs_frame["score"], scores))
    assert [entry["test"] for entry in entries.values()] == [None] * 3  # of one anchor
    assert list(results.baselines(held_out, config, None)) == ["word_jaccard", "pretrained_cosine"]
