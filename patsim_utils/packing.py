"""From rows to batches: phrases tokenised once, laid out as sequences, grouped by length, hardly padded.

Three layouts of the same rows:

- `pair`:   [CLS] anchor [SEP] target [SEP] context [SEP], one row a sequence, everything sees everything.
- `packed`: [CLS] anchor [SEP] context [SEP] target 1 [SEP] target 2 [SEP] ..., the rows of one anchor in one
  context; a target sees the prefix and itself, its positions go on from the prefix, the prefix sees no target.
  So a score does not depend on what else is packed with it.
- `list`:   like `packed`, but the targets see each other: a row's score depends on its company.

Without `target_sep`, no [SEP] stands behind the targets of `packed` and `list`: a quarter fewer tokens, since a target
has between two and three of its own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from patsim_utils import cpc, ordinal
from patsim_utils.data import RATINGS
from patsim_utils.errors import InputError

LAYOUTS = ("pair", "packed", "list")
LONGEST_PHRASE = 48  # tokens; the longest of the real data has 24
LONGEST_LIST = 512  # tokens, in the layout whose positions run on through all targets
UNRATED = -100  # in `rating`: what cross-entropy leaves out
PADDING = -1  # in `block`, in `part` and in span indices


@dataclass
class Sequence:
    """One laid-out sequence: token ids, positions and blocks of equal length, and the spans of its rows."""

    tokens: list[int]
    positions: list[int]
    block: list[int]  # 0: seen by all; j > 0: seen by block j only
    part: list[int]  # 0: [CLS] and anchor, 1: context, 2 + j: target j; each with its [SEP], where it has one
    rows: list[int]
    anchor: range
    targets: list[range]
    code: int


class Pairs:
    """The rows of a frame, every distinct phrase tokenised once. `pairs[rows]` lays out one sequence.

    Args:
        frame: columns anchor, target, context and, for training, score and, where there is one, rating (n rows).
        tokenizer: a fast or slow Hugging Face tokenizer.
        layout: one of LAYOUTS.
        titles: context text of each CPC code; a code that is not in it has no context text.
        context_tokens: tokens of a context text that are read, from its start; punctuation is left out.
        target_sep: whether a [SEP] stands behind each target; without it in `packed` and `list` only.
        unknown: what a context outside `cpc.CODES` does: "error", or "embedding" (zero vector, no text).

    What it knows of each row, (n,) each: `anchor` and `target`, which of the distinct `phrases` they are; `text`, the
    whole text of its class; `code`, its place in `cpc.CODES`; `rank` and `rating`. `tokens` are the ids of each of the
    `phrases`, then of the context texts, without special tokens.

    `evidence`: numbers (n, F) that a model keeps beside each row (see `evidence.py`), or None.
    """

    evidence: Tensor | None = None

    def __init__(
        self,
        frame: pd.DataFrame,
        tokenizer: PreTrainedTokenizerBase,
        *,
        layout: str = "pair",
        titles: dict[str, str],
        context_tokens: int = 8,
        target_sep: bool = True,
        unknown: str = "error",
    ) -> None:
        self.layout, self.pad = layout, tokenizer.pad_token_id
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.target_end = [self.sep] if target_sep else []
        ids, self.phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
        n = len(frame)
        self.anchor, self.target = ids[:n], ids[n:]
        self.tokens: list[list[int]] = tokenise(tokenizer, list(self.phrases), LONGEST_PHRASE)
        for token_ids in self.tokens:
            if not token_ids:  # only characters that the tokenizer drops
                token_ids.append(tokenizer.unk_token_id)
        which, contexts = pd.factorize(frame["context"].to_numpy(object), use_na_sentinel=False)
        self.code = np.array([cpc.code_index(context, unknown=unknown) for context in contexts])[which]
        self.text = np.array([titles.get(context, "") for context in contexts], dtype=object)[which]
        self.context = len(self.phrases) + which
        texts = [re.sub(r"[^\w\s-]", "", titles.get(context, "")) for context in contexts]
        self.tokens += tokenise(tokenizer, texts, context_tokens)
        self.rank = ordinal.to_rank(frame["score"]) if "score" in frame else np.zeros(n, dtype=np.int64)
        self.rating = np.full(n, UNRATED)
        if "rating" in frame:
            self.rating = frame["rating"].map({rating: i for i, rating in enumerate(RATINGS)}).to_numpy()
        length = np.array([len(token_ids) for token_ids in self.tokens])
        context = length[self.context]
        self.prefix_length = 2 + length[self.anchor] + context + (context > 0)  # without targets
        self.target_length = length[self.target] + len(self.target_end)

    def __len__(self) -> int:
        return len(self.anchor)

    def groups(self) -> list[np.ndarray]:
        """Rows that share anchor and context, which one sequence of `packed` and `list` can hold."""
        key = (self.anchor.astype(np.int64) * len(cpc.CODES) + self.code) * len(self.tokens) + self.context
        group = pd.factorize(key)[0]
        order = np.argsort(group, kind="stable")
        return np.split(order, np.cumsum(np.bincount(group))[:-1])

    def sequences(self, *, largest: int, generator: np.random.Generator | None = None) -> list[np.ndarray]:
        """The rows of each sequence, every row once: single rows, or groups in parts of at most `largest` rows.

        With a generator, the rows of a group are shuffled first; number and sizes of the parts stay.
        """
        if self.layout == "pair":
            return list(np.arange(len(self))[:, None])
        sequences = []
        for rows in self.groups():
            most = largest
            if self.layout == "list":
                room = LONGEST_LIST - self.prefix_length[rows[0]]
                most = max(1, min(largest, room // self.target_length[rows].max()))
            shuffled = rows if generator is None else generator.permutation(rows)
            sequences += np.array_split(shuffled, -(-len(rows) // most))
        return sequences

    def lengths(self, sequences: list[np.ndarray]) -> np.ndarray:
        """Tokens of each sequence (S,)."""
        first = np.array([rows[0] for rows in sequences])
        targets = np.add.reduceat(
            self.target_length[np.concatenate(sequences)], np.cumsum([0, *map(len, sequences[:-1])])
        )
        return self.prefix_length[first] + targets

    def __getitem__(self, rows: np.ndarray) -> Sequence:
        anchor, context = self.tokens[self.anchor[rows[0]]], self.tokens[self.context[rows[0]]]
        context_part = [*context, self.sep] if context else []
        tokens = [self.cls, *anchor, self.sep]
        spans = []
        if self.layout != "pair":
            tokens += context_part
        prefix = len(tokens)
        for row in rows:
            target = self.tokens[self.target[row]]
            spans.append(range(len(tokens), len(tokens) + len(target)))
            tokens += target + self.target_end
        if self.layout == "pair":
            tokens += context_part
        positions, block = list(range(len(tokens))), [0] * len(tokens)
        part = [0] * (2 + len(anchor)) + [1] * (len(tokens) - 2 - len(anchor))
        for j, span in enumerate(spans):
            size = len(span) + len(self.target_end)
            own = slice(span.start, span.start + size)
            part[own] = [2 + j] * size
            if self.layout == "packed":
                positions[own], block[own] = range(prefix, prefix + size), [1 + j] * size
        code = int(self.code[rows[0]])
        return Sequence(tokens, positions, block, part, list(rows), range(1, 1 + len(anchor)), spans, code)

    def collate(self, sequences: list[Sequence]) -> dict[str, Tensor]:
        """Sequences -> one batch, padded to its longest sequence (B sequences, T tokens, N rows).

        Returns:
            input_ids, position_ids, block, part: (B, T), block and part are -1 on padding; code: (B,);
            anchor_span, target_span: (N, longest span) indices into the (B * T) tokens, else -1;
            sequence: (N,) in which of the B sequences each row stands;
            rows, rank, rating, row_code, anchor_text, target_text: (N,); evidence: (N, F), where there is any.
        """
        width = max(len(s.tokens) for s in sequences)
        starts = range(0, width * len(sequences), width)
        rows = [row for s in sequences for row in s.rows]
        anchor = [
            range(o + s.anchor.start, o + s.anchor.stop) for o, s in zip(starts, sequences, strict=True) for _ in s.rows
        ]
        target = [range(o + t.start, o + t.stop) for o, s in zip(starts, sequences, strict=True) for t in s.targets]
        batch = {
            "input_ids": pad([s.tokens for s in sequences], self.pad),
            "position_ids": pad([s.positions for s in sequences], 0),
            "block": pad([s.block for s in sequences], PADDING),
            "part": pad([s.part for s in sequences], PADDING),
            "code": torch.tensor([s.code for s in sequences]),
            "anchor_span": pad(anchor, PADDING),
            "target_span": pad(target, PADDING),
            "sequence": torch.tensor([i for i, s in enumerate(sequences) for _ in s.rows]),
            "rows": torch.tensor(rows),
            "rank": torch.from_numpy(self.rank[rows]),
            "rating": torch.from_numpy(self.rating[rows]),
            "row_code": torch.from_numpy(self.code[rows]),
            "anchor_text": torch.from_numpy(self.anchor[rows]),
            "target_text": torch.from_numpy(self.target[rows]),
        }
        return batch if self.evidence is None else batch | {"evidence": self.evidence[rows]}


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str], longest: int) -> list[list[int]]:
    """Ids of each text without special tokens, at most the first `longest` of them."""
    if not texts:
        return []
    return tokenizer(
        texts,
        add_special_tokens=False,
        truncation=True,
        max_length=longest,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]


def pad(ragged: list, value: int) -> Tensor:
    """Rows of integers (R lists) -> int64 (R, longest), filled up with `value`."""
    width = max(map(len, ragged))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in ragged], dtype=torch.long)


def visible(block: Tensor) -> Tensor:
    """Blocks (B, T) -> bool (B, 1, T, T): may token q (third axis) attend to token k (fourth axis)?

    Block 0 is seen by all, block j > 0 by itself only, padding (-1) by nobody but itself: a row of the mask without
    a single True would make the attention's softmax NaN.
    """
    query, key = block[:, :, None], block[:, None, :]
    return (((key == 0) & (query >= 0)) | (key == query))[:, None]


def separate(part: Tensor) -> Tensor:
    """Parts (B, T) -> bool (B, 1, T, T): anchor, context and each target see themselves only."""
    return (part[:, :, None] == part[:, None, :])[:, None]


def span_places(batch: dict[str, Tensor]) -> Tensor:
    """Where in its sequence each token of an anchor or target stands: (B, R), R the most of any sequence.

    A sequence with fewer of them is filled up with its other tokens, so no place comes twice.
    """
    block = batch["block"]
    inside = torch.zeros(block.numel() + 1, dtype=torch.bool, device=block.device)
    for name in ("anchor_span", "target_span"):
        inside[batch[name].flatten()] = True  # PADDING falls on the one beyond the last
    inside = inside[:-1].view(block.shape)
    return inside.int().argsort(dim=1, descending=True, stable=True)[:, : int(inside.sum(1).max())]


class LengthGrouped:
    """Batches of sequences of like length: a sampler of batches for a DataLoader, every row once an epoch.

    The sequences are shuffled, sorted by length within stretches of `stretch` batches, and cut into batches of about
    `batch_size` rows or, where that is given, about `batch_tokens` tokens; the batches come in random order. Their
    number is the same in every epoch. The order follows from (seed, epoch) alone, so that a resumed run sees what the
    killed one would have seen.

    With `pools`, rows for each epoch, an epoch draws on its pool only: fewer rows, each of them more often, in the same
    number of batches. `pairs` must hold the rows of an anchor in its pool together.

    Raises:
        InputError: `batch_tokens` has no room for two of the longest sequences of one row.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch_size: int,
        batch_tokens: int = 0,
        seed: int,
        stretch: int = 50,
        pools: list[np.ndarray] | None = None,
    ) -> None:
        self.pairs, self.batch_tokens, self.seed, self.stretch, self.pools = pairs, batch_tokens, seed, stretch, pools
        self.epoch = 0
        # parts of at most half a batch: no slice between two cuts can then be empty
        self.largest = -(-batch_size // 2)
        if batch_tokens:
            longest = int(pairs.prefix_length.max()), int(pairs.target_length.max())
            if batch_tokens < 2 * sum(longest):
                raise InputError(f"parameter batch_tokens: {batch_tokens} is less than two sequences of {sum(longest)}")
            self.largest = (batch_tokens // 2 - longest[0]) // longest[1]
        self.size = batch_tokens or batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        _, weight, _ = self._sequences(None)
        return -(-int(weight.sum()) // self.size)

    def _sequences(self, generator: np.random.Generator | None) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Sequences, what each counts for the size of a batch (rows or tokens), and its length in tokens."""
        sequences = self.pairs.sequences(largest=self.largest, generator=generator)
        lengths = self.pairs.lengths(sequences)
        return sequences, lengths if self.batch_tokens else np.array([len(rows) for rows in sequences]), lengths

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        sequences, weight, lengths = self._sequences(generator)
        order, total = generator.permutation(len(sequences)), int(weight.sum())
        if self.pools:
            pool = self.pools[min(self.epoch, len(self.pools) - 1)]
            order = order[np.isin([sequences[i][0] for i in order], pool)]
            order = np.tile(order, -(-total // int(weight[order].sum())))
            order = order[np.cumsum(weight[order]) <= total]

        def cut(order: np.ndarray, parts: int) -> list[np.ndarray]:
            middle = np.cumsum(weight[order]) - weight[order] / 2
            return np.split(order, np.searchsorted(middle, np.arange(1, parts) * weight[order].sum() / parts))

        # one long cut over the sorted stretches keeps the number of batches fixed; every other stretch is sorted down,
        # so that a batch across two of them has the longest of both or the shortest, not many short beside one long
        stretches = cut(order, -(-total // (self.size * self.stretch)))
        ordered = [part[np.argsort(lengths[part], kind="stable")] for part in stretches]
        by_length = np.concatenate([part[::-1] if i % 2 else part for i, part in enumerate(ordered)])
        batches = cut(by_length, -(-total // self.size))
        for i in generator.permutation(len(batches)):
            yield [sequences[j] for j in batches[i]]

    def padding(self) -> float:
        """Share of padding among the tokens of this epoch's batches, in [0, 1)."""
        used = padded = 0
        for batch in self:
            lengths = self.pairs.lengths(batch)
            used, padded = used + int(lengths.sum()), padded + len(batch) * int(lengths.max())
        return 1 - used / padded
