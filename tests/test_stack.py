"""Readers: the cosine by hand, what they may see, and taking ready ones up again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patsim_utils import cpc, encoder, stack
from patsim_utils.packing import Pairs


@pytest.fixture
def pairs(tiny_backbone, pairs_frame) -> Pairs:
    return Pairs(pairs_frame, encoder.load_tokenizer(tiny_backbone("bert")), titles=cpc.titles())


def fit(backbone: str, pairs: Pairs, folder: Path, *, keep: bool = False) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    readers = nn.ModuleList(encoder.load_backbone(backbone) for _ in range(2))
    stack.fit_readers(
        readers,
        pairs,
        unseen=pairs.anchor % 2,
        tokenizer=encoder.load_tokenizer(backbone),
        seed=0,
        folder=folder,
        keep=keep,
    )
    assert not any(weight.requires_grad for weight in readers.parameters())
    return [{name: value.clone() for name, value in reader.state_dict().items()} for reader in readers]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2"])
def test_the_logit_is_the_cosine_of_phrases_read_alone(tiny_backbone, pairs_frame, kind: str) -> None:
    backbone = tiny_backbone(kind)
    tokenizer, model = encoder.load_tokenizer(backbone), encoder.load_backbone(backbone).eval()
    pairs = Pairs(pairs_frame, tokenizer, titles=cpc.titles())
    rows = np.array([3, 0, 7, 11, 4])
    batch = stack.collate(pairs, rows)
    np.testing.assert_allclose(batch.pop("score"), pairs_frame["score"][rows])
    found = stack.Reader(model, tokenizer)(**batch)

    def vector(phrase: str) -> torch.Tensor:
        states = model(**tokenizer(phrase, return_tensors="pt")).last_hidden_state[0, 1:-1]
        return F.normalize(states, dim=-1).mean(0)

    for logit, row in zip(found, rows, strict=True):
        a, t = (vector(pairs_frame[column][row]) for column in ("anchor", "target"))
        assert logit.item() == pytest.approx(7.0 * F.cosine_similarity(a, t, dim=0).item() - 4.4, abs=1e-4)


def test_it_learns_what_its_rows_say(tiny_backbone, pairs, tmp_path, monkeypatch) -> None:
    """Random weights, the same phrases again: a reader comes to find its anchors' targets as alike as they are."""
    monkeypatch.setattr(stack, "EPOCHS", 60)
    monkeypatch.setattr(stack, "LEARNING_RATE", 3e-3)
    trained = fit(tiny_backbone("bert"), pairs, tmp_path)
    tokenizer, model = encoder.load_tokenizer("minilm"), encoder.load_backbone(tiny_backbone("bert")).eval()

    def correlation(rows: np.ndarray) -> float:
        batch = stack.collate(pairs, rows)
        score = batch.pop("score")
        with torch.no_grad():
            return np.corrcoef(stack.Reader(model, tokenizer)(**batch), score)[0, 1]

    seen = np.flatnonzero(pairs.anchor % 2 == 1)
    before = correlation(seen)
    model.load_state_dict(trained[0])
    assert correlation(seen) > max(0.8, before)


def test_a_reader_never_sees_the_anchors_that_it_compares(tiny_backbone, pairs, tmp_path) -> None:
    backbone, unseen = tiny_backbone("bert"), pairs.anchor % 2
    before = fit(backbone, pairs, tmp_path)
    pairs.rank[unseen == 0] = 4 - pairs.rank[unseen == 0]
    after = fit(backbone, pairs, tmp_path)
    assert same(before[0], after[0])
    assert not same(before[1], after[1])


def test_a_ready_reader_is_taken_up_again(tiny_backbone, pairs, tmp_path, capsys, monkeypatch) -> None:
    first = fit(tiny_backbone("bert"), pairs, tmp_path, keep=True)
    assert "reader 1 of 2, epoch 2.0 of 2: loss" in capsys.readouterr().out
    (tmp_path / "reader-1.safetensors").unlink()  # as if the run had been killed in the second one
    again = fit(tiny_backbone("bert"), pairs, tmp_path, keep=True)
    said = capsys.readouterr().out
    assert "reader 1" not in said
    assert "reader 2 of 2, epoch 2.0 of 2: loss" in said
    assert all(map(same, first, again))
    monkeypatch.setattr(stack, "ReaderTrainer", None)
    assert all(map(same, first, fit(tiny_backbone("bert"), pairs, tmp_path, keep=True)))


def test_nothing_is_left_where_nothing_is_to_be_kept(tiny_backbone, pairs, tmp_path) -> None:
    fit(tiny_backbone("bert"), pairs, tmp_path / "work")
    assert not list(tmp_path.glob("work/*"))


def test_a_loss_that_is_not_finite_stops_it(tiny_backbone, pairs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stack, "BIAS", float("nan"))
    with pytest.raises(FloatingPointError, match="reader 1 of 2: the loss is nan"):
        fit(tiny_backbone("bert"), pairs, tmp_path)


def test_texts_of_a_frame_without_ratings_do(tiny_backbone, tmp_path) -> None:
    """The competition's form: no ratings, only scores."""
    frame = pd.DataFrame(
        {
            "anchor": ["a b", "a b", "c d", "c d"],
            "target": ["a", "x", "c", "y"],
            "context": "H04",
            "score": [1, 0, 1, 0],
        }
    )
    pairs = Pairs(frame, encoder.load_tokenizer(tiny_backbone("bert")), titles={})
    assert len(fit(tiny_backbone("bert"), pairs, tmp_path)) == 2
