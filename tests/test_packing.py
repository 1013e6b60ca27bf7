"""Layouts, spans, masks and batches."""

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils import cpc, encoder, packing
from patsim_utils.errors import InputError
from patsim_utils.packing import LengthGrouped, Pairs

TOKENIZER = encoder.load_tokenizer("minilm")


def build(frame: pd.DataFrame, layout: str, **options: object) -> Pairs:
    return Pairs(frame, TOKENIZER, layout=layout, titles=cpc.titles(), **options)


def words(tokens: list[int]) -> str:
    return TOKENIZER.decode(tokens)


def test_pair_reads_anchor_target_context(pairs_frame: pd.DataFrame) -> None:
    sequence = build(pairs_frame, "pair")[np.array([0])]
    gloss = words(TOKENIZER(cpc.titles()["E04"].replace(",", ""), add_special_tokens=False)["input_ids"][:8])
    assert words(sequence.tokens) == f"[CLS] strong material [SEP] steel [SEP] {gloss} [SEP]"
    assert words([sequence.tokens[i] for i in sequence.anchor]) == "strong material"
    assert words([sequence.tokens[i] for i in sequence.targets[0]]) == "steel"
    assert sequence.positions == list(range(len(sequence.tokens)))
    assert set(sequence.block) == {0}
    assert sequence.part == [0] * 4 + [2] * 2 + [1] * 9
    assert cpc.CODES[sequence.code] == "E04"


@pytest.mark.parametrize("layout", ["packed", "list"])
def test_a_group_shares_its_prefix(pairs_frame: pd.DataFrame, layout: str) -> None:
    pairs = build(pairs_frame, layout)
    sequence = pairs[np.array([0, 1, 2])]
    text = words(sequence.tokens)
    assert text.startswith("[CLS] strong material [SEP] ")
    assert text.endswith("[SEP] steel [SEP] stout material [SEP] soft material [SEP]")
    assert [words([sequence.tokens[i] for i in span]) for span in sequence.targets] == [
        "steel",
        "stout material",
        "soft material",
    ]
    prefix = sequence.targets[0].start
    if layout == "packed":
        assert [sequence.positions[span.start] for span in sequence.targets] == [prefix] * 3
        assert sequence.block == [0] * prefix + [1] * 2 + [2] * 3 + [3] * 3
        assert sequence.part == [0] * 4 + [1] * (prefix - 4) + [2] * 2 + [3] * 3 + [4] * 3
    else:
        assert sequence.positions == list(range(len(sequence.tokens)))
        assert set(sequence.block) == {0}


@pytest.mark.parametrize("layout", ["packed", "list"])
def test_targets_may_stand_without_a_sep_of_their_own(pairs_frame: pd.DataFrame, layout: str) -> None:
    with_it, without = (
        build(pairs_frame, layout, target_sep=target_sep)[np.array([0, 1, 2])] for target_sep in (True, False)
    )
    assert words(without.tokens).endswith("[SEP] steel stout material soft material")
    assert len(without.tokens) == len(with_it.tokens) - 3
    assert [words([without.tokens[i] for i in span]) for span in without.targets] == [
        "steel",
        "stout material",
        "soft material",
    ]
    prefix = without.targets[0].start
    assert without.part[prefix:] == [2, 3, 3, 4, 4]
    if layout == "packed":
        assert without.block[prefix:] == [1, 2, 2, 3, 3]
        assert without.positions[prefix:] == [prefix, prefix, prefix + 1, prefix, prefix + 1]


@pytest.mark.parametrize(
    ("layout", "target_sep"), [("pair", True), ("packed", True), ("packed", False), ("list", True), ("list", False)]
)
def test_lengths_are_those_of_the_sequences(pairs_frame: pd.DataFrame, layout: str, target_sep: bool) -> None:
    for titles in (cpc.titles(), {}):
        pairs = Pairs(pairs_frame, TOKENIZER, layout=layout, titles=titles, target_sep=target_sep)
        sequences = pairs.sequences(largest=3)
        assert pairs.lengths(sequences).tolist() == [len(pairs[rows].tokens) for rows in sequences]
        assert sorted(np.concatenate(sequences).tolist()) == list(range(len(pairs_frame)))


def test_groups_hold_one_anchor_in_one_context(pairs_frame: pd.DataFrame) -> None:
    groups = build(pairs_frame, "packed").groups()
    assert [group.tolist() for group in groups] == [[0, 1, 2, 3], [4, 5], [6, 7, 8], [9, 10, 11]]
    parts = build(pairs_frame, "packed").sequences(largest=3, generator=np.random.default_rng(0))
    assert sorted(map(len, parts)) == [2, 2, 2, 3, 3]


def test_a_list_fits_the_encoder(pairs_frame: pd.DataFrame) -> None:
    frame = pd.DataFrame({"anchor": "a b", "target": ["word " * k for k in range(1, 41)], "context": "H01"})
    pairs = build(frame, "list")
    sequences = pairs.sequences(largest=128)
    assert len(sequences) > 1
    assert pairs.lengths(sequences).max() <= 512
    assert sorted(np.concatenate(sequences).tolist()) == list(range(40))


def test_collate_pads_to_the_longest_and_finds_the_spans(pairs_frame: pd.DataFrame) -> None:
    pairs = build(pairs_frame, "packed")
    batch = pairs.collate([pairs[np.array([0, 1])], pairs[np.array([6])]])
    flat = batch["input_ids"].flatten()
    assert batch["rows"].tolist() == [0, 1, 6]
    assert batch["sequence"].tolist() == [0, 0, 1]
    spans = [words(flat[span[span >= 0]].tolist()) for span in batch["target_span"]]
    assert spans == ["steel", "stout material", "accumulator"]
    spans = [words(flat[span[span >= 0]].tolist()) for span in batch["anchor_span"]]
    assert spans == ["strong material", "strong material", "battery cell"]
    assert batch["rank"].tolist() == [2, 4, 3]
    assert ((batch["block"] == -1) == (batch["input_ids"] == TOKENIZER.pad_token_id)).all()
    assert not (batch["block"] == -1).all(0).any()


def test_the_mask_follows_its_rule() -> None:
    block = torch.tensor([[0, 0, 1, 1, 2, -1]])
    mask = packing.visible(block)[0, 0]
    for q, own in enumerate(block[0].tolist()):
        for k, other in enumerate(block[0].tolist()):
            assert mask[q, k].item() == ((own >= 0 and other == 0) or own == other)
    assert mask.any(-1).all()


@pytest.mark.parametrize("layout", packing.LAYOUTS)
def test_span_places_hold_every_token_of_anchor_and_targets_and_none_twice(
    pairs_frame: pd.DataFrame, layout: str
) -> None:
    pairs = build(pairs_frame, layout)
    sequences = [pairs[rows] for rows in pairs.sequences(largest=3)]
    places = packing.span_places(pairs.collate(sequences)).tolist()
    wanted = [{*s.anchor, *(place for span in s.targets for place in span)} for s in sequences]
    assert {len(row) for row in places} == {max(map(len, wanted))}
    for row, places_of_spans in zip(places, wanted, strict=True):
        assert len(set(row)) == len(row)
        assert set(row[: len(places_of_spans)]) == places_of_spans


def test_a_phrase_is_tokenised_once(pairs_frame: pd.DataFrame) -> None:
    pairs = build(pairs_frame, "pair")
    phrases = pd.unique(np.concatenate([pairs_frame["anchor"], pairs_frame["target"]]))
    assert len(pairs.tokens) == len(phrases) + pairs_frame["context"].nunique()


def test_a_phrase_that_the_tokenizer_drops_is_not_empty(pairs_frame: pd.DataFrame) -> None:
    frame = pairs_frame.assign(target="\u200b")
    sequence = build(frame, "pair")[np.array([0])]
    assert len(sequence.targets[0]) == 1


def test_unknown_contexts_are_an_error_or_have_no_text(pairs_frame: pd.DataFrame) -> None:
    frame = pairs_frame.assign(context="Z99")
    with pytest.raises(InputError, match="Z99"):
        build(frame, "pair")
    sequence = build(frame, "pair", unknown="embedding")[np.array([0])]
    assert words(sequence.tokens) == "[CLS] strong material [SEP] steel [SEP]"
    assert sequence.code == 0


@pytest.mark.parametrize("layout", packing.LAYOUTS)
@pytest.mark.parametrize("batch_size", [1, 4, 5, 64])
def test_every_epoch_shows_every_row_once_in_a_fixed_number_of_batches(layout: str, batch_size: int) -> None:
    generator = np.random.default_rng(1)
    n = 300
    frame = pd.DataFrame(
        {
            "anchor": [f"anchor {i}" for i in generator.integers(0, 20, n)],
            "target": [" ".join(["word"] * k) for k in generator.integers(1, 9, n)],
            "context": "H01",
        }
    )
    sampler = LengthGrouped(build(frame, layout), batch_size=batch_size, seed=3, stretch=4)
    seen = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        rows = [np.concatenate(batch).tolist() for batch in batches]
        assert sorted(sum(rows, [])) == list(range(n))
        if layout == "pair":
            assert max(map(len, rows)) <= batch_size
        seen.append(rows)
    assert seen[0] == seen[2]
    assert n == 1 or seen[0] != seen[1]


@pytest.mark.parametrize("layout", packing.LAYOUTS)
def test_batches_can_be_cut_by_tokens(layout: str) -> None:
    """Every row once, a fixed number of batches, and none far from the budget; the padding is what collate pads."""
    generator = np.random.default_rng(2)
    n = 600
    frame = pd.DataFrame(
        {
            "anchor": [f"anchor {i}" for i in generator.integers(0, 20, n)],
            "target": [" ".join(["word"] * k) for k in generator.integers(1, 9, n)],
            "context": "H01",
        }
    )
    pairs = build(frame, layout)
    sampler = LengthGrouped(pairs, batch_size=1, batch_tokens=400, seed=0)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(np.concatenate([np.concatenate(batch) for batch in batches]).tolist()) == list(range(n))
        tokens = [pairs.lengths(batch).sum() for batch in batches]
        assert max(tokens) <= 1.5 * 400
        assert np.mean(tokens) == pytest.approx(400, rel=0.05)
    blocks = [pairs.collate([pairs[rows] for rows in batch])["block"] for batch in sampler]
    share = sum((block < 0).sum().item() for block in blocks) / sum(block.numel() for block in blocks)
    assert sampler.padding() == pytest.approx(share)
    with pytest.raises(InputError, match="batch_tokens: 30 is less"):
        LengthGrouped(pairs, batch_size=1, batch_tokens=30, seed=0)


def test_batches_hold_sequences_of_like_length(real_data) -> None:
    """On the real validation split, at most a tenth of the tokens of shuffled batches is padding."""
    frame = pd.read_csv(real_data / "validation.csv", keep_default_na=False)
    pairs = build(frame, "pair")
    assert LengthGrouped(pairs, batch_size=32, seed=0).padding() < 0.1
