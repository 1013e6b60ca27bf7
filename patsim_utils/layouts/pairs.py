"""From rows to batches: phrases tokenised once, laid out as sequences, grouped by length, hardly padded.

Five layouts of the same rows:

- `pair`:     [CLS] anchor [SEP] target [SEP] class [SEP], one row a sequence, every token sees every other.
- `packed`:   [CLS] anchor [SEP] class [SEP] target 1 [SEP] target 2 [SEP] ..., the rows of one anchor in one class. A
  target sees the prefix and itself, its positions go on from the prefix, and the prefix sees no target, so that a score
  does not depend on what else is packed with it.
- `compact`:  like `packed`, without a [SEP] behind each target: a quarter fewer tokens.
- `repeated`: [CLS] class [SEP] anchor [SEP] target 1 [SEP] anchor [SEP] target 2 [SEP] ...: each target has an anchor
  of its own, so that both see each other, as in `pair`.
- `listwise`: like `packed`, but the targets see each other: a row's score depends on the others of its sequence.
"""

import logging
import re
import zlib
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from patsim_utils.data import cpc
from patsim_utils.ratings import RATINGS, to_rank

LONGEST = 512  # tokens of a sequence whose positions run on through all targets, where the encoder can read as many
UNRATED = -100  # in `rating`: what cross-entropy leaves out


class Sequence(NamedTuple):
    """One laid-out sequence: token ids, positions and blocks of equal length, and the spans of its rows."""

    tokens: list[int]
    positions: list[int]
    block: list[int]  # 0: seen by all; j > 0: seen by block j only
    rows: list[int]
    anchors: list[range]
    targets: list[range]
    code: int


class Pairs:
    """The rows of a frame, every distinct phrase tokenised once. `pairs[rows]` lays out one sequence.

    Args:
        frame: columns anchor, target, context and, for training, score and, where there is one, rating (n rows).
        layout: as above.
        titles: class text of each CPC code; a code that is not in it has none.
        context_tokens: tokens of a class text that are read, from its start; punctuation is left out.
        longest: tokens that the encoder reads at once. A phrase may fill half of what its class leaves; what is longer
            is cut, which is said once.
        unknown: what a context outside `cpc.CODES` does: "error", or "embedding" (zero vector, no text).

    Attributes, (n,) each: `anchor` and `target`, which of the distinct `phrases` they are; `code`, the place in
    `cpc.CODES`; `rank`; `rating`. `tokens`: ids of each of the `phrases`, then of the class texts.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        tokenizer: PreTrainedTokenizerBase,
        *,
        layout: str = "pair",
        titles: dict[str, str],
        context_tokens: int = 8,
        longest: int = LONGEST,
        unknown: str = "error",
    ) -> None:
        self.layout, self.pad, self.room = layout, tokenizer.pad_token_id, min(longest, LONGEST)
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.target_end = [] if layout == "compact" else [self.sep]
        ids, self.phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
        self.anchor, self.target = np.split(ids, 2)
        which, contexts = pd.factorize(frame["context"].to_numpy(object), use_na_sentinel=False)
        contexts = [c if c in cpc.CLASSES or unknown == "error" else "" for c in contexts]  # a section alone is none
        self.code = np.array([cpc.code_index(c, unknown=unknown) for c in contexts])[which]
        n, self.context = len(self.phrases), len(self.phrases) + which
        texts = [re.sub(r"[^\w\s-]", "", titles.get(context, "")) for context in contexts]
        tokens = tokenizer([*self.phrases, *texts], add_special_tokens=False, verbose=False)["input_ids"]
        longest = (longest - 4 - context_tokens) // 2  # of a phrase; four special tokens are in a sequence
        if cut := sum(len(ids) > longest for ids in tokens[:n]):
            message = "%d of %d phrases are longer than the %d tokens that this model reads; their ends are left out"
            logging.getLogger("patsim").warning(message, cut, n, longest)
        # a phrase may hold only characters that the tokenizer drops
        self.tokens = [ids[:longest] or [tokenizer.unk_token_id] for ids in tokens[:n]]
        self.tokens += [ids[:context_tokens] for ids in tokens[n:]]
        self.rank = to_rank(frame["score"]) if "score" in frame else np.zeros(len(frame), dtype=np.int64)
        self.rating = np.full(len(frame), UNRATED)
        if "rating" in frame:
            self.rating = frame["rating"].map({rating: i for i, rating in enumerate(RATINGS)}).to_numpy()
        length = np.array([len(token_ids) for token_ids in self.tokens])
        context, anchor = length[self.context], length[self.anchor] + 1
        self.prefix_length = 1 + context + (context > 0) + anchor * (layout != "repeated")  # without targets
        self.target_length = length[self.target] + len(self.target_end) + anchor * (layout == "repeated")

    def __len__(self) -> int:
        return len(self.anchor)

    def sequences(
        self, *, largest: int, generator: np.random.Generator | None = None, shuffle: int | None = None
    ) -> list[np.ndarray]:
        """The rows of each sequence, every row once: single rows in the layout `pair`, else rows of one anchor in one
        context, in parts of at most `largest`.

        With a generator, the rows of a group are shuffled first; number and sizes of the parts stay. With `shuffle`, a
        seed, they are, too, in an order that follows from it and the group's own anchor and class alone.
        """
        if self.layout == "pair":
            return list(np.arange(len(self))[:, None])
        group = pd.factorize(self.anchor * len(self.tokens) + self.context)[0]
        groups = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
        sequences = []
        for rows in groups:
            most = largest
            if self.layout == "listwise":
                room = self.room - self.prefix_length[rows[0]]
                most = max(1, min(largest, room // self.target_length[rows].max()))
            if shuffle is not None:
                key = f"{self.phrases[self.anchor[rows[0]]]} {self.code[rows[0]]}"
                generator = np.random.default_rng((shuffle, zlib.crc32(key.encode())))
            shuffled = rows if generator is None else generator.permutation(rows)
            sequences += np.array_split(shuffled, -(-len(rows) // most))
        return sequences

    def lengths(self, sequences: list[np.ndarray]) -> np.ndarray:
        """Tokens of each sequence (S,)."""
        return np.array([self.prefix_length[rows[0]] + self.target_length[rows].sum() for rows in sequences])

    def __getitem__(self, rows: np.ndarray) -> Sequence:
        anchor, context = self.tokens[self.anchor[rows[0]]], self.tokens[self.context[rows[0]]]
        repeated = [*anchor, self.sep] if self.layout == "repeated" else []
        context_part = [*context, self.sep] if context else []
        tokens = [self.cls] if repeated else [self.cls, *anchor, self.sep]
        if self.layout != "pair":
            tokens += context_part
        prefix, anchors, targets = len(tokens), [], []
        positions, block = list(range(prefix)), [0] * prefix
        for j, row in enumerate(rows, 1):
            start = len(tokens)
            tokens += repeated + self.tokens[self.target[row]] + self.target_end
            first = start if repeated else 1
            anchors.append(range(first, first + len(anchor)))
            targets.append(range(start + len(repeated), len(tokens) - len(self.target_end)))
            positions += range(prefix, prefix + len(tokens) - start)
            block += [j] * (len(tokens) - start)
        if self.layout == "pair":
            tokens += context_part
        if self.layout in ("pair", "listwise"):
            positions, block = list(range(len(tokens))), [0] * len(tokens)
        return Sequence(tokens, positions, block, list(rows), anchors, targets, int(self.code[rows[0]]))

    def collate(self, sequences: list[Sequence]) -> dict[str, Tensor]:
        """Sequences -> one batch, padded to its longest sequence (B sequences, T tokens, N rows).

        Returns:
            input_ids, position_ids, block: (B, T), block is -1 on padding; code: (B,);
            anchor_span, target_span: (N, longest span) indices into the (B * T) tokens, else -1;
            rows, rank, rating, anchor_text, target_text: (N,).
        """
        width = max(len(s.tokens) for s in sequences)
        anchors, targets = [], []
        for start, s in zip(range(0, width * len(sequences), width), sequences, strict=True):
            anchors += [[start + i for i in span] for span in s.anchors]
            targets += [[start + i for i in span] for span in s.targets]
        rows = [row for s in sequences for row in s.rows]
        return {
            "input_ids": pad([s.tokens for s in sequences], self.pad),
            "position_ids": pad([s.positions for s in sequences], 0),
            "block": pad([s.block for s in sequences], -1),
            "code": torch.tensor([s.code for s in sequences]),
            "anchor_span": pad(anchors, -1),
            "target_span": pad(targets, -1),
            "rows": torch.tensor(rows),
            "rank": torch.from_numpy(self.rank[rows]),
            "rating": torch.from_numpy(self.rating[rows]),
            "anchor_text": torch.from_numpy(self.anchor[rows]),
            "target_text": torch.from_numpy(self.target[rows]),
        }


def pad(ragged: list[list[int]], value: int) -> Tensor:
    """Rows of integers (R lists) -> int64 (R, longest), filled up with `value`."""
    width = max(map(len, ragged))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in ragged])
