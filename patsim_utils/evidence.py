"""What a fine-tuned encoder sees badly: shared words and letters, and the likeness that the untouched encoder finds.

A few dozen numbers a row that compare two phrases and hardly say which ones they are. So they are hard to learn by
heart and hold on anchors that training has never seen, where the encoder's own features are weakest. A small network
beside the encoder reads them (wide and deep: Cheng et al. 2016, arXiv 1606.07792); its features join the encoder's, and
a head of their own has its say in the score.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patsim_utils import encoder

EVIDENCE = ("none", "words", "pieces", "all", "group")
WORDS, ALIGNED = 12, 7  # numbers of `words`, and of each level of `Similarity`
ROWS = 512  # compared at a time: bounds the memory for the states of their phrases
PHRASES = 64  # read at a time
LONGEST = 64  # tokens of a phrase that are compared


def words(anchor: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Shares of words, word stems and letters that two phrases have in common: (n, WORDS) float32, about 0 to 1."""
    rows = [_in_common(a, t) for a, t in zip(anchor, target, strict=True)]
    return np.array(rows, dtype=np.float32).reshape(-1, WORDS)


def _in_common(anchor: str, target: str) -> list[float]:
    a, t = anchor.split(), target.split()
    shared, stems = set(a) & set(t), ({word[:4] for word in a}, {word[:4] for word in t})
    letters = _trigrams(anchor), _trigrams(target)
    both = len(letters[0] & letters[1])
    return [
        _jaccard(set(a), set(t)),
        _jaccard(*stems),
        _jaccard(*letters),
        both / len(letters[0]),
        both / len(letters[1]),
        len(shared) / 4,
        (len(a) - len(shared)) / 4,
        (len(t) - len(shared)) / 4,
        a[:1] == t[:1],
        a[-1:] == t[-1:],
        t[: len(a)] == a,
        t[-len(a) :] == a,
    ]


def _trigrams(phrase: str) -> set[str]:
    padded = f" {phrase} "
    return {padded[i : i + 3] for i in range(max(1, len(padded) - 2))}


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))


class Similarity:
    """How alike the untouched encoder finds two phrases, as wholes and token by token: (n, size) float32 in [-1, 1].

    For the word pieces alone (their embeddings less the vocabulary's mean, which takes no more than a look-up) and, if
    it is to `read` the phrases, for the states of the last layer: the cosine of the mean tokens; for the tokens of the
    anchor the cosine of the most alike token of the target, its mean and its least (the alignment of BERTScore, Zhang
    et al. 2020, arXiv 1904.09675); the same for the tokens of the target; the cosines of both first and of both last
    tokens. Where it reads, also the cosines of anchor and of target with the class text.
    """

    def __init__(self, backbone: str, *, layers: int = 0, read: bool) -> None:
        self.tokenizer = encoder.load_tokenizer(backbone)
        model = encoder.load_backbone(backbone, layers=layers).eval().requires_grad_(False)
        pieces = model.get_input_embeddings().weight
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pieces = F.normalize(pieces - pieces.mean(0), dim=-1).to(device)  # (V, W)
        self.model = model.to(device) if read else None
        self.size = 2 * ALIGNED + 2 if read else ALIGNED

    @torch.inference_mode()
    def __call__(self, anchor: np.ndarray, target: np.ndarray, title: np.ndarray) -> Tensor:
        device = self.pieces.device
        found = torch.empty(len(anchor), self.size)
        order = np.argsort(anchor, kind="stable")  # an anchor is read once, most targets are, too
        for rows in np.array_split(order, -(-len(order) // ROWS)):
            ids, phrases = pd.factorize(np.concatenate([anchor[rows], target[rows]]))
            levels, real = self._states(list(phrases))
            a, t = (torch.from_numpy(part).to(device) for part in np.split(ids, 2))
            columns = []
            for states in levels:
                whole = _whole(states, real)
                columns += [_cosine(whole[a], whole[t]), *_alignment(states, real, a, t)]
            if self.model:
                ids, texts = pd.factorize(title[rows])  # apart, since they are longer than phrases
                levels, real = self._states(list(texts))
                field = _whole(levels[-1], real)[torch.from_numpy(ids).to(device)]
                columns += [_cosine(whole[a], field), _cosine(whole[t], field)]
            found[torch.from_numpy(rows)] = torch.stack(columns, dim=-1).float().cpu()
        return found

    def _states(self, phrases: list[str]) -> tuple[list[Tensor], Tensor]:
        """Unit vectors (P, T, W) of the phrases' tokens on each level, and which of them are real: 1 or 0 (P, T)."""
        batches = list(
            encoder.phrase_batches(phrases, tokenizer=self.tokenizer, batch_size=PHRASES, max_length=LONGEST)
        )
        longest = max(1, *(batch["input_ids"].shape[1] - 2 for _, batch in batches))  # without [CLS] and [SEP]
        shape, device = (len(phrases), longest, self.pieces.shape[1]), self.pieces.device
        levels = [torch.zeros(shape, device=device) for _ in range(2 if self.model else 1)]
        real = torch.zeros(shape[:2], device=device)
        for places, batch in batches:
            batch, inside = batch.to(device), batch["attention_mask"][:, 2:].float().to(device)
            real[places, : inside.shape[1]] = inside
            levels[0][places, : inside.shape[1]] = self.pieces[batch["input_ids"][:, 1:-1]] * inside[..., None]
            if self.model:
                states = F.normalize(self.model(**batch).last_hidden_state[:, 1:-1], dim=-1)
                levels[1][places, : inside.shape[1]] = states * inside[..., None]
        return levels, real


def _whole(states: Tensor, real: Tensor) -> Tensor:
    """Unit vectors (P, W) of the mean tokens of states (P, T, W), real (P, T)."""
    return F.normalize((states * real[..., None]).sum(1), dim=-1)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(-1)


def _alignment(states: Tensor, real: Tensor, a: Tensor, t: Tensor) -> list[Tensor]:
    """Unit states (P, T, W), real (P, T) and the phrases of N rows -> six columns (N,)."""
    inside = (real[a, :, None] * real[t, None, :]) > 0  # (N, T, T)
    cosine = (states[a] @ states[t].mT).masked_fill(~inside, -1.0)
    columns = []
    for best, counts in ((cosine.amax(2), real[a]), (cosine.amax(1), real[t])):
        columns += [(best * counts).sum(1) / counts.sum(1).clamp(min=1), best.masked_fill(counts == 0, 1.0).amin(1)]
    rows, last = torch.arange(len(a), device=a.device), real.sum(1).long().sub(1).clamp(min=0)
    return [*columns, cosine[:, 0, 0], cosine[rows, last[a], last[t]]]


def among(numbers: Tensor, groups: Sequence[np.ndarray]) -> Tensor:
    """Numbers (n, F) and the rows of each group -> (n, 2 F + 1): also less their group's mean, and the group's size."""
    less, size = torch.empty_like(numbers), numbers.new_empty(len(numbers), 1)
    for rows in map(torch.from_numpy, groups):
        less[rows] = numbers[rows] - numbers[rows].mean(0)
        size[rows] = len(rows) / 20
    return torch.cat([numbers, less, size], dim=1)


class Evidence(nn.Module):
    """Phrases -> numbers (`of`) -> features of a row (N, width), through two hidden layers.

    `kind`: "words"; "pieces" with the similarity of word pieces; "all" with that of the untouched backbone's last
    layer, too (of its lowest `layers` where not 0); "group" also says how a target's numbers differ from those of the
    other targets of its anchor in its class, so that a score depends on its company. That backbone is read from where
    it came, not saved with the model.
    """

    width = 128

    def __init__(self, kind: str, *, backbone: str, layers: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        self.similarity = None if kind == "words" else Similarity(backbone, layers=layers, read=kind != "pieces")
        self.grouped = kind == "group"
        size = WORDS + (self.similarity.size if self.similarity else 0)
        size = 2 * size + 1 if self.grouped else size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.network = nn.Sequential(
            nn.Linear(size, self.width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(self.width, self.width),
            nn.GELU(),
            nn.Dropout(dropout),
        )

    def of(self, anchor: np.ndarray, target: np.ndarray, title: np.ndarray, *, groups: Sequence[np.ndarray]) -> Tensor:
        """The numbers (n, size) of rows of anchor, target and class text, float32 on the CPU.

        `groups`: the rows that share anchor and class, each group an array of their places.
        """
        numbers = torch.from_numpy(words(anchor, target))
        if self.similarity and len(numbers):
            numbers = torch.cat([numbers, self.similarity(anchor, target, title)], dim=1)
        return among(numbers, groups) if self.grouped else numbers

    def standardise(self, numbers: Tensor) -> None:
        """Takes mean and deviation of training's numbers (n, size) as its unit from now on."""
        self.mean.copy_(numbers.mean(0))
        self.deviation.copy_(numbers.std(0).clamp(min=1e-3))

    def forward(self, numbers: Tensor) -> Tensor:
        return self.network((numbers - self.mean) / self.deviation)
