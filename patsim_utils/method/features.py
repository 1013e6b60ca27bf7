"""Similarity features: what a fine-tuned encoder sees badly, read by a small regressor that is blended in.

A few numbers a row that compare two phrases and hardly say which ones they are: shared words and letters, and how alike
the pretrained MiniLM finds them. So they hold on anchors that training has never seen. The model does not know them:
the regressor is fitted to them alone, in seconds, and its probabilities are averaged with the model's. MiniLM reads the
phrases whatever the model's own backbone is: MPNet took five times as long for .001 to .002 (reports/trials.md). On the
listwise track numbers of a pair's group (`groups.py`) stand beside them.
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
from transformers import PreTrainedTokenizerBase

from patsim_utils.config import Config
from patsim_utils.method import adapters, encoder, groups
from patsim_utils.ratings import to_rank

BLEND_WEIGHT = {"similarity": 0.3, "group": 0.35}  # of the regressor's probabilities; the rest is the encoder's
NUMBERS = {"similarity": 12 + 7, "group": 12 + 7 + 28}
HIDDEN = 128
BATCH, ROWS = 64, 512  # phrases of like length that the encoder reads, and rows that are compared, at a time


def overlap(anchor: str, target: str) -> list[float]:
    """Shares of words, word stems and letters that two phrases have in common: twelve numbers from 0 to about 1."""
    a, t = anchor.split(), target.split()
    stems = [{word[:4] for word in words} for words in (a, t)]
    letters = [{f" {phrase} "[i : i + 3] for i in range(len(phrase))} for phrase in (anchor, target)]
    shared, both = len({*a} & {*t}), len(letters[0] & letters[1])
    return [
        *(len(one & two) / len(one | two) for one, two in (({*a}, {*t}), stems, letters)),
        both / len(letters[0]),
        both / len(letters[1]),
        shared / 4,
        (len(a) - shared) / 4,
        (len(t) - shared) / 4,
        a[0] == t[0],
        a[-1] == t[-1],
        t[: len(a)] == a,
        t[-len(a) :] == a,
    ]


@torch.inference_mode()
def alignment(
    frame: pd.DataFrame, *, tokenizer: PreTrainedTokenizerBase, model: nn.Module
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """How alike an encoder finds anchor and target, as wholes and token by token: (n, 7), cosines.

    Of the last layer's states: the cosine of the mean tokens; for the tokens of the anchor the cosine of the most
    similar token of the target, its mean and its least (the alignment of BERTScore, Zhang et al. 2020, arXiv
    1904.09675); the same for the tokens of the target; the cosines of both first and of both last tokens. Beside them
    the sentence vector (W,) of every phrase: the mean of its tokens, of unit length.
    """
    found, vectors = np.empty((len(frame), 7), dtype=np.float32), {}
    order = np.argsort(frame["anchor"].to_numpy(), kind="stable")  # so that an anchor is read about once
    for rows in np.array_split(order, -(-len(order) // ROWS)):
        part = frame.iloc[rows]
        ids, phrases = pd.factorize(np.concatenate([part["anchor"], part["target"]]))
        states, real, means = _states(phrases, tokenizer, model)
        vectors |= zip(phrases, means, strict=True)
        a, t = torch.from_numpy(ids).tensor_split(2)
        whole = F.normalize((states * real[..., None]).sum(1), dim=-1)
        inside = (real[a, :, None] * real[t, None, :]) > 0  # (n, T, T)
        cosine = (states[a] @ states[t].mT).masked_fill(~inside, -1.0)
        columns = [(whole[a] * whole[t]).sum(-1)]
        for best, counts in ((cosine.amax(2), real[a]), (cosine.amax(1), real[t])):
            columns += [(best * counts).sum(1) / counts.sum(1), best.masked_fill(counts == 0, 1.0).amin(1)]
        last = real.sum(1).long() - 1
        columns += [cosine[:, 0, 0], cosine[torch.arange(len(part)), last[a], last[t]]]
        found[rows] = torch.stack(columns, dim=-1).numpy()
    return found, vectors


def _states(
    phrases: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit states (P, T, W) of all but special tokens, which are real: 1 or 0 (P, T), and sentence vectors (P, W)."""
    batches = list(encoder.token_states(phrases, tokenizer=tokenizer, model=model, batch_size=BATCH))
    count, (_, longest, size) = len(phrases), batches[-1][1].shape
    width = max(1, longest - 2)
    found, means, lengths = torch.zeros(count, width, size), torch.empty(count, size), torch.ones(count)
    for places, states, mask in batches:
        means[places] = encoder.sentence_mean(states, mask).cpu()
        found[places, : states.shape[1] - 2] = F.normalize(states[:, 1:-1].cpu(), dim=-1)
        lengths[places] = (mask.sum(1).float().cpu() - 2).clamp(min=1)
    real = (torch.arange(width) < lengths[:, None]).float()
    return found * real[..., None], real, means


class Regressor:
    """Features of a pair -> P(rank > k), by the pretrained encoder and a network with two hidden layers."""

    def __init__(self, kind: str, *, precision: str) -> None:
        """`kind`: "similarity", or "group" for the listwise track."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.encoder, self.precision, self.kind = encoder.load_backbone("minilm").eval().to(device), precision, kind
        self.tokenizer = encoder.load_tokenizer("minilm")
        layers = nn.Linear(NUMBERS[kind], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 4)
        self.network = nn.Sequential(*layers).to(device)

    @classmethod
    def fit(cls, frame: pd.DataFrame, config: Config) -> Self:
        """Fits it to the rows of a frame with scores; seconds of work beside the reading of the phrases."""
        from sklearn.exceptions import ConvergenceWarning  # here, since what only scores does without
        from sklearn.neural_network import MLPRegressor

        made = cls(config.features, precision=config.precision)
        numbers = made.features(frame)
        mean, deviation = numbers.mean(0), numbers.std(0).clip(1e-3)
        levels = to_rank(frame["score"])[:, None] > np.arange(4)
        network = MLPRegressor(
            hidden_layer_sizes=(HIDDEN, HIDDEN),
            alpha=1e-2,
            batch_size=min(512, max(16, len(frame) // 64)),
            learning_rate_init=3e-3,
            max_iter=12,
            random_state=config.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose, before it overfits
            network.fit((numbers - mean) / deviation, levels.astype(np.float32))
        network.coefs_[0] /= deviation[:, None]  # from here on it takes the numbers as they are
        network.intercepts_[0] -= mean @ network.coefs_[0]
        for layer, weight, bias in zip(made.network[::2], network.coefs_, network.intercepts_, strict=True):
            layer.weight.data.copy_(torch.from_numpy(weight.T))
            layer.bias.data.copy_(torch.from_numpy(bias))
        return made

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        adapters.save_weights(self.network, folder / "network.safetensors")

    @classmethod
    def load(cls, folder: Path, kind: str, *, precision: str) -> Self:
        """What `save` wrote; InputError where it is missing or damaged."""
        made = cls(kind, precision=precision)
        adapters.load_weights(made.network, folder / "network.safetensors")
        return made

    def features(self, frame: pd.DataFrame) -> np.ndarray:
        """The numbers (n, NUMBERS of its kind) float32 of a checked frame's rows."""
        words = [overlap(*pair) for pair in zip(frame["anchor"], frame["target"], strict=True)]
        with encoder.autocast(self.precision, self.encoder.device):
            aligned, vectors = alignment(frame, tokenizer=self.tokenizer, model=self.encoder)
        parts = [np.array(words, dtype=np.float32), aligned]
        if self.kind == "group":
            parts.append(groups.numbers(frame, [*vectors], torch.stack([*vectors.values()]).numpy()))
        return np.concatenate(parts, axis=1)

    @torch.inference_mode()
    def __call__(self, frame: pd.DataFrame) -> Tensor:
        """P(rank > k) (n, 4) float32, falling along k, of a checked frame's rows."""
        found = self.network(torch.from_numpy(self.features(frame)).to(self.encoder.device)).cpu()
        return found.sort(-1, descending=True).values.clamp(0, 1)

    def blend(self, logits: Tensor, frame: pd.DataFrame) -> Tensor:
        """Cumulative logits (n, 4) of the model -> those of the mean with this regressor's probabilities."""
        return torch.logit(torch.lerp(logits.sigmoid(), self(frame), BLEND_WEIGHT[self.kind]), eps=1e-6)
