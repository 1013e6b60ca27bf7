"""Batches of sequences of like length, so that hardly any of their tokens is padding."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from patsim_utils.errors import InputError
from patsim_utils.layouts.pairs import Pairs

Rows = np.ndarray  # of one sequence


class LengthGrouped:
    """Batches of sequences for a DataLoader (`batch_sampler`); every row once an epoch.

    The sequences are shuffled, sorted by length within stretches of STRETCH batches, and cut into
    batches, which come in random order. The number of batches is the same in every epoch. The order
    follows from seed and epoch alone, so that a resumed run sees the batches of the killed one.

    Args:
        batch_size: rows of a batch, about.
        seed: of the order, together with the epoch that `set_epoch` sets.
        pools: the rows that each epoch draws on; all rows by default. The rows of a small pool come
            several times, so that its epoch is as long as any other.
        share: (i, devices): of each batch only the part of device i, counted from 0.

    Raises:
        InputError: in the iteration, where a batch has fewer rows than there are devices.
    """

    STRETCH = 50

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch_size: int,
        seed: int,
        pools: list[np.ndarray] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.pairs = pairs
        self.batch_size = batch_size
        self.seed = seed
        self.pools = pools
        self.device, self.devices = share
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.pairs) / self.batch_size)

    def __iter__(self) -> Iterator[list[Rows]]:
        """The batches of this epoch, each a list of sequences given by their rows."""
        generator = np.random.default_rng((self.seed, self.epoch))
        # no batch is empty, since a sequence has at most half the rows of a batch
        half = math.ceil(self.batch_size / 2)
        sequences = self.pairs.sequences(largest=half, generator=generator)
        shuffled = [sequences[i] for i in generator.permutation(len(sequences))]
        if self.pools:
            shuffled = repeat(shuffled, pool=self.pools[self.epoch], rows=len(self.pairs))
        batches = cut(self._sort(shuffled), len(self))
        for i in generator.permutation(len(batches)):
            yield self._part_of_device(batches[i])

    def _sort(self, sequences: list[Rows]) -> list[Rows]:
        """Sorted by length within each stretch: up in the first one, down in the next, and so on.

        A batch across two stretches has the longest sequences of both or the shortest of both.
        """
        ordered = []
        stretches = math.ceil(len(self.pairs) / (self.batch_size * self.STRETCH))
        for number, stretch in enumerate(cut(sequences, stretches)):
            order = np.argsort(self.pairs.lengths(stretch), kind="stable")
            if number % 2:
                order = order[::-1]
            ordered += [stretch[i] for i in order]
        return ordered

    def _part_of_device(self, batch: list[Rows]) -> list[Rows]:
        """This device's sequences of a batch, at least one.

        Where a batch has fewer sequences than there are devices, its largest ones are cut in two.
        """
        parts = list(batch)
        while len(parts) < self.devices:
            largest = int(np.argmax([len(rows) for rows in parts]))
            if len(parts[largest]) < 2:
                message = f"a batch has fewer pairs than there are devices ({self.devices})"
                raise InputError(f"{message}: raise batch_size")
            parts[largest : largest + 1] = np.array_split(parts[largest], 2)
        return parts[self.device :: self.devices]

    def padding(self) -> float:
        """Share of padding among the tokens of this epoch's batches, in [0, 1)."""
        read = 0
        padded = 0
        for batch in self:
            lengths = self.pairs.lengths(batch)
            read += lengths.sum()
            padded += len(batch) * lengths.max()
        return float(1 - read / padded)


def cut(sequences: list[Rows], parts: int) -> list[list[Rows]]:
    """Consecutive parts with about equally many rows.

    A sequence that lies across a boundary belongs to the part that has its middle row.
    """
    sizes = np.array([len(rows) for rows in sequences])
    middles = np.cumsum(sizes) - sizes / 2
    boundaries = np.arange(1, parts) * sizes.sum() / parts
    cuts = [0, *np.searchsorted(middles, boundaries), len(sequences)]
    return [sequences[start:end] for start, end in itertools.pairwise(cuts)]


def repeat(sequences: list[Rows], *, pool: np.ndarray, rows: int) -> list[Rows]:
    """The sequences of a pool, over and over in their order, as long as they hold at most `rows` rows.

    A sequence belongs to the pool if its first row does: a pool has all rows of an anchor or none.
    """
    members = set(pool.tolist())
    of_pool = [sequence for sequence in sequences if int(sequence[0]) in members]
    repeated = []
    for sequence in itertools.cycle(of_pool):
        rows -= len(sequence)
        if rows < 0:
            break
        repeated.append(sequence)
    return repeated
