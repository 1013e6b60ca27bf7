"""From rows to batches: phrases are tokenised once, laid out as sequences and padded to a batch.

Neither torch nor transformers is imported before `Pairs.collate` is called: ONNX Runtime takes arrays.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.layouts.sequences import LAYOUTS, Group, Sequence, padded
from patsim_utils.ratings import RATINGS, TEACHER_COLUMNS, to_rank

if TYPE_CHECKING:
    from torch import Tensor

    from patsim_utils.layouts.tokens import AnyTokenizer

SPECIAL_TOKENS = 4  # of a sequence with one pair, at most
UNRATED = -100  # in `rating`: the label that cross-entropy leaves out


class Pairs:
    """The n rows of a frame, every distinct phrase tokenised once; `pairs[rows]` is one sequence.

    Args:
        frame: columns anchor, target, context; score and rating are read where they are present.
        layout: a name in `LAYOUTS`.
        titles: class text of each CPC code; a code that is not in it has none.
        context_tokens: tokens that are read of a class text, from its start, without punctuation.
        longest: tokens that the encoder reads at once. A phrase may fill half of what its class
            leaves; a longer one loses its end, which is logged once.
        unknown: what is done about a context outside `cpc.CODES`: "error" raises InputError,
            "embedding" reads no class text and the code of an unknown class (0).

    Attributes:
        layout: the `Layout`.
        anchor, target: which of the `phrase_tokens` they are (n,).
        context: which of the `class_tokens` is read (n,).
        code: place of the class in `cpc.CODES` (n,).
        rank: of the score, 0 to 4; 0 where the frame has none (n,).
        rating: place in `RATINGS`; UNRATED where the frame has none (n,).
        teacher: TEACHER_COLUMNS of the frame (n, 14), NaN where people rated the pair; None without such columns.
        phrase_tokens, class_tokens: ids of each distinct phrase and class text.

    Raises:
        InputError: a context outside `cpc.CODES`, where `unknown` is "error".
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        tokenizer: AnyTokenizer,
        *,
        layout: str,
        titles: dict[str, str],
        context_tokens: int = 8,
        longest: int = 512,
        unknown: str = "error",
    ) -> None:
        self.layout = LAYOUTS[layout](cls=tokenizer.cls_token_id, sep=tokenizer.sep_token_id)
        self.padding = tokenizer.pad_token_id
        phrase_of, phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
        self.anchor, self.target = np.split(phrase_of, 2)
        most = (longest - SPECIAL_TOKENS - context_tokens) // 2
        self.phrase_tokens = tokenized_phrases(phrases, tokenizer, most=most)

        column = frame["context"].to_numpy(object)
        self.context, contexts = pd.factorize(column, use_na_sentinel=False)
        if unknown == "embedding":  # a section alone is no class either
            contexts = [context if context in cpc.CLASSES else "" for context in contexts]
        codes = np.array([cpc.code_index(context, unknown=unknown) for context in contexts])
        self.code = codes[self.context]
        texts = [re.sub(r"[^\w\s-]", "", titles.get(context, "")) for context in contexts]
        self.class_tokens = [ids[:context_tokens] for ids in tokenized(texts, tokenizer)]

        self.rank = ranks(frame)
        self.rating = rating_numbers(frame)
        self.teacher = None
        if TEACHER_COLUMNS[0] in frame:
            self.teacher = frame[list(TEACHER_COLUMNS)].to_numpy(np.float32)
        self._phrase_length = np.array([len(ids) for ids in self.phrase_tokens])
        self._class_length = np.array([len(ids) for ids in self.class_tokens])

    def __len__(self) -> int:
        return len(self.anchor)

    def sequences(
        self, *, largest: int | None = None, generator: np.random.Generator | None = None
    ) -> list[np.ndarray]:
        """The rows of each sequence; every row is in one of them.

        In the layout `pair` they are single rows. Else they are the rows of one anchor in one class,
        in parts of at most `largest` rows (by default `most_targets` of the layout) and about equal
        size. A generator shuffles the rows of each anchor and class before they are parted.
        """
        if self.layout.most_targets == 1:
            return list(np.arange(len(self))[:, None])
        largest = largest or self.layout.most_targets
        sequences = []
        for rows in self._groups():
            if generator is not None:
                rows = generator.permutation(rows)
            sequences += np.array_split(rows, math.ceil(len(rows) / largest))
        return sequences

    def _groups(self) -> list[np.ndarray]:
        """The rows of each anchor in each class, in the order in which they first appear."""
        key = self.anchor * len(self.class_tokens) + self.context
        group = pd.factorize(key)[0]
        sorted_rows = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group))
        return np.split(sorted_rows, ends[:-1])

    def lengths(self, sequences: list[np.ndarray]) -> np.ndarray:
        """Tokens of each of the S `sequences`, given by their rows -> (S,)."""
        lengths = []
        for rows in sequences:
            anchor = self._phrase_length[self.anchor[rows[0]]]
            context = self._class_length[self.context[rows[0]]]
            targets = self._phrase_length[self.target[rows]]
            lengths.append(self.layout.length(anchor, context, targets))
        return np.array(lengths)

    def __getitem__(self, rows: np.ndarray) -> Sequence:
        """The sequence of rows that share their anchor and class."""
        first = rows[0]
        group = Group(
            rows=rows.tolist(),
            code=int(self.code[first]),
            anchor=self.phrase_tokens[self.anchor[first]],
            context=self.class_tokens[self.context[first]],
            targets=[self.phrase_tokens[phrase] for phrase in self.target[rows]],
        )
        return self.layout.sequence(group)

    def batches(self, *, tokens: int) -> Iterator[list[Sequence]]:
        """All rows, in batches of sequences with about `tokens` tokens.

        The longest sequences come first, so that the first batch takes the most memory.
        """
        sequences = self.sequences()
        lengths = self.lengths(sequences)
        order = np.argsort(lengths, kind="stable")[::-1]
        while len(order):
            size = max(1, tokens // int(lengths[order[0]]))
            yield [self[sequences[i]] for i in order[:size]]
            order = order[size:]

    def collate(self, sequences: list[Sequence]) -> dict[str, Tensor]:
        """The `arrays` of some sequences, as tensors."""
        import torch  # here, since ONNX Runtime does without

        return {name: torch.from_numpy(values) for name, values in self.arrays(sequences).items()}

    def arrays(self, sequences: list[Sequence]) -> dict[str, np.ndarray]:
        """B sequences of N rows in all -> one batch: what `padded` gives and, of each of the N pairs:

        rank, rating, anchor_text, target_text (N,); teacher (N, 14), only where one has labelled pairs.
        """
        batch = padded(sequences, self.padding)
        rows = batch["rows"]
        batch |= {
            "rank": self.rank[rows],
            "rating": self.rating[rows],
            "anchor_text": self.anchor[rows],
            "target_text": self.target[rows],
        }
        if self.teacher is not None:
            batch["teacher"] = self.teacher[rows]
        return batch


def ranks(frame: pd.DataFrame) -> np.ndarray:
    """Rank of each row's score, 0 to 4 (n,); all 0 where the frame has no scores."""
    if "score" not in frame:
        return np.zeros(len(frame), dtype=np.int64)
    return to_rank(frame["score"])


def rating_numbers(frame: pd.DataFrame) -> np.ndarray:
    """Place in `RATINGS` of each row's rating (n,); all UNRATED where the frame has none."""
    if "rating" not in frame:
        return np.full(len(frame), UNRATED)
    numbers = {rating: number for number, rating in enumerate(RATINGS)}
    return frame["rating"].map(numbers).to_numpy()


def tokenized(texts: list[str], tokenizer: AnyTokenizer) -> list[list[int]]:
    """Ids of each text, without special tokens."""
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def tokenized_phrases(phrases: np.ndarray, tokenizer: AnyTokenizer, *, most: int) -> list[list[int]]:
    """Ids of each phrase, at least one and at most `most`; a warning says how many phrases are cut."""
    tokens = tokenized(phrases, tokenizer)
    too_long = sum(len(ids) > most for ids in tokens)
    if too_long:
        message = "%d of %d phrases are longer than the %d tokens that this model reads; "
        message += "their ends are left out"
        logging.getLogger("patsim").warning(message, too_long, len(phrases), most)
    unknown = [tokenizer.unk_token_id]  # where the tokenizer drops all characters of a phrase
    return [ids[:most] or unknown for ids in tokens]
