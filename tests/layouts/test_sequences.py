"""Each layout, token by token: ids, positions, blocks and spans of a small group."""

import numpy as np
import pytest

from patsim_utils.layouts.sequences import LAYOUTS, Group, Sequence

CLS, SEP = 101, 102
ANCHOR = [11, 12]
CONTEXT = [21, 22, 23]


def group(*targets: list[int], context: list[int] = CONTEXT) -> Group:
    return Group(rows=list(range(len(targets))), code=7, anchor=ANCHOR, context=context, targets=list(targets))


def laid_out(layout: str, group: Group) -> Sequence:
    return LAYOUTS[layout](cls=CLS, sep=SEP).sequence(group)


def phrases(sequence: Sequence, spans: list[range]) -> list[list[int]]:
    return [[sequence.tokens[token] for token in span] for span in spans]


def test_a_pair_is_one_block_with_its_class_at_the_end() -> None:
    sequence = laid_out("pair", group([31]))
    assert sequence.tokens == [CLS, 11, 12, SEP, 31, SEP, 21, 22, 23, SEP]
    assert sequence.positions == list(range(10))
    assert sequence.block == [0] * 10
    assert sequence.anchors == [range(1, 3)]
    assert sequence.targets == [range(4, 5)]


def test_packed_targets_go_on_from_their_prefix_each_in_a_block_of_its_own() -> None:
    sequence = laid_out("packed", group([31], [41, 42]))
    assert sequence.tokens == [CLS, 11, 12, SEP, 21, 22, 23, SEP, 31, 41, 42]
    assert sequence.positions == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9]
    assert sequence.block == [0] * 8 + [1, 2, 2]
    assert sequence.anchors == [range(1, 3)] * 2
    assert sequence.targets == [range(8, 9), range(9, 11)]


def test_a_repeated_anchor_stands_before_each_target_in_its_block() -> None:
    sequence = laid_out("repeated", group([31], [41, 42]))
    assert sequence.tokens == [CLS, 21, 22, 23, SEP, 11, 12, SEP, 31, SEP, 11, 12, SEP, 41, 42, SEP]
    assert sequence.positions == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 10]
    assert sequence.block == [0] * 5 + [1] * 5 + [2] * 6
    assert sequence.anchors == [range(5, 7), range(10, 12)]
    assert sequence.targets == [range(8, 9), range(13, 15)]


@pytest.mark.parametrize(
    ("layout", "tokens"),
    [
        ("pair", [CLS, 11, 12, SEP, 31, SEP]),
        ("packed", [CLS, 11, 12, SEP, 31]),
        ("repeated", [CLS, 11, 12, SEP, 31, SEP]),
    ],
)
def test_without_class_text_its_separator_is_left_out(layout: str, tokens: list[int]) -> None:
    sequence = laid_out(layout, group([31], context=[]))
    assert sequence.tokens == tokens
    assert phrases(sequence, sequence.anchors) == [ANCHOR]
    assert phrases(sequence, sequence.targets) == [[31]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("context", [CONTEXT, []])
def test_the_length_is_known_before(layout: str, context: list[int]) -> None:
    targets = [[31], [41, 42], [51, 52, 53, 54]]
    if layout == "pair":
        targets = targets[1:2]
    sizes = np.array([len(target) for target in targets])
    known = LAYOUTS[layout](cls=CLS, sep=SEP).length(len(ANCHOR), len(context), sizes)
    assert known == len(laid_out(layout, group(*targets, context=context)).tokens)
