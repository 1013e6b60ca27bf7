"""Layouts, spans, masks and batches."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.layouts import positions
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method import encoder

TOKENIZER = encoder.load_tokenizer("minilm")
LAYOUTS = ("pair", "packed", "compact", "repeated", "listwise")


def build(frame: pd.DataFrame, layout: str, **options: object) -> Pairs:
    return Pairs(frame, TOKENIZER, layout=layout, titles=cpc.titles(), **options)


def words(tokens: list[int]) -> str:
    return TOKENIZER.decode(tokens)


def test_pair_reads_anchor_target_context(pairs_frame: pd.DataFrame) -> None:
    sequence = build(pairs_frame, "pair")[np.array([0])]
    gloss = words(TOKENIZER(cpc.titles()["E04"].replace(",", ""), add_special_tokens=False)["input_ids"][:8])
    assert words(sequence.tokens) == f"[CLS] strong material [SEP] steel [SEP] {gloss} [SEP]"
    assert words([sequence.tokens[i] for i in sequence.anchors[0]]) == "strong material"
    assert words([sequence.tokens[i] for i in sequence.targets[0]]) == "steel"
    assert sequence.positions == list(range(len(sequence.tokens)))
    assert set(sequence.block) == {0}
    assert cpc.CODES[sequence.code] == "E04"


@pytest.mark.parametrize("layout", ["packed", "compact", "listwise"])
def test_a_group_shares_its_prefix(pairs_frame: pd.DataFrame, layout: str) -> None:
    sequence = build(pairs_frame, layout)[np.array([0, 1, 2])]
    text, spans = words(sequence.tokens), sequence.targets
    assert text.startswith("[CLS] strong material [SEP] ")
    targets = ["steel", "stout material", "soft material"]
    assert [words([sequence.tokens[i] for i in span]) for span in spans] == targets
    end = " [SEP]" if layout != "compact" else ""
    assert text.endswith("[SEP] " + f"{end} ".join(targets) + end)
    prefix, extra = spans[0].start, bool(end)
    if layout == "listwise":
        assert sequence.positions == list(range(len(sequence.tokens)))
        assert set(sequence.block) == {0}
    else:
        assert [sequence.positions[span.start] for span in spans] == [prefix] * 3
        assert sequence.block == [0] * prefix + [1] * (1 + extra) + [2] * (2 + extra) + [3] * (2 + extra)


def test_a_repeated_anchor_stands_before_each_target(pairs_frame: pd.DataFrame) -> None:
    sequence = build(pairs_frame, "repeated")[np.array([0, 1])]
    prefix = sequence.block.count(0)
    text = words(sequence.tokens)
    assert text.startswith("[CLS] ")
    assert text.endswith(" [SEP] strong material [SEP] steel [SEP] strong material [SEP] stout material [SEP]")
    assert sequence.block == [0] * prefix + [1] * 5 + [2] * 6
    assert sequence.positions[prefix:] == [*range(prefix, prefix + 5), *range(prefix, prefix + 6)]
    for anchor, target, phrase in zip(sequence.anchors, sequence.targets, ("steel", "stout material"), strict=True):
        assert words([sequence.tokens[i] for i in anchor]) == "strong material"
        assert words([sequence.tokens[i] for i in target]) == phrase


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lengths_are_those_of_the_sequences(pairs_frame: pd.DataFrame, layout: str) -> None:
    for titles in (cpc.titles(), {}):
        pairs = Pairs(pairs_frame, TOKENIZER, layout=layout, titles=titles)
        sequences = pairs.sequences(largest=3)
        assert pairs.lengths(sequences).tolist() == [len(pairs[rows].tokens) for rows in sequences]
        assert sorted(np.concatenate(sequences).tolist()) == list(range(len(pairs_frame)))


def test_groups_hold_one_anchor_in_one_context(pairs_frame: pd.DataFrame) -> None:
    groups = build(pairs_frame, "packed").sequences(largest=9)
    assert [group.tolist() for group in groups] == [[0, 1, 2, 3], [4, 5], [6, 7, 8], [9, 10, 11]]
    classless = pairs_frame.assign(context="none for " + pairs_frame["context"])  # whose groups stay apart
    same = build(classless, "packed", unknown="embedding").sequences(largest=9)
    assert [group.tolist() for group in same] == [group.tolist() for group in groups]
    parts = build(pairs_frame, "packed").sequences(largest=3, generator=np.random.default_rng(0))
    assert sorted(map(len, parts)) == [2, 2, 2, 3, 3]


@pytest.mark.parametrize("longest", [128, 512, 4096])
def test_a_listwise_sequence_fits_the_encoder(longest: int) -> None:
    frame = pd.DataFrame({"anchor": "a b", "target": ["word " * k for k in range(1, 41)], "context": "H01"})
    pairs = build(frame, "listwise", longest=longest)
    sequences = pairs.sequences(largest=128)
    assert len(sequences) > 1
    assert pairs.lengths(sequences).max() <= min(longest, 512)
    assert sorted(np.concatenate(sequences).tolist()) == list(range(40))


def test_collate_pads_to_the_longest_and_finds_the_spans(pairs_frame: pd.DataFrame) -> None:
    pairs = build(pairs_frame, "packed")
    batch = pairs.collate([pairs[np.array([0, 1])], pairs[np.array([6])]])
    flat = batch["input_ids"].flatten()
    assert batch["rows"].tolist() == [0, 1, 6]
    spans = [words(flat[span[span >= 0]].tolist()) for span in batch["target_span"]]
    assert spans == ["steel", "stout material", "accumulator"]
    spans = [words(flat[span[span >= 0]].tolist()) for span in batch["anchor_span"]]
    assert spans == ["strong material", "strong material", "battery cell"]
    assert batch["rank"].tolist() == [2, 4, 3]
    assert ((batch["block"] == -1) == (batch["input_ids"] == TOKENIZER.pad_token_id)).all()
    assert not (batch["block"] == -1).all(0).any()


def test_the_mask_follows_its_rule() -> None:
    block = torch.tensor([[0, 0, 1, 1, 2, -1]])
    mask = positions.visible(block)[0, 0]
    for q, own in enumerate(block[0].tolist()):
        for k, other in enumerate(block[0].tolist()):
            assert mask[q, k].item() == ((own >= 0 and other == 0) or own == other)
    assert mask.any(-1).all()


def test_a_phrase_is_tokenised_once_and_never_empty(pairs_frame: pd.DataFrame) -> None:
    pairs = build(pairs_frame, "pair")
    phrases = pd.unique(np.concatenate([pairs_frame["anchor"], pairs_frame["target"]]))
    assert len(pairs.tokens) == len(phrases) + pairs_frame["context"].nunique()
    dropped = build(pairs_frame.assign(target="\u200b"), "pair")[np.array([0])]
    assert len(dropped.targets[0]) == 1


def test_long_phrases_are_read_whole_or_cut_with_one_warning(pairs_frame: pd.DataFrame, caplog) -> None:
    long = " ".join(["word"] * 100)
    frame = pairs_frame.assign(target=[f"{long} {i}" for i in range(12)])
    with caplog.at_level(logging.WARNING, logger="patsim"):
        whole = build(frame, "pair")
        assert not caplog.records
        assert words([whole[np.array([3])].tokens[i] for i in whole[np.array([3])].targets[0]]) == f"{long} 3"
        cut = build(frame, "pair", longest=108)
    assert [record.getMessage() for record in caplog.records] == [
        "12 of 15 phrases are longer than the 48 tokens that this model reads; their ends are left out"
    ]
    assert len(cut[np.array([0])].targets[0]) == 48


def test_unknown_contexts_are_an_error_or_have_no_text(pairs_frame: pd.DataFrame) -> None:
    frame = pairs_frame.assign(context="Z99")
    with pytest.raises(InputError, match="Z99"):
        build(frame, "pair")
    sequence = build(frame, "pair", unknown="embedding")[np.array([0])]
    assert words(sequence.tokens) == "[CLS] strong material [SEP] steel [SEP]"
    assert sequence.code == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_every_epoch_shows_every_row_once_in_a_fixed_number_of_batches(
    monkeypatch: pytest.MonkeyPatch, layout: str, batch_size: int
) -> None:
    monkeypatch.setattr(LengthGrouped, "STRETCH", 4)
    generator, n = np.random.default_rng(1), 300
    targets = [" ".join(["word"] * k) for k in generator.integers(1, 9, n)]
    anchors = [f"anchor {i}" for i in generator.integers(0, 20, n)]
    pairs = build(pd.DataFrame({"anchor": anchors, "target": targets, "context": "H01"}), layout)
    sampler = LengthGrouped(pairs, batch_size=batch_size, seed=3)
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
    assert seen[0] != seen[1]
    blocks = [pairs.collate([pairs[rows] for rows in batch])["block"] for batch in sampler]
    share = sum((block < 0).sum().item() for block in blocks) / sum(block.numel() for block in blocks)
    assert sampler.padding() == pytest.approx(share)


def test_batches_hold_sequences_of_like_length(real_data) -> None:
    """On the real validation split, at most a tenth of the tokens of shuffled batches is padding."""
    frame = pd.read_csv(real_data / "validation.csv", keep_default_na=False)
    assert LengthGrouped(build(frame, "pair"), batch_size=32, seed=0).padding() < 0.1
