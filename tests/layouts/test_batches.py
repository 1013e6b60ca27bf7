"""The batches of an epoch are those of the code that the recorded runs were trained with, row by row.

`golden_batches.json` holds a digest of the batches of each case below, and the first batch of one of them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.layouts.sequences import LAYOUTS
from patsim_utils.method import encoder

GOLDEN = json.loads(Path(__file__).with_name("golden_batches.json").read_text())
ROWS = 300
# layout, batch size and what else is set; "pools": an epoch draws on a third of the anchors; "1/3": the second of
# three devices
CASES = [
    "pair 7",
    "pair 64",
    "pair 7 pools",
    "pair 7 1/3",
    "packed 1",
    "packed 8",
    "packed 64",
    "packed 8 pools",
    "packed 4 0/3",
    "packed 4 1/3",
    "packed 4 2/3",
    "repeated 8",
    "repeated 64 pools",
]


def frame() -> pd.DataFrame:
    """300 pairs of 20 anchors in two classes, phrases of one to eight words."""
    generator = np.random.default_rng(1)
    targets = [" ".join(["word"] * count) for count in generator.integers(1, 9, ROWS)]
    anchors = ["anchor " * (1 + number % 3) + str(number) for number in generator.integers(0, 20, ROWS)]
    contexts = np.array(["H01", "E04"])[generator.integers(0, 2, ROWS)]
    return pd.DataFrame({"anchor": anchors, "target": targets, "context": contexts})


def pairs_of(table: pd.DataFrame, layout: str) -> Pairs:
    return Pairs(table, encoder.load_tokenizer("minilm"), layout=layout, titles=cpc.titles())


def batches_of(case: str, epoch: int = 0) -> list[list[list[int]]]:
    """Rows of each sequence of each batch."""
    layout, size, *rest = case.split()
    table = frame()
    pairs = pairs_of(table, layout)
    options = {}
    if "pools" in rest:
        third = table["anchor"].isin(table["anchor"].unique()[::3])
        options["pools"] = [np.flatnonzero(third), np.arange(ROWS)]
    elif rest:
        options["share"] = tuple(int(number) for number in rest[0].split("/"))
    sampler = LengthGrouped(pairs, batch_size=int(size), seed=3, **options)
    sampler.set_epoch(epoch)
    return [[rows.tolist() for rows in batch] for batch in sampler]


def digest(batches: list[list[list[int]]]) -> str:
    return hashlib.sha256(json.dumps(batches).encode()).hexdigest()[:16]


@pytest.mark.parametrize("case", CASES)
def test_batches_are_what_they_were(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LengthGrouped, "STRETCH", 4)  # several stretches, although the rows are few
    digests = [digest(batches_of(case, epoch)) for epoch in (0, 1)]
    assert digests == GOLDEN["digests"][case]


def test_batches_of_whole_stretches_are_what_they_were() -> None:
    digests = [digest(batches_of("pair 2", epoch)) for epoch in (0, 1)]
    assert digests == GOLDEN["digests of pair 2, stretches as they are"]


def test_the_first_batch_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LengthGrouped, "STRETCH", 4)
    assert batches_of("packed 8")[0] == GOLDEN["first batch of packed 8"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_every_epoch_shows_every_row_once_in_a_fixed_number_of_batches(
    monkeypatch: pytest.MonkeyPatch, layout: str, batch_size: int
) -> None:
    monkeypatch.setattr(LengthGrouped, "STRETCH", 4)
    pairs = pairs_of(frame(), layout)
    sampler = LengthGrouped(pairs, batch_size=batch_size, seed=3)
    first_epoch = [np.concatenate(batch).tolist() for batch in sampler]
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == -(-ROWS // batch_size)
        rows = [np.concatenate(batch).tolist() for batch in batches]
        assert sorted(sum(rows, [])) == list(range(ROWS))
        if layout == "pair":
            assert max(map(len, rows)) <= batch_size
        epochs.append(rows)
    assert epochs[0] == epochs[2] == first_epoch
    assert epochs[0] != epochs[1]
    blocks = [pairs.collate([pairs[rows] for rows in batch])["block"] for batch in sampler]
    share = sum((block < 0).sum().item() for block in blocks) / sum(block.numel() for block in blocks)
    assert sampler.padding() == pytest.approx(share)


def test_the_devices_share_each_batch_and_none_is_left_without_rows() -> None:
    pairs = pairs_of(frame(), "packed")
    whole = list(LengthGrouped(pairs, batch_size=4, seed=0))
    shares = [list(LengthGrouped(pairs, batch_size=4, seed=0, share=(device, 3))) for device in range(3)]
    assert min(len(batch) for batch in whole) < 3  # so that a sequence has to be cut
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(parts)
        of_devices = [np.concatenate(part) for part in parts]
        assert sorted(np.concatenate(of_devices)) == sorted(np.concatenate(batch))


def test_a_batch_with_fewer_rows_than_devices_is_refused() -> None:
    sampler = LengthGrouped(pairs_of(frame(), "pair"), batch_size=2, seed=0, share=(0, 4))
    with pytest.raises(InputError, match="fewer pairs than there are devices \\(4\\): raise batch_size"):
        list(sampler)


def test_batches_hold_sequences_of_like_length(real_data) -> None:
    """On the real validation split, at most a tenth of the tokens of shuffled batches is padding."""
    validation = pd.read_csv(real_data / "validation.csv", keep_default_na=False)
    assert LengthGrouped(pairs_of(validation, "pair"), batch_size=32, seed=0).padding() < 0.1
