"""Curriculum: which anchors an epoch draws on, from easy to all (Xu et al., ACL 2020).

An anchor is difficult where a model that never saw it is wrong about it: its mean absolute error
out of fold. The model is a small one on how alike the phrases look, so that the order costs
seconds and no training of its own.
"""

import math

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from patsim_utils import metrics
from patsim_utils.config import Config
from patsim_utils.data.splits import grouped_folds
from patsim_utils.method import encoder

FOLDS = 5

# Anchors from easy to difficult and a seed -> the order in which epochs take them in.
ORDERS = {
    "easy_first": lambda anchors, seed: anchors,
    "hard_first": lambda anchors, seed: anchors[::-1],
    "random": lambda anchors, seed: np.random.default_rng(seed).permutation(anchors),
}


def difficulty(frame: pd.DataFrame, *, backbone: str) -> pd.Series:
    """Mean absolute out-of-fold error of each anchor, in [0, 1], index `anchor`.

    A gradient-boosted tree on the pretrained backbone's cosine, shared words and lengths predicts
    the score; folds are grouped by anchor.

    Raises:
        InputError: fewer than two anchors.
    """
    features = np.stack(
        [
            encoder.pretrained_cosine(frame, backbone=backbone),
            metrics.word_jaccard(frame),
            frame["anchor"].str.len(),
            frame["target"].str.len(),
        ],
        axis=1,
    )
    fold = grouped_folds(frame, folds=min(FOLDS, frame["anchor"].nunique()))
    model = HistGradientBoostingRegressor(random_state=0)
    splitter = LeaveOneGroupOut()
    predicted = cross_val_predict(model, features, frame["score"], groups=fold, cv=splitter)
    errors = (predicted - frame["score"]).abs()
    return errors.groupby(frame["anchor"]).mean()


def pools(frame: pd.DataFrame, config: Config) -> list[np.ndarray]:
    """The rows that each epoch draws on: epoch e of E on e / E of the anchors, the last on all.

    `easy_first` adds harder anchors from epoch to epoch, `hard_first` easier ones, `random` any:
    at equal steps, what `easy_first` gains beyond `random` is due to the order, and the rest to
    seeing few anchors more often.
    """
    difficulties = difficulty(frame, backbone=config.backbone)
    easy_to_hard = difficulties.sort_values(kind="stable").index.to_numpy()
    anchors = ORDERS[config.curriculum](easy_to_hard, config.seed)
    rows = []
    for epoch in range(1, config.epochs + 1):
        count = math.ceil(epoch * len(anchors) / config.epochs)
        rows.append(np.flatnonzero(frame["anchor"].isin(anchors[:count])))
    return rows
