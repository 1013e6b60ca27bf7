"""Similarity features: what a fine-tuned encoder sees badly, read by a small regressor.

The features of a pair are numbers that compare its phrases and hardly say which ones they are:
shared words and letters, and how alike the pretrained MiniLM finds them. So they hold on anchors
that training has never seen. The regressor is fitted to them alone, in seconds, and its
probabilities enter a weighted mean with the network's (BLEND_WEIGHT). A listwise model
(kind "group") also has features of a pair's group, the targets of its anchor in its class among the
rows that are scored together: candidates that mean the same as their anchor are like each other, and
strangers are like nobody. No encoder of single pairs sees that; a score then depends on other rows.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patsim_utils.config import Config
from patsim_utils.layouts.tokens import AnyTokenizer
from patsim_utils.method import encoder, ordinal
from patsim_utils.method.weights import files
from patsim_utils.ratings import RANKS, to_rank

Columns = dict[str, np.ndarray]  # features (n,) of n pairs, by name
BLEND_WEIGHT = {"similarity": 0.3, "group": 0.35}  # of the regressor; the rest is the network's
COUNT = {"similarity": 12 + 7, "group": 12 + 7 + 28}  # of features
HIDDEN = 128  # width of both hidden layers of the regressor
ENCODER_BATCH = 64  # phrases of like length that the encoder reads at a time
PAIRS_AT_A_TIME = 512  # that are compared
SOFTMAX_TEMPERATURE = 0.1  # a cosine that is higher by this much counts e times as much
TYPICAL_GROUP = 20  # targets
LARGEST_GROUP = 128  # targets that are compared; a larger group falls into parts, in their order


def overlap(anchor: str, target: str) -> dict[str, float]:
    """What two phrases have in common in words, stems (four letters) and letters (three in a row).

    Twelve numbers from 0 to about 1; counts of words are in quarters.

    >>> overlap("strong material", "strong steel")["shared_words"]
    0.25
    """
    anchor_words = anchor.split()
    target_words = target.split()
    anchor_letters = {f" {anchor} "[i : i + 3] for i in range(len(anchor))}
    target_letters = {f" {target} "[i : i + 3] for i in range(len(target))}
    shared = len({*anchor_words} & {*target_words})
    shared_letters = len(anchor_letters & target_letters)
    return {
        "words": _jaccard({*anchor_words}, {*target_words}),
        "stems": _jaccard({word[:4] for word in anchor_words}, {word[:4] for word in target_words}),
        "letters": _jaccard(anchor_letters, target_letters),
        "letters_of_anchor": shared_letters / len(anchor_letters),
        "letters_of_target": shared_letters / len(target_letters),
        "shared_words": shared / 4,
        "other_words_of_anchor": (len(anchor_words) - shared) / 4,
        "other_words_of_target": (len(target_words) - shared) / 4,
        "first_word_equal": anchor_words[0] == target_words[0],
        "last_word_equal": anchor_words[-1] == target_words[-1],
        "target_starts_with_anchor": target_words[: len(anchor_words)] == anchor_words,
        "target_ends_with_anchor": target_words[-len(anchor_words) :] == anchor_words,
    }


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


@torch.inference_mode()
def alignment(frame: pd.DataFrame, *, tokenizer: AnyTokenizer, model: nn.Module) -> tuple[Columns, dict[str, Tensor]]:
    """How alike an encoder finds anchor and target, as wholes and token by token: seven cosines.

    Of the last layer's states without special tokens: those of the sums of unit states, of both
    first and of both last tokens; and of each token with the most similar one of the other phrase,
    the mean and the least (BERTScore, Zhang et al. 2020, arXiv 1904.09675). Also returns every
    phrase's sentence vector (W,): the mean of all states with special tokens, of norm 1.
    """
    order = np.argsort(frame["anchor"].to_numpy(), kind="stable")  # so most anchors are encoded once
    parts = []
    vectors = {}
    for rows in np.array_split(order, -(-len(order) // PAIRS_AT_A_TIME)):
        part = frame.iloc[rows]
        phrase_of, phrases = pd.factorize(np.concatenate([part["anchor"], part["target"]]))
        states, real, means = _states(phrases, tokenizer, model)
        vectors |= zip(phrases, means, strict=True)
        anchor, target = torch.from_numpy(phrase_of).tensor_split(2)
        parts.append(_cosines(states[anchor], real[anchor], states[target], real[target]))
    places = np.argsort(order)
    columns = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    return {name: column[places] for name, column in columns.items()}, vectors


def _cosines(anchor: Tensor, anchor_real: Tensor, target: Tensor, target_real: Tensor) -> dict[str, Tensor]:
    """Unit states (n, T, W) and what is a token, 1 or 0 (n, T) -> seven cosines (n,) each."""
    inside = (anchor_real[:, :, None] * target_real[:, None, :]) > 0  # (n, T, T)
    cosine = (anchor @ target.mT).masked_fill(~inside, -1.0)
    best_of_anchor = cosine.amax(2)
    best_of_target = cosine.amax(1)
    row = torch.arange(len(anchor))
    anchor_last = anchor_real.sum(1).long() - 1
    target_last = target_real.sum(1).long() - 1
    return {
        "whole": F.cosine_similarity(anchor.sum(1), target.sum(1)),  # padding is zero
        "anchor_mean": (best_of_anchor * anchor_real).sum(1) / anchor_real.sum(1),
        "anchor_least": best_of_anchor.masked_fill(anchor_real == 0, 1.0).amin(1),
        "target_mean": (best_of_target * target_real).sum(1) / target_real.sum(1),
        "target_least": best_of_target.masked_fill(target_real == 0, 1.0).amin(1),
        "first_token": cosine[:, 0, 0],
        "last_token": cosine[row, anchor_last, target_last],
    }


def _states(phrases: Sequence[str], tokenizer: AnyTokenizer, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """What an encoder says of P phrases.

    Returns unit states (P, T, W) and 1 or 0 for what is a token or padding (P, T), both without
    special tokens, and sentence vectors (P, W), whose means include these.
    """
    read = encoder.token_states(phrases, tokenizer=tokenizer, model=model, batch_size=ENCODER_BATCH)
    batches = list(read)
    _, longest, width = batches[-1][1].shape
    tokens = max(1, longest - 2)
    unit_states = torch.zeros(len(phrases), tokens, width)
    means = torch.empty(len(phrases), width)
    lengths = torch.ones(len(phrases))
    for rows, states, mask in batches:
        means[rows] = encoder.sentence_mean(states, mask).cpu()
        unit_states[rows, : states.shape[1] - 2] = F.normalize(states[:, 1:-1].cpu(), dim=-1)
        lengths[rows] = (mask.sum(1).float().cpu() - 2).clamp(min=1)
    real = (torch.arange(tokens) < lengths[:, None]).float()
    return unit_states * real[..., None], real, means


STANDING = (
    "to_others_mean",  # of the cosines with the other targets
    "to_others_largest",
    "to_others_largest_three",
    "to_others_deviation",
    "to_strangers_mean",  # the same, weighing those targets more that are unlike the anchor
    "others_to_anchor_mean",  # of the others' cosines with the anchor
    "near_to_anchor_mean",  # the same, weighing those more that are like this target
    "to_anchor_above",  # the share of the others that it exceeds in its cosine with the anchor
    "to_others_above",  # the share of the others that it exceeds in the mean of its cosines
)


def standing(to_anchor: np.ndarray, to_others: np.ndarray) -> Columns:
    """Where each of K targets stands among the others: (K,) each; zeros for a single target.

    Args:
        to_anchor: cosines with their anchor (K,).
        to_others: cosines with each other (K, K).
    """
    from scipy.special import softmax  # here: only kind "group" needs it

    count = len(to_anchor)
    if count == 1:
        return {name: np.zeros(1) for name in STANDING}
    other = ~np.eye(count, dtype=bool)
    others_to_anchor = np.broadcast_to(to_anchor, (count, count))[other].reshape(count, -1)
    to_others = to_others[other].reshape(count, -1)
    mean = to_others.mean(1)
    others_mean = np.broadcast_to(mean, (count, count))[other].reshape(count, -1)
    columns = (
        mean,
        to_others.max(1),
        np.sort(to_others, axis=1)[:, -3:].mean(1),
        to_others.std(1),
        (softmax(-others_to_anchor / SOFTMAX_TEMPERATURE, axis=1) * to_others).sum(1),
        others_to_anchor.mean(1),
        (softmax(to_others / SOFTMAX_TEMPERATURE, axis=1) * others_to_anchor).sum(1),
        (to_anchor[:, None] > others_to_anchor).mean(1),
        (mean[:, None] > others_mean).mean(1),
    )
    return dict(zip(STANDING, columns, strict=True))


def group_features(frame: pd.DataFrame, phrases: Sequence[str], vectors: np.ndarray) -> Columns:
    """`standing` of each row by meaning, words and letters, and the size of its group.

    `phrases` hold every anchor and target; `vectors` (P, W) are theirs. Returns 28 features.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # here: only kind "group" needs it

    words = TfidfVectorizer(analyzer=str.split, binary=True, use_idf=False)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), binary=True, use_idf=False)
    levels = {"meaning": vectors, "words": words.fit_transform(phrases), "letters": letters.fit_transform(phrases)}
    columns = {}
    for level in levels:
        columns |= {f"{level}_{name}": np.empty(len(frame)) for name in STANDING}
    columns["group_size"] = np.empty(len(frame))
    index = pd.Index(phrases)
    anchor = index.get_indexer(frame["anchor"])
    target = index.get_indexer(frame["target"])
    for group in frame.groupby(["anchor", "context"], sort=False).indices.values():
        for rows in np.array_split(group, -(-len(group) // LARGEST_GROUP)):
            columns["group_size"][rows] = len(rows) / TYPICAL_GROUP
            for level, values in levels.items():
                members = values[[anchor[rows[0]], *target[rows]]]
                cosine = members @ members.T
                if not isinstance(cosine, np.ndarray):  # a sparse matrix
                    cosine = cosine.toarray()
                for name, column in standing(cosine[0, 1:], cosine[1:, 1:]).items():
                    columns[f"{level}_{name}"][rows] = column
    return columns


class Regressor:
    """Features of a pair -> P(rank > k), by a network with two hidden layers."""

    def __init__(self, kind: str, *, precision: str) -> None:
        """`kind`: "similarity" or "group". `precision`: of MiniLM, which is loaded from its package."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.kind = kind
        self.precision = precision
        model, self.tokenizer = encoder.load_to_score("minilm")
        self.encoder = model.to(device)
        self.network = nn.Sequential(
            nn.Linear(COUNT[kind], HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, RANKS - 1),
        ).to(device)

    @classmethod
    def fit(cls, frame: pd.DataFrame, config: Config) -> Self:
        """Fits it to rows with scores, in seconds once the phrases are read."""
        # here, since what only scores does without
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        regressor = cls(config.features, precision=config.precision)
        features = regressor.features(frame)
        mean = features.mean(0)
        deviation = features.std(0).clip(1e-3)
        ranks = torch.from_numpy(to_rank(frame["score"]))
        network = MLPRegressor(
            hidden_layer_sizes=(HIDDEN, HIDDEN),
            alpha=1e-2,
            batch_size=min(512, max(16, len(frame) // 64)),
            learning_rate_init=3e-3,
            max_iter=12,
            random_state=config.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped before it overfits
            network.fit((features - mean) / deviation, ordinal.levels(ranks).float().numpy())
        network.coefs_[0] /= deviation[:, None]  # from here on it takes the features as they are
        network.intercepts_[0] -= mean @ network.coefs_[0]
        for number, layer in enumerate(regressor.network[::2]):
            layer.weight.data.copy_(torch.from_numpy(network.coefs_[number].T))
            layer.bias.data.copy_(torch.from_numpy(network.intercepts_[number]))
        return regressor

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        files.save_weights(self.network, folder / "network.safetensors")

    @classmethod
    def load(cls, folder: Path, config: Config) -> Self:
        """What `save` wrote; InputError where it is missing or damaged."""
        regressor = cls(config.features, precision=config.precision)
        files.load_weights(regressor.network, folder / "network.safetensors")
        return regressor

    def features(self, frame: pd.DataFrame) -> np.ndarray:
        """The features of a checked frame's rows, (n, COUNT[kind]) float32."""
        overlaps = [overlap(*pair) for pair in zip(frame["anchor"], frame["target"], strict=True)]
        columns = {name: np.array([row[name] for row in overlaps]) for name in overlaps[0]}
        with encoder.autocast(self.precision, self.encoder.device):
            aligned, vectors = alignment(frame, tokenizer=self.tokenizer, model=self.encoder)
        columns |= aligned
        if self.kind == "group":
            columns |= group_features(frame, [*vectors], torch.stack([*vectors.values()]).numpy())
        return np.stack([*columns.values()], axis=1).astype(np.float32)

    @torch.inference_mode()
    def __call__(self, frame: pd.DataFrame) -> Tensor:
        """P(rank > k) (n, 4) float32, falling along k, of a checked frame's rows."""
        features = torch.from_numpy(self.features(frame)).to(self.encoder.device)
        raw = self.network(features).cpu()  # four separate regressions, which nothing makes fall along k
        return raw.sort(-1, descending=True).values.clamp(0, 1)

    def blend(self, logits: Tensor, frame: pd.DataFrame) -> Tensor:
        """Cumulative logits (n, 4) of the network -> of the weighted mean of both P(rank > k).

        Scores and their probabilities follow it; the rating head's ratings stay as they are.
        """
        mixed = torch.lerp(logits.sigmoid(), self(frame), BLEND_WEIGHT[self.kind])
        return torch.logit(mixed, eps=ordinal.CERTAIN)
