"""layouts.sampler: to be written."""

from collections.abc import Iterator

import numpy as np

from patsim_utils.errors import InputError
from patsim_utils.layouts.pairs import Pairs


class LengthGrouped:
    """Batches of sequences of like length: a sampler of batches for a DataLoader, every row once an epoch.

    The sequences are shuffled, sorted by length within stretches of STRETCH batches, and cut into batches of about
    `batch_size` rows, as many in every epoch, which come in random order. The order follows from (seed, epoch) alone,
    so that a resumed run sees what the killed one would have seen. With `pools`, the rows of each epoch, an epoch draws
    on its pool only: fewer rows, each of them more often. `share`: (i, devices) for device i's part of each batch.
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
        self.pairs, self.size, self.seed, self.pools, self.share = pairs, batch_size, seed, pools, share
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.size)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        # with sequences of at most half a batch, no slice between two cuts can be empty
        sequences = self.pairs.sequences(largest=-(-self.size // 2), generator=generator)
        lengths = self.pairs.lengths(sequences)
        weight, total = np.array([len(rows) for rows in sequences]), len(self.pairs)
        order = generator.permutation(len(sequences))
        if self.pools:
            order = order[np.isin([sequences[i][0] for i in order], self.pools[self.epoch])]
            order = np.tile(order, -(-total // int(weight[order].sum())))
            order = order[np.cumsum(weight[order]) <= total]

        def cut(order: np.ndarray, parts: int) -> list[np.ndarray]:
            middle = np.cumsum(weight[order]) - weight[order] / 2
            return np.split(order, np.searchsorted(middle, np.arange(1, parts) * weight[order].sum() / parts))

        # one long cut over the sorted stretches keeps the number of batches fixed; every other stretch is sorted down,
        # so that a batch across two of them has the longest of both or the shortest, not many short beside one long
        stretches = cut(order, -(-total // (self.size * self.STRETCH)))
        ordered = [part[np.argsort(lengths[part], kind="stable")] for part in stretches]
        by_length = np.concatenate([part[::-1] if i % 2 else part for i, part in enumerate(ordered)])
        batches = cut(by_length, len(self))
        for i in generator.permutation(len(batches)):
            yield self._part([sequences[j] for j in batches[i]])

    def _part(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        """This device's sequences of a batch, at least one: where there are too few, the largest are cut in two."""
        device, devices = self.share
        while len(batch) < devices:
            largest = int(np.argmax([len(rows) for rows in batch]))
            if len(batch[largest]) < 2:
                raise InputError(f"a batch has fewer pairs than there are devices ({devices}): raise batch_size")
            batch[largest : largest + 1] = np.array_split(batch[largest], 2)
        return batch[device::devices]

    def padding(self) -> float:
        """Share of padding among the tokens of this epoch's batches, in [0, 1)."""
        lengths = [self.pairs.lengths(batch) for batch in self]
        return float(1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths))
