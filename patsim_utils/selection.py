"""What a searcher keeps and misses: everything above a threshold, or the first candidates of each anchor.

`frame` holds scored pairs with a column `prediction`. Intervals are of 95 %, by a bootstrap over anchors.
"""

import itertools

import numpy as np
import pandas as pd
from sklearn.metrics import ndcg_score

from patsim_utils.analysis import mean_interval

THRESHOLDS = np.arange(0.1, 0.95, 0.05).round(2)


def thresholds(frame: pd.DataFrame, *, relevant: float, seed: int = 0) -> pd.DataFrame:
    """What is kept of the pairs predicted at or above each of THRESHOLDS; empty where none is rated `relevant` or more.

    Returns threshold, kept (share of all pairs), precision (share of the kept that are relevant, NaN where nothing is
    kept), recall (share of the relevant that are kept), each of the last two with _low and _high.
    """
    rows, wanted = [], frame["score"] >= relevant
    for threshold in THRESHOLDS if wanted.any() else ():
        kept = frame["prediction"] >= threshold
        precision = mean_interval(frame["anchor"], wanted, among=kept, seed=seed)
        rows.append(
            (threshold, kept.mean(), *precision, *mean_interval(frame["anchor"], kept, among=wanted, seed=seed))
        )
    names = [f"{name}{end}" for name in ("precision", "recall") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["threshold", "kept", *names])


def first_candidates(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How good the first k targets of an anchor in a class are, by prediction: what, value, low, high, groups.

    Precision at k: share rated .5 or more, and .75 or more, of groups with k targets or more. nDCG@10 (gain: the
    score), of groups in which something is rated above 0.
    """
    found, rows = [], []
    for (anchor, _), group in frame.groupby(["anchor", "context"], sort=False):
        best = group.sort_values("prediction", ascending=False, kind="stable")["score"].to_numpy()
        row = {"anchor": anchor}
        for level, k in itertools.product((0.5, 0.75), (1, 3, 5, 10)):
            hits = (best[:k] >= level).mean() if len(best) >= k else np.nan
            row[f"rated {level:g} or more among the first {k}"] = hits
        if len(best) > 1 and best.any():
            row["nDCG@10"] = ndcg_score(best[None], -np.arange(len(best))[None], k=10)
        found.append(row)
    for what, value in pd.DataFrame(found).set_index("anchor").items():
        if len(value := value.dropna()):
            rows.append((what, *mean_interval(value.index, value, seed=seed), len(value)))
    return pd.DataFrame(rows, columns=["what", "value", "low", "high", "groups"])


def ranked_rightly(frame: pd.DataFrame) -> float:
    """Of two pairs with unlike scores, how often the model ranks the better one higher, in [0, 1]; ties count half.

    Of at most 4,000 rows, the same ones every time. ValueError where all scores are equal.
    """
    drawn = frame.sample(n=min(4000, len(frame)), random_state=0)
    score, prediction = (drawn[column].to_numpy()[:, None] for column in ("score", "prediction"))
    above = score > score.T
    if not above.any():
        raise ValueError("all pairs have the same score")
    return float((np.sign(prediction - prediction.T)[above].mean() + 1) / 2)
