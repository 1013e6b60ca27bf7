"""Rows tokenised, grouped into sequences and padded to a batch."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.layouts.pairs import UNRATED, Pairs
from patsim_utils.layouts.sequences import LAYOUTS, Sequence
from patsim_utils.method import encoder
from patsim_utils.ratings import RATINGS, TEACHER_COLUMNS

TOKENIZER = encoder.load_tokenizer("minilm")


def build(frame: pd.DataFrame, layout: str, **options: object) -> Pairs:
    return Pairs(frame, TOKENIZER, layout=layout, titles=cpc.titles(), **options)


def words(tokens: list[int]) -> str:
    return TOKENIZER.decode(tokens)


def words_of(sequence: Sequence, spans: list[range]) -> list[str]:
    return [words([sequence.tokens[token] for token in span]) for span in spans]


def test_a_sequence_holds_the_words_of_its_rows_and_the_start_of_the_class_text(pairs_frame: pd.DataFrame) -> None:
    sequence = build(pairs_frame, "pair")[np.array([0])]
    gloss = words(TOKENIZER(cpc.titles()["E04"].replace(",", ""), add_special_tokens=False)["input_ids"][:8])
    assert words(sequence.tokens) == f"[CLS] strong material [SEP] steel [SEP] {gloss} [SEP]"
    assert cpc.CODES[sequence.group.code] == "E04"
    for layout in ("packed", "repeated"):
        sequence = build(pairs_frame, layout)[np.array([4, 5])]
        assert sequence.group.rows == [4, 5]
        assert cpc.CODES[sequence.group.code] == "H01"
        assert words_of(sequence, sequence.anchors) == ["strong material"] * 2
        assert words_of(sequence, sequence.targets) == ["steel", "robust material"]


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


def test_a_sequence_has_as_many_targets_as_its_layout_allows() -> None:
    frame = pd.DataFrame({"anchor": "a b", "target": [f"word {k}" for k in range(70)], "context": "H01"})
    sizes = {layout: [len(rows) for rows in build(frame, layout).sequences()] for layout in LAYOUTS}
    assert sizes == {"pair": [1] * 70, "packed": [35, 35], "repeated": [24, 23, 23]}


def test_a_generator_shuffles_the_rows_of_each_group(pairs_frame: pd.DataFrame) -> None:
    pairs = build(pairs_frame, "packed")
    shuffled = pairs.sequences(largest=9, generator=np.random.default_rng(0))
    assert [sorted(rows.tolist()) for rows in shuffled] == [rows.tolist() for rows in pairs.sequences(largest=9)]
    assert np.concatenate(shuffled).tolist() != list(range(12))


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
    assert batch["rating"].tolist() == [UNRATED] * 3
    assert [cpc.CODES[code] for code in batch["code"]] == ["E04", "H01"]
    assert batch["anchor_text"].tolist() == pairs.anchor[[0, 1, 6]].tolist()
    assert batch["target_text"].tolist() == pairs.target[[0, 1, 6]].tolist()
    assert "teacher" not in batch
    ragged = pairs.collate([pairs[np.array([0, 1, 3])], pairs[np.array([9])]])
    assert [ragged[name].min().item() for name in ("block", "anchor_span", "target_span")] == [-1, -1, -1]
    padded = ragged["block"] == -1
    assert padded.any()
    assert (padded == (ragged["input_ids"] == TOKENIZER.pad_token_id)).all()
    assert (ragged["position_ids"][padded] == 0).all()
    assert not padded.all(0).any()


def test_labels_are_ranks_and_the_places_of_ratings(pairs_frame: pd.DataFrame) -> None:
    ratings = [RATINGS[number % len(RATINGS)] for number in range(12)]
    rated = build(pairs_frame.assign(rating=ratings), "pair")
    assert rated.rating.tolist() == [number % len(RATINGS) for number in range(12)]
    assert rated.rank.tolist() == (4 * pairs_frame["score"]).astype(int).tolist()
    assert build(pairs_frame.drop(columns="score"), "pair").rank.tolist() == [0] * 12


def test_a_phrase_is_tokenised_once_and_never_empty(pairs_frame: pd.DataFrame) -> None:
    pairs = build(pairs_frame, "pair")
    phrases = pd.unique(np.concatenate([pairs_frame["anchor"], pairs_frame["target"]]))
    assert len(pairs.phrase_tokens) == len(phrases)
    assert len(pairs.class_tokens) == pairs_frame["context"].nunique()
    dropped = build(pairs_frame.assign(target="\u200b"), "pair")[np.array([0])]
    assert len(dropped.targets[0]) == 1


def test_long_phrases_are_read_whole_or_cut_with_one_warning(pairs_frame: pd.DataFrame, caplog) -> None:
    long = " ".join(["word"] * 100)
    frame = pairs_frame.assign(target=[f"{long} {i}" for i in range(12)])
    with caplog.at_level(logging.WARNING, logger="patsim"):
        whole = build(frame, "pair")
        assert not caplog.records
        sequence = whole[np.array([3])]
        assert words_of(sequence, sequence.targets) == [f"{long} 3"]
        cut = build(frame, "pair", longest=108)
    assert [record.getMessage() for record in caplog.records] == [
        "12 of 15 phrases are longer than the 48 tokens that this model reads; their ends are left out"
    ]
    assert len(cut[np.array([0])].targets[0]) == 48


def test_unknown_contexts_are_an_error_or_have_no_text(pairs_frame: pd.DataFrame) -> None:
    frame = pairs_frame.assign(context="Z99")
    with pytest.raises(InputError, match="Z99"):
        build(frame, "pair")
    for context in ("Z99", "H", ""):  # a section alone is no class
        sequence = build(frame.assign(context=context), "pair", unknown="embedding")[np.array([0])]
        assert words(sequence.tokens) == "[CLS] strong material [SEP] steel [SEP]"
        assert sequence.group.code == 0


def test_what_a_teacher_says_comes_with_its_rows(pairs_frame: pd.DataFrame) -> None:
    says = np.arange(12 * 14).reshape(12, 14) / 168
    frame = pairs_frame.assign(**dict(zip(TEACHER_COLUMNS, says.T, strict=True)))
    pairs = build(frame, "pair")
    batch = pairs.collate([pairs[np.array([3])], pairs[np.array([1])]])
    torch.testing.assert_close(batch["teacher"], torch.tensor(says[[3, 1]], dtype=torch.float32))


def test_a_class_text_is_read_without_punctuation_as_far_as_it_is_told(pairs_frame: pd.DataFrame) -> None:
    title = {"E04": "One, two; three four-five (six) seven eight nine ten"}
    frame = pairs_frame.head(1)

    def read(**options: object) -> str:
        pairs = Pairs(frame, TOKENIZER, layout="pair", titles=title, **options)
        return words(pairs.class_tokens[0])

    assert read() == "one two three four - five six seven"
    assert read(context_tokens=2) == "one two"
    assert read(context_tokens=64) == "one two three four - five six seven eight nine ten"
    assert Pairs(frame, TOKENIZER, layout="pair", titles={}).class_tokens == [[]]


def test_a_phrase_may_fill_half_of_what_its_class_leaves(pairs_frame: pd.DataFrame) -> None:
    frame = pairs_frame.head(1).assign(target=" ".join(["word"] * 600))
    assert len(build(frame, "pair").phrase_tokens[1]) == (512 - 4 - 8) // 2
    assert len(build(frame, "pair", context_tokens=20, longest=129).phrase_tokens[1]) == (129 - 4 - 20) // 2
