"""Thresholds and first candidates, against counting by hand and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from patsim_utils.study import errors

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {"anchor": RNG.integers(0, 20, 400).astype(str), "context": "H01", "score": RNG.integers(0, 5, 400) / 4}
)
FRAME["prediction"] = (FRAME["score"] * 0.6 + RNG.random(400) * 0.4).clip(0, 1)


@pytest.mark.parametrize("relevant", [0.5, 0.75])
def test_thresholds_are_precision_and_recall(relevant: float) -> None:
    table = errors.thresholds(FRAME, relevant=relevant)
    for row in table.itertuples():
        wanted, kept = FRAME["score"] >= relevant, FRAME["prediction"] >= row.threshold
        assert row.kept == pytest.approx(kept.mean())
        assert row.recall == pytest.approx(recall_score(wanted, kept))
        certain = row.recall == 1 and np.isnan([row.recall_low, row.recall_high]).all()  # in all resamples
        assert row.recall_low <= row.recall <= row.recall_high or certain
        if kept.any():
            assert row.precision == pytest.approx(precision_score(wanted, kept))
            certain = row.precision == 1 and np.isnan([row.precision_low, row.precision_high]).all()
            assert row.precision_low <= row.precision <= row.precision_high or certain
    assert table["recall"].is_monotonic_decreasing
    assert (table["recall_high"] - table["recall_low"]).dropna().between(0, 0.5, inclusive="right").all()


def test_nothing_kept_has_no_precision_and_nothing_relevant_no_rows() -> None:
    table = errors.thresholds(FRAME.assign(prediction=0.2), relevant=0.5)
    assert table["precision"].isna().tolist() == (table["threshold"] > 0.2).tolist()
    assert table.loc[table["threshold"] > 0.2, ["kept", "recall"]].eq(0).all(axis=None)
    assert errors.thresholds(FRAME.assign(score=0.25), relevant=0.5).empty


def test_the_first_candidates_of_two_groups() -> None:
    frame = pd.DataFrame({"anchor": list("aaabbcc"), "context": "H01", "score": [1.0, 0.5, 0.0, 0.25, 0.75, 0.0, 0.0]})
    frame["prediction"] = [0.9, 0.1, 0.5, 0.8, 0.7, 0.2, 0.1]
    found = errors.first_candidates(frame).set_index("what")
    assert found.loc["rated 0.5 or more among the first 1", "value"] == pytest.approx(1 / 3)
    assert found.loc["rated 0.5 or more among the first 3", ["value", "groups"]].tolist() == pytest.approx([2 / 3, 1])
    discount = 1 / np.log2([2, 3, 4])
    a = ([1, 0, 0.5] @ discount) / ([1, 0.5, 0] @ discount)
    b = ([0.25, 0.75] @ discount[:2]) / ([0.75, 0.25] @ discount[:2])
    assert found.loc["nDCG@10", ["value", "groups"]].tolist() == pytest.approx([(a + b) / 2, 2])  # c: nothing to find


def test_ranked_rightly_is_the_area_under_the_curve_of_two_scores() -> None:
    two = FRAME[FRAME["score"].isin([0.25, 0.75])]
    assert errors.ranked_rightly(two) == pytest.approx(roc_auc_score(two["score"] > 0.5, two["prediction"]))
    assert errors.ranked_rightly(two.assign(prediction=0.5)) == 0.5
    with pytest.raises(ValueError, match="the same score"):
        errors.ranked_rightly(two.assign(score=0.5))
