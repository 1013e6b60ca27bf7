"""How alike two phrases can be: scores, their ranks, and the ratings that say why.

A person rates a pair of phrases by one of ten ratings, such as 2a. Its digit is the rank, from 0
(unrelated) to 4 (very high); the score, in [0, 1], is a quarter of the rank.
"""

import numpy as np

SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the ranks 0, 1, 2, 3, 4
RANKS = len(SCORES)

# What each rating says of the target, the second phrase of a pair. The rating head of a model has its
# outputs in this order. Linguists call 2a a hyponym, 2b a hypernym, 1a an antonym, 1b a meronym, 1c a holonym.
MEANINGS = {
    "4": "the same",
    "3": "a synonym or an abbreviation",
    "2a": "a narrower term",
    "2b": "a broader term",
    "2c": "alike in structure",
    "1a": "the opposite",
    "1b": "a part of it",
    "1c": "the whole of which it is a part",
    "1d": "of the same field, but something else",
    "0": "unrelated",
}
RATINGS = tuple(MEANINGS)
RATING_RANKS = {rating: int(rating[0]) for rating in RATINGS}

# What a teacher says of a pair that nobody rated: its probabilities of rank > k, and of each rating
ABOVE_COLUMNS = tuple(f"above_{rank}" for rank in range(RANKS - 1))
RATING_COLUMNS = tuple(f"rating_{rating}" for rating in RATINGS)
TEACHER_COLUMNS = (*ABOVE_COLUMNS, *RATING_COLUMNS)

# What a searcher wants to know of a pair, and the ratings that say so; each rating stands once.
RELATIONS = {
    "same_or_synonym": ("4", "3"),
    "narrower": ("2a",),
    "broader": ("2b",),
    "opposite": ("1a",),
    "part": ("1b",),
    "whole": ("1c",),
    "related": ("2c", "1d"),
    "unrelated": ("0",),
}
# The same for a person: what the second phrase is to the first
RELATION_WORDS = {
    "same_or_synonym": "the same or a synonym",
    "narrower": "a narrower term",
    "broader": "a broader term",
    "opposite": "the opposite",
    "part": "a part of it",
    "whole": "the whole of which it is a part",
    "related": "alike in structure or of the same field",
    "unrelated": "unrelated",
}


def to_rank(score: np.ndarray) -> np.ndarray:
    """Scores in [0, 1], of any shape -> the nearest ranks 0..4, int64.

    A score between two ranks takes the higher one.

    >>> to_rank([0.0, 0.12, 0.125, 0.75, 1.0])
    array([0, 0, 1, 3, 4])
    """
    highest = RANKS - 1
    nearest = np.floor(np.asarray(score, dtype=np.float64) * highest + 0.5)
    return np.clip(nearest, 0, highest).astype(np.int64)


# An answer in words, by the least score of which it is true
VERDICTS = {
    0.875: "very likely the same",
    0.625: "probably nearly the same",
    0.375: "related: one narrower, broader or alike in structure",
    0.125: "of the same field, but something else",
    0.0: "unrelated",
}


def in_words(score: float) -> str:
    """What a score in [0, 1] means.

    >>> in_words(0.92)
    'very likely the same'
    """
    return next(words for least, words in VERDICTS.items() if score >= least)
