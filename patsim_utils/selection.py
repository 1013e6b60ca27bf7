"""What a searcher keeps and misses: everything above a threshold, or the first candidates of each anchor.

`frame` holds scored pairs with a column `prediction`. Intervals are of 95 %, by a bootstrap over anchors.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import ndcg_score

from patsim_utils.analysis import RESAMPLES, mean_interval

THRESHOLDS = np.arange(0.1, 0.95, 0.05).round(2)


def thresholds(
    frame: pd.DataFrame, *, relevant: float, at: Sequence[float] = THRESHOLDS, seed: int = 0
) -> pd.DataFrame:
    """What is kept of the pairs predicted at or above each threshold.

    Returns threshold, kept (share of all pairs), precision (share of the kept that are rated `relevant` or more),
    recall (share of those that are kept), each of the last two with _low and _high. Where nothing is kept, precision
    is NaN. Empty where nothing is rated so high.
    """
    wanted = (frame["score"] >= relevant).to_numpy()
    anchor, _ = pd.factorize(frame["anchor"])
    count = anchor.max(initial=-1) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    rows = []
    for threshold in at if wanted.any() else ():
        kept = (frame["prediction"] >= threshold).to_numpy()
        row = {"threshold": float(threshold), "kept": float(kept.mean())}
        for name, part in (("precision", kept), ("recall", wanted)):
            hits, all_of_it = (np.bincount(anchor, mask, count) for mask in (kept & wanted, part))
            with np.errstate(invalid="ignore"):
                drawn = (draws @ hits) / (draws @ all_of_it)
                row[name] = hits.sum() / all_of_it.sum()
            known = drawn[~np.isnan(drawn)]
            ends = np.quantile(known, [0.025, 0.975]) if len(known) > RESAMPLES / 2 else (np.nan, np.nan)
            row |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
        rows.append(row)
    columns = ["threshold", "kept", "precision", "precision_low", "precision_high"]
    return pd.DataFrame(rows, columns=[*columns, "recall", "recall_low", "recall_high"])


def first_candidates(frame: pd.DataFrame, *, at: Sequence[int] = (1, 3, 5, 10), seed: int = 0) -> pd.DataFrame:
    """How good the first k targets of an anchor in a class are, by prediction: what, value, low, high, groups.

    Precision at k: share rated .5 or more, and .75 or more, of groups with k targets or more. nDCG@10 (gain: the
    score), of groups in which something is rated above 0.
    """
    found: dict[str, list[tuple[str, float]]] = {}
    for (anchor, _), group in frame.groupby(["anchor", "context"], sort=False):
        best = group.sort_values("prediction", ascending=False, kind="stable")["score"].to_numpy()
        for k in [k for k in at if len(best) >= k]:
            for level in (0.5, 0.75):
                name = f"rated {level:g} or more among the first {k}"
                found.setdefault(name, []).append((anchor, float((best[:k] >= level).mean())))
        if len(best) > 1 and best.any():
            order = -np.arange(len(best), dtype=float)[None]
            found.setdefault("nDCG@10", []).append((anchor, float(ndcg_score(best[None], order, k=10))))
    rows = []
    for what in sorted(found, key=lambda name: (name == "nDCG@10", "0.75" in name)):
        anchors, values = map(pd.Series, zip(*found[what], strict=True))
        rows.append((what, *mean_interval(anchors, values, seed=seed), len(values)))
    return pd.DataFrame(rows, columns=["what", "value", "low", "high", "groups"])


def ranked_rightly(frame: pd.DataFrame, *, rows: int = 4000) -> float:
    """Of two pairs with unlike scores, how often the model ranks the better one higher, in [0, 1]; ties count half.

    Of at most so many `rows`, the same ones every time. ValueError where all scores are equal.
    """
    drawn = frame.sample(n=min(rows, len(frame)), random_state=0)
    score, prediction = (drawn[column].to_numpy()[:, None] for column in ("score", "prediction"))
    above = score > score.T
    if not above.any():
        raise ValueError("all pairs have the same score")
    return float((np.sign(prediction - prediction.T)[above].mean() + 1) / 2)
