"""Distillation: what is mined, what a teacher says of it, and what a student learns from it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.method.losses import dual_loss
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.model import Outputs
from patsim_utils.ratings import ABOVE_COLUMNS, RATING_COLUMNS, TEACHER_COLUMNS
from patsim_utils.training import distil
from patsim_utils.training.objective import objective, teacher_loss


@pytest.fixture(scope="module")
def splits() -> dict[str, pd.DataFrame]:
    return load("sample")


@pytest.fixture(scope="module")
def mined(splits) -> pd.DataFrame:
    excluded = {*splits["validation"]["anchor"], "roller bearing"}
    return distil.mine(splits["train"], excluded=excluded, anchors=30, seed=0)


def test_new_anchors_are_none_of_the_known_ones_and_nothing_excluded_is_mined(splits, mined) -> None:
    excluded = {*splits["validation"]["anchor"], "roller bearing"}
    assert mined["anchor"].nunique() == 30
    assert not {*mined["anchor"]} & {*splits["train"]["anchor"]}
    assert not {*mined["anchor"], *mined["target"]} & excluded
    assert not mined.duplicated().any()
    assert (mined["anchor"] != mined["target"]).all()
    first = mined.groupby("anchor")["context"].transform("first")
    assert 10 < (mined["context"] == first).sum() / 30 < 18
    second = mined[mined["context"] != first]
    assert second.groupby("anchor").size().between(distil.NEAREST - 1, distil.NEAREST).all()
    assert second["anchor"].nunique() > 20
    in_first = mined.loc[mined["context"] == first, ["anchor", "target"]]
    assert len(second.merge(in_first)) == len(second)


def test_the_same_seed_mines_the_same_pairs(splits, mined) -> None:
    excluded = {*splits["validation"]["anchor"], "roller bearing"}
    again = distil.mine(splits["train"], excluded=excluded, anchors=30, seed=0)
    pd.testing.assert_frame_equal(mined, again)


def outputs_of(n: int, *, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(n, width, generator=generator) for width in (4, 8, 8, 10)]
    return Outputs(*draw)


def test_teacher_loss_is_the_cross_entropy_of_a_slow_loop() -> None:
    outputs = outputs_of(5)
    above = torch.rand(5, 4)
    ratings = torch.rand(5, 10).softmax(-1)
    terms = teacher_loss(outputs, torch.cat([above, ratings], dim=-1))
    by_rank = by_rating = 0.0
    for n in range(5):
        for k in range(4):
            p = torch.sigmoid(outputs.ordinal_logits[n, k])
            by_rank -= above[n, k] * p.log() + (1 - above[n, k]) * (1 - p).log()
        by_rating -= (ratings[n] * outputs.rating_logits[n].log_softmax(-1)).sum()
    assert terms["ordinal"].item() == pytest.approx(by_rank.item() / 5, rel=1e-5)
    assert terms["rating"].item() == pytest.approx(by_rating.item() / 5, rel=1e-5)


def batch_of(n: int) -> dict[str, torch.Tensor]:
    numbers = torch.arange(n)
    return {
        "rank": numbers % 5,
        "rating": numbers % 10,
        "anchor_text": numbers // 3,
        "target_text": 100 + numbers,
    }


def test_rated_and_labelled_pairs_count_by_their_share() -> None:
    config = Config(rating_weight=1.0)
    outputs, batch = outputs_of(8), batch_of(8)
    teacher = torch.rand(8, 14)
    teacher[:6] = torch.nan
    terms = objective(outputs, batch | {"teacher": teacher}, config)
    first = Outputs(*(value[:6] for value in vars(outputs).values()))
    last = Outputs(*(value[6:] for value in vars(outputs).values()))
    rated = dual_loss(first, {name: value[:6] for name, value in batch.items()}, config)
    labelled = teacher_loss(last, teacher[6:])
    assert terms["ordinal"].item() == pytest.approx((0.75 * rated["ordinal"] + 0.25 * labelled["ordinal"]).item())
    assert terms["rating"].item() == pytest.approx((0.75 * rated["rating"] + 0.25 * labelled["rating"]).item())
    assert terms["contrast"].item() == pytest.approx(0.75 * rated["contrast"].item())


@pytest.mark.parametrize("labelled", [0, 8])
def test_a_batch_of_one_kind_has_a_finite_loss(labelled: int) -> None:
    teacher = torch.full((8, 14), torch.nan)
    teacher[:labelled] = 0.1
    terms = objective(outputs_of(8), batch_of(8) | {"teacher": teacher}, Config())
    assert all(torch.isfinite(term) for term in terms.values())


def test_a_killed_labelling_goes_on_where_it_was(splits, mined, tiny_backbone, tmp_path, monkeypatch) -> None:
    config = Config(backbone=tiny_backbone("bert"), contrast_layer=1)
    torch.manual_seed(0)
    teacher = Matcher(config)
    monkeypatch.setattr(distil, "SHARD", 10)
    whole = distil.label([teacher], mined, tmp_path / "whole")
    assert np.allclose(whole[list(RATING_COLUMNS)].sum(axis=1), 1, atol=1e-3)
    assert (whole[list(ABOVE_COLUMNS)].diff(axis=1).iloc[:, 1:] <= 1e-4).all(axis=None)  # P(rank > k) falls along k

    asked = []
    plain = distil._probabilities

    def stopped(matcher: Matcher, pairs: pd.DataFrame) -> np.ndarray:
        asked.append(len(pairs))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return plain(matcher, pairs)

    monkeypatch.setattr(distil, "_probabilities", stopped)
    with pytest.raises(KeyboardInterrupt):
        distil.label([teacher], mined, tmp_path / "killed")
    resumed = distil.label([teacher], mined, tmp_path / "killed")
    assert len(asked) == 4  # the first part is not labelled again
    pd.testing.assert_frame_equal(resumed, whole)


def test_a_student_learns_from_rated_and_labelled_pairs(splits, tiny_backbone, tmp_path: Path) -> None:
    config = Config(backbone=tiny_backbone("bert"), contrast_weight=0, layout="packed", epochs=1, batch_size=64)
    small = splits | {"train": splits["train"].head(200)}
    torch.manual_seed(0)
    teacher = Matcher(config)
    teacher.save(tmp_path / "teacher" / "model")
    metrics = distil.distil(small, config, [tmp_path / "teacher"], tmp_path / "student", anchors=20)
    assert metrics["train"]["n"] > 400
    excluded = {*splits["validation"]["anchor"], *splits["test"]["anchor"]}
    pairs = distil.mine(small["train"], excluded=excluded, anchors=20, seed=config.seed)
    (labels,) = (tmp_path / ".student.labels").iterdir()
    labelled = pd.read_csv(labels / "0000.csv", keep_default_na=False)
    assert labelled[["anchor", "target", "context"]].equals(pairs)
    rows = distil.student_rows(small["train"], labelled, excluded=excluded)
    made = rows[len(small["train"]) :]
    made = made[made[TEACHER_COLUMNS[0]].isna()]
    assert (made.query("rating == '4'")["score"] == 1).all()
    assert set(made["rating"]) <= {"4", "1a"}
    learned = rows[list(TEACHER_COLUMNS)].notna().all(axis=1).sum()
    assert (
        len(labelled) - len(made) <= learned <= len(labelled)
    )  # a pair made by rule takes the place of a labelled one
    assert len(made) > 0
    assert not {*made["anchor"], *made["target"]} & excluded


def test_a_variant_is_the_same_and_an_opposite_an_antonym() -> None:
    phrases = pd.DataFrame({"anchor": ["strong fibre", "axle", "upper door"], "context": ["D01", "B60", "B60"]})
    rows = distil.by_rule(phrases, excluded={"lower door"}, seed=0)
    assert rows[["target", "score", "rating"]].values.tolist()[:2] == [
        ["strong fiber", 1.0, "4"],
        ["weak fibre", 0.25, "1a"],
    ]
    assert "lower door" not in set(rows["target"])
