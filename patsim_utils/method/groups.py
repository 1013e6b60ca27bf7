"""Where a target stands among the other targets of its anchor in its class: numbers for the listwise track.

Candidates that mean the same as their anchor are like each other, too, and strangers are like nobody. So how alike the
targets of a group are tells something about each of them, which no encoder of single pairs can see.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from scipy.special import softmax

NEAR = 0.1  # a cosine that is higher by this much counts e times as much
TYPICAL = 20  # targets of a group, about
LARGEST = 128  # targets that are compared (a group of the data has 84 at most); more fall into parts, in their order


def standing(likeness: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Cosines of K targets with their anchor (K,) and with each other (K, K) -> nine numbers each (K, 9).

    Of its cosines with the other targets the mean, the largest, the mean of the three largest, the deviation and the
    mean that weighs those targets more that are unlike the anchor; of the others' cosines with the anchor the mean and
    the mean that weighs those more that are like it; the share of the others that it exceeds in its cosine with the
    anchor, and in the mean of its cosines. Zeros for a single target.
    """
    count = len(likeness)
    if count == 1:
        return np.zeros((1, 9))
    others = ~np.eye(count, dtype=bool)
    theirs = np.broadcast_to(likeness, (count, count))[others].reshape(count, -1)
    alike = alike[others].reshape(count, -1)
    mean = alike.mean(1)
    means = np.broadcast_to(mean, (count, count))[others].reshape(count, -1)
    columns = [
        mean,
        alike.max(1),
        np.sort(alike, axis=1)[:, -3:].mean(1),
        alike.std(1),
        (softmax(-theirs / NEAR, axis=1) * alike).sum(1),
        theirs.mean(1),
        (softmax(alike / NEAR, axis=1) * theirs).sum(1),
        (likeness[:, None] > theirs).mean(1),
        (mean[:, None] > means).mean(1),
    ]
    return np.stack(columns, axis=1)


def numbers(frame: pd.DataFrame, phrases: Sequence[str], vectors: np.ndarray) -> np.ndarray:
    """What `standing` says of each row by its meaning, words and letters, and the size of its group: (n, 28) float32.

    `vectors`: unit vectors (P, W) of the `phrases`, which hold every anchor and target of the frame.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # here, since only this track needs it

    place = pd.Index(phrases)
    words = TfidfVectorizer(analyzer=str.split, binary=True, use_idf=False)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), binary=True, use_idf=False)
    levels = [vectors, words.fit_transform(phrases), letters.fit_transform(phrases)]
    anchor, target = place.get_indexer(frame["anchor"]), place.get_indexer(frame["target"])
    found = np.empty((len(frame), 9 * len(levels) + 1), dtype=np.float32)
    for group in frame.groupby(["anchor", "context"], sort=False).indices.values():
        for rows in np.array_split(group, -(-len(group) // LARGEST)):
            columns = []
            for level in levels:
                members = level[[anchor[rows[0]], *target[rows]]]
                cosine = members @ members.T
                cosine = cosine.toarray() if issparse(cosine) else cosine
                columns.append(standing(cosine[0, 1:], cosine[1:, 1:]))
            found[rows] = np.concatenate([*columns, np.full((len(rows), 1), len(rows) / TYPICAL)], axis=1)
    return found
