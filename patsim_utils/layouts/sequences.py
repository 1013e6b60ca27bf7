"""Layouts: how an anchor, the text of its class and its targets become one sequence of tokens.

- `Pair`: one target a sequence, and every token sees every other.
- `Packed`: all targets of an anchor behind one prefix. Each sees the prefix and itself.
- `Repeated`: each target stands beside an anchor of its own, behind one prefix with the class.

In each of them the score of a target is the same, whatever other targets share its sequence.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Group:
    """What one sequence holds: K targets of one anchor in one class, as token ids."""

    rows: list[int]  # places of the K pairs in their frame
    code: int  # place of the class in cpc.CODES
    anchor: list[int]
    context: list[int]  # text of the class; may be empty
    targets: list[list[int]]


class Sequence:
    """A prefix that all tokens see, and blocks behind it, each of which sees the prefix and itself.

    Attributes, for T tokens and K targets:
        tokens: ids (T).
        positions: place of each token, as the encoder counts them (T). Those of every block go on
            from the prefix, as if no other block were there.
        block: 0 in the prefix, then the number of the block, from 1 (T).
        targets: span of each target among the tokens (K).
        anchors: span of the anchor that each target is compared with (K).
        group: what the sequence was made of.
    """

    def __init__(self, group: Group, prefix: list[int]) -> None:
        self.group = group
        self.prefix_length = len(prefix)
        self.tokens = list(prefix)
        self.positions = list(range(len(prefix)))
        self.block = [0] * len(prefix)
        self.anchors: list[range] = []
        self.targets: list[range] = []

    def append_block(self, tokens: list[int]) -> int:
        """Appends a block; returns where it starts."""
        start = len(self.tokens)
        number = self.block[-1] + 1
        self.tokens += tokens
        self.positions += range(self.prefix_length, self.prefix_length + len(tokens))
        self.block += [number] * len(tokens)
        return start


class Layout(ABC):
    """One way to lay out a group.

    Args:
        cls: id of the token that begins a sequence.
        sep: id of the token that ends a part of it.
    """

    # Targets of a sequence in scoring: more of them share one prefix, but attention grows with their square.
    most_targets: ClassVar[int]

    def __init__(self, *, cls: int, sep: int) -> None:
        self.cls = cls
        self.sep = sep

    @abstractmethod
    def sequence(self, group: Group) -> Sequence:
        """The tokens of a group, with their positions, blocks and spans."""

    @abstractmethod
    def length(self, anchor: int, context: int, targets: np.ndarray) -> int:
        """Tokens of a sequence whose anchor, class text and targets (K,) have so many tokens."""

    def context_part(self, context: list[int]) -> list[int]:
        """The class text and the token that ends it; nothing where there is no text."""
        if not context:
            return []
        return [*context, self.sep]


class Pair(Layout):
    """[CLS] anchor [SEP] target [SEP] class [SEP]

    All of it is prefix, so that every token sees every other.
    """

    most_targets = 1

    def sequence(self, group: Group) -> Sequence:
        (target,) = group.targets
        before = [self.cls, *group.anchor, self.sep]
        sequence = Sequence(group, [*before, *target, self.sep, *self.context_part(group.context)])
        sequence.anchors.append(range(1, 1 + len(group.anchor)))
        sequence.targets.append(range(len(before), len(before) + len(target)))
        return sequence

    def length(self, anchor: int, context: int, targets: np.ndarray) -> int:
        return 3 + anchor + targets.sum() + ended(context)


class Packed(Layout):
    """[CLS] anchor [SEP] class [SEP] target 1 target 2 ...

    Each target is a block, which sees the anchor; the anchor sees no target.
    """

    most_targets = 64

    def sequence(self, group: Group) -> Sequence:
        prefix = [self.cls, *group.anchor, self.sep, *self.context_part(group.context)]
        sequence = Sequence(group, prefix)
        for target in group.targets:
            start = sequence.append_block(target)
            sequence.anchors.append(range(1, 1 + len(group.anchor)))
            sequence.targets.append(range(start, start + len(target)))
        return sequence

    def length(self, anchor: int, context: int, targets: np.ndarray) -> int:
        return 2 + anchor + ended(context) + targets.sum()


class Repeated(Layout):
    """[CLS] class [SEP] anchor [SEP] target 1 [SEP] anchor [SEP] target 2 [SEP] ...

    Each target and the anchor before it are a block, in which both see each other.
    """

    most_targets = 32

    def sequence(self, group: Group) -> Sequence:
        sequence = Sequence(group, [self.cls, *self.context_part(group.context)])
        anchor_part = [*group.anchor, self.sep]
        for target in group.targets:
            start = sequence.append_block([*anchor_part, *target, self.sep])
            target_start = start + len(anchor_part)
            sequence.anchors.append(range(start, start + len(group.anchor)))
            sequence.targets.append(range(target_start, target_start + len(target)))
        return sequence

    def length(self, anchor: int, context: int, targets: np.ndarray) -> int:
        return 1 + ended(context) + len(targets) * (anchor + 2) + targets.sum()


LAYOUTS: dict[str, type[Layout]] = {"pair": Pair, "packed": Packed, "repeated": Repeated}


def ended(length: int) -> int:
    """Tokens of a part with the one that ends it; none where the part is empty."""
    return length + 1 if length else 0


def padded(sequences: list[Sequence], padding: int) -> dict[str, np.ndarray]:
    """B sequences of N rows in all -> one batch, padded to its longest sequence of T tokens.

    Args:
        padding: the id that fills up `input_ids`.

    Returns:
        input_ids, position_ids, block: int64 (B, T); block is -1 on padding.
        code: (B,).
        anchor_span, target_span: (N, longest span), places among the B * T tokens of the batch; -1
            behind the end of a shorter span.
        rows: (N,).
    """
    width = max(len(sequence.tokens) for sequence in sequences)
    rows = []
    anchors = []
    targets = []
    for number, sequence in enumerate(sequences):
        start = number * width
        rows += sequence.group.rows
        anchors += [[start + token for token in span] for span in sequence.anchors]
        targets += [[start + token for token in span] for span in sequence.targets]
    return {
        "input_ids": pad([sequence.tokens for sequence in sequences], padding),
        "position_ids": pad([sequence.positions for sequence in sequences], 0),
        "block": pad([sequence.block for sequence in sequences], -1),
        "code": np.array([sequence.group.code for sequence in sequences], dtype=np.int64),
        "anchor_span": pad(anchors, -1),
        "target_span": pad(targets, -1),
        "rows": np.array(rows, dtype=np.int64),
    }


def pad(ragged: list[list[int]], value: int) -> np.ndarray:
    """R lists of integers -> int64 (R, longest), filled up with `value`."""
    width = max(len(row) for row in ragged)
    return np.array([row + [value] * (width - len(row)) for row in ragged], dtype=np.int64)
