"""Requests that come at about the same time are scored together."""

import asyncio
from collections.abc import Callable

import numpy as np
import pandas as pd

from patsim_utils.data.pairs import check_pairs

MOST_PAIRS = 1000  # of a batch
WAIT = 0.005  # seconds that a request waits for others to be scored with it


class Batcher:
    """Scores the pairs of requests that arrive within WAIT seconds in one call, in a thread.

    One batch is scored at a time; until it is its turn, the next one takes in more requests.
    """

    def __init__(self, score: Callable[[pd.DataFrame], np.ndarray]) -> None:
        self.score = score
        self.turn = asyncio.Lock()
        self.open: list[pd.DataFrame] | None = None  # the batch that takes in requests
        self.scoring: asyncio.Task  # of that batch

    async def scores(self, pairs: list[tuple[str, str, str]]) -> np.ndarray:
        """The score of each (anchor, target, class); InputError where one is no phrase or class."""
        frame = pd.DataFrame(pairs, columns=["anchor", "target", "context"], dtype=object)
        checked = check_pairs(frame, source="request")
        start = sum(map(len, self.open or []))
        if self.open is None or start + len(pairs) > MOST_PAIRS:
            start = 0
            self.open = []
            self.scoring = asyncio.create_task(self._score(self.open))
        self.open.append(checked)
        scores = await asyncio.shield(self.scoring)  # it goes on for the others where this client goes
        return scores[start : start + len(pairs)]

    async def _score(self, batch: list[pd.DataFrame]) -> np.ndarray:
        await asyncio.sleep(WAIT)
        async with self.turn:
            if self.open is batch:
                self.open = None
            return await asyncio.to_thread(self.score, pd.concat(batch, ignore_index=True))
