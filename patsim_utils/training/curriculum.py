"""Curriculum: which anchors a training epoch draws on, from easy to all (Xu et al., ACL 2020, with two controls).

An anchor is difficult where a model that never saw it is wrong about it: its mean absolute error out of fold. The model
is a small one on how alike the phrases look, so that the order costs seconds and no training of its own.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from patsim_utils import metrics
from patsim_utils.config import Config
from patsim_utils.data.splits import grouped_folds
from patsim_utils.method import encoder

FOLDS = 5


def difficulty(frame: pd.DataFrame, *, backbone: str) -> pd.Series:
    """Mean absolute out-of-fold error of each anchor, in [0, 1], index `anchor`.

    A gradient-boosted tree on the pretrained backbone's cosine, shared words and lengths predicts the score; folds are
    grouped by anchor.

    Raises:
        InputError: fewer than two anchors.
    """
    lengths = (frame[column].str.len() for column in ("anchor", "target"))
    cosine, words = encoder.pretrained_cosine(frame, backbone=backbone), metrics.word_jaccard(frame)
    features = np.stack([cosine, words, *lengths], axis=1)
    fold = grouped_folds(frame, folds=min(FOLDS, frame["anchor"].nunique()))
    model = HistGradientBoostingRegressor(random_state=0)
    predicted = cross_val_predict(model, features, frame["score"], groups=fold, cv=LeaveOneGroupOut())
    return (predicted - frame["score"]).abs().groupby(frame["anchor"]).mean()


def pools(frame: pd.DataFrame, config: Config) -> list[np.ndarray]:
    """The rows that each epoch draws on, the last one on all of them: e of E epochs on e / E of the anchors.

    `easy_first` adds harder anchors from epoch to epoch, `hard_first` easier ones, `random` any: at equal steps, what
    `easy_first` gains beyond `random` is due to the order, and the rest to seeing few anchors more often.
    """
    anchors = difficulty(frame, backbone=config.backbone).sort_values(kind="stable").index.to_numpy()
    if config.curriculum == "hard_first":
        anchors = anchors[::-1]
    if config.curriculum == "random":
        anchors = np.random.default_rng(config.seed).permutation(anchors)
    counts = [-(-epoch * len(anchors) // config.epochs) for epoch in range(1, config.epochs + 1)]
    return [np.flatnonzero(frame["anchor"].isin(anchors[:count])) for count in counts]
