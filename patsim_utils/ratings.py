"""ratings: to be written."""

import numpy as np

SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)

RATINGS = ("4", "3", "2a", "2b", "2c", "1a", "1b", "1c", "1d", "0")  # of the data; the first digit is the rank
RANKS = 5
STEP = 1 / (RANKS - 1)  # distance of two neighbouring scores


def to_rank(score: np.ndarray) -> np.ndarray:
    """Scores in [0, 1], any shape -> nearest rank 0..4 as int64 (halves go up)."""
    return np.clip(np.floor(np.asarray(score, dtype=np.float64) / STEP + 0.5), 0, RANKS - 1).astype(np.int64)


MEANINGS = {
    "4": "very high",
    "3": "high: synonym or abbreviation",
    "2a": "hyponym: the target is narrower",
    "2b": "hypernym: the target is broader",
    "2c": "structural match",
    "1a": "antonym",
    "1b": "meronym: the target is a part",
    "1c": "holonym: the target is the whole",
    "1d": "other match of the field",
    "0": "unrelated",
}
# What a searcher wants to know of a pair, and the ratings that say so
RELATIONS = {
    "same": ("4", "3"),
    "narrower": ("2a",),
    "broader": ("2b",),
    "antonym": ("1a",),
    "part": ("1b",),
    "whole": ("1c",),
    "related": ("2c", "1d"),
    "unrelated": ("0",),
}
