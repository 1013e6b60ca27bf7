"""Which anchors an epoch draws on."""

import numpy as np
import pandas as pd
import pytest

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.splits import load
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method import encoder
from patsim_utils.training import curriculum


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    sample = load("sample")["train"]
    return sample[sample["anchor"].isin(sample["anchor"].unique()[::3])].reset_index(drop=True)


@pytest.fixture(scope="module")
def hard(frame: pd.DataFrame) -> pd.Series:
    return curriculum.difficulty(frame, backbone="minilm")


def test_difficulty_is_the_error_out_of_fold(frame: pd.DataFrame, hard: pd.Series) -> None:
    assert set(hard.index) == set(frame["anchor"])
    assert hard.between(0, 1).all()
    # an anchor whose scores are turned round is as hard as can be, and would not be if its own rows had been learned
    odd = hard.idxmin()
    turned = frame.assign(score=frame["score"].where(frame["anchor"] != odd, 1 - frame["score"]))
    assert curriculum.difficulty(turned, backbone="minilm")[odd] > hard[odd] + 0.1


@pytest.mark.parametrize("kind", ["easy_first", "random", "hard_first"])
def test_pools_grow_to_all_rows(frame: pd.DataFrame, hard: pd.Series, kind: str, monkeypatch) -> None:
    monkeypatch.setattr(curriculum, "difficulty", lambda *_, **__: hard)
    pools = curriculum.pools(frame, Config(curriculum=kind, epochs=3))
    assert len(pools) == 3
    assert set(pools[0]) < set(pools[1]) < set(pools[2]) == set(range(len(frame)))
    first = frame["anchor"].iloc[pools[0]].unique()
    assert len(first) == -(-len(hard) // 3)
    inside, outside = hard[first], hard.drop(first)
    assert (inside.max() <= outside.min()) == (kind == "easy_first")
    assert (inside.min() >= outside.max()) == (kind == "hard_first")


@pytest.mark.parametrize("layout", ["pair", "packed"])
def test_an_epoch_draws_on_its_pool_alone_in_as_many_batches(frame: pd.DataFrame, layout: str) -> None:
    pairs = Pairs(frame, encoder.load_tokenizer("minilm"), layout=layout, titles=cpc.titles())
    anchors = frame["anchor"].unique()
    pools = [np.flatnonzero(frame["anchor"].isin(anchors[:count])) for count in (3, len(anchors))]
    sampler = LengthGrouped(pairs, batch_size=16, seed=0, pools=pools)
    for epoch, pool in enumerate(pools):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(batches)
        drawn = np.bincount(np.concatenate([rows for batch in batches for rows in batch]), minlength=len(frame))
        assert set(np.flatnonzero(drawn)) == set(pool)
        assert drawn[pool].max() - drawn[pool].min() <= 1
        assert abs(drawn.sum() - len(frame)) <= 8
    whole = LengthGrouped(pairs, batch_size=16, seed=0)
    whole.set_epoch(1)
    for with_pools, without in zip(batches, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(with_pools), np.concatenate(without))


def test_difficulty_is_that_of_the_backbone_of_the_settings(frame: pd.DataFrame, hard: pd.Series, monkeypatch) -> None:
    asked = []

    def difficulty(rows: pd.DataFrame, *, backbone: str) -> pd.Series:
        asked.append((len(rows), backbone))
        return hard

    monkeypatch.setattr(curriculum, "difficulty", difficulty)
    curriculum.pools(frame, Config(curriculum="random", epochs=1, backbone="mpnet"))
    assert asked == [(len(frame), "mpnet")]
