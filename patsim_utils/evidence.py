"""What a fine-tuned encoder sees badly: shared words and letters, and the likeness that the untouched encoder finds.

A few dozen numbers a row, 129 in company (with a stack 51 and 193), that compare two phrases and hardly say which ones
they are. So they are hard to learn by heart and hold on anchors that training has never seen, where the encoder's own
features are weakest. A small network reads them, which is fitted to them alone before the encoder is trained. Its
features join the encoder's (wide and deep: Cheng et al. 2016, arXiv 1606.07792), and its own judgement has a share in
the score, a larger one where it knows more. In a stack (see `stack.py`) readers and judges tell it what they find, too.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from patsim_utils import company, encoder, ordinal, packing
from patsim_utils.data import RATINGS
from patsim_utils.ordinal import OrdinalHead
from patsim_utils.packing import Pairs

EVIDENCE = ("none", "words", "pieces", "all", "group")
WORDS, ALIGNED = 12, 7  # numbers of `words`, and of each level of `Similarity`
ROWS = 512  # compared at a time, about: bounds the memory for the states of their phrases
PHRASES = 64  # read at a time
LONGEST_TITLE = 64  # tokens of a class text that are compared


def share(kind: str, *, stacked: bool) -> float:
    """The part of the score that the evidence's own judgement makes: the best on validation, of a few."""
    if stacked:
        return 1 / 2
    return 1 / 3 if kind == "group" else 1 / 5


def words(pairs: Pairs) -> np.ndarray:
    """Shares of words, word stems and letters that two phrases have in common: (n, WORDS) float32, about 0 to 1."""
    parts = [(phrase.split(), {word[:4] for word in phrase.split()}, _trigrams(phrase)) for phrase in pairs.phrases]
    rows = [_in_common(*parts[a], *parts[t]) for a, t in zip(pairs.anchor, pairs.target, strict=True)]
    return np.array(rows, dtype=np.float32).reshape(-1, WORDS)


def _in_common(
    a: list[str], a_stems: set[str], a_letters: set[str], t: list[str], t_stems: set[str], t_letters: set[str]
) -> list[float]:
    shared, both = len({*a} & {*t}), len(a_letters & t_letters)
    return [
        _jaccard({*a}, {*t}),
        _jaccard(a_stems, t_stems),
        _jaccard(a_letters, t_letters),
        both / len(a_letters),
        both / len(t_letters),
        shared / 4,
        (len(a) - shared) / 4,
        (len(t) - shared) / 4,
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
    """How alike an encoder finds two phrases, as wholes and token by token: (n, size) float32 in [-1, 1].

    By the untouched one: for the word pieces alone (their embeddings less the vocabulary's mean, which takes no more
    than a look-up) and, if it is to `read` the phrases, for the states of the last layer: the cosine of the mean
    tokens; for the tokens of the anchor the cosine of the most alike token of the target, its mean and its least (the
    alignment of BERTScore, Zhang et al. 2020, arXiv 1904.09675); the same for the tokens of the target; the cosines of
    both first and of both last tokens. Where it reads, also the cosines of anchor and of target with the class text.
    Where they are `grouped`, at last where the target stands among those of its group, on each level. `by` another
    encoder: the same for its last layer, (n, read_size).
    """

    def __init__(self, backbone: str, *, layers: int = 0, read: bool, grouped: bool = False) -> None:
        self.tokenizer = encoder.load_tokenizer(backbone)
        model = encoder.load_backbone(backbone, layers=layers).eval().requires_grad_(False)
        pieces = model.get_input_embeddings().weight
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pieces = F.normalize(pieces - pieces.mean(0), dim=-1).to(device)  # (V, W)
        self.model = model.to(device) if read else None
        self.grouped = grouped
        stand = company.STANDING if grouped else 0
        self.read_size = ALIGNED + 2 + stand
        self.size = ALIGNED + stand + (self.read_size if read else 0)

    def __call__(self, pairs: Pairs, groups: Sequence[np.ndarray]) -> Tensor:
        """`groups`: the rows that share anchor and class, every row in one of them."""
        return self._compare(pairs, groups, pieces=True, model=self.model)

    def by(self, model: nn.Module, pairs: Pairs, groups: Sequence[np.ndarray]) -> Tensor:
        """Zeros for the rows of no group."""
        return self._compare(pairs, groups, pieces=False, model=model)

    @torch.inference_mode()
    def _compare(self, pairs: Pairs, groups: Sequence[np.ndarray], *, pieces: bool, model: nn.Module | None) -> Tensor:
        device = self.pieces.device
        found = torch.zeros(len(pairs), self.size if pieces else self.read_size)
        for part in _stretches(sorted(groups, key=lambda rows: pairs.anchor[rows[0]])):  # so an anchor is read once
            rows = np.concatenate(part)
            phrases, ids = np.unique(np.concatenate([pairs.anchor[rows], pairs.target[rows]]), return_inverse=True)
            levels, real = self._states([pairs.tokens[phrase] for phrase in phrases], pieces=pieces, model=model)
            a, t = (torch.from_numpy(half).to(device) for half in np.split(ids, 2))
            columns, wholes = [], [whole_phrases(states, real) for states in levels]
            for states, whole in zip(levels, wholes, strict=True):
                columns += [_cosine(whole[a], whole[t]), *_alignment(states, real, a, t)]
            if model:
                ids, texts = pd.factorize(pairs.text[rows])  # apart, since they are longer than phrases
                tokens = packing.tokenise(self.tokenizer, list(texts), LONGEST_TITLE)
                field = whole_phrases(*read_phrases(tokens, model=model, tokenizer=self.tokenizer))
                field = field[torch.from_numpy(ids).to(field.device)].to(device)
                columns += [_cosine(whole[a], field), _cosine(whole[t], field)]
            numbers = torch.stack(columns, dim=-1)
            if self.grouped:
                ends = np.cumsum([len(group) for group in part])[:-1].tolist()
                parts = list(zip(a.tensor_split(ends), t.tensor_split(ends), strict=True))
                for whole in wholes:
                    stand = [company.standing(whole[a[0]], whole[t]) for a, t in parts]
                    numbers = torch.cat([numbers, torch.cat(stand)], dim=1)
            found[torch.from_numpy(rows)] = numbers.float().cpu()
        return found

    def _states(
        self, phrases: list[list[int]], *, pieces: bool, model: nn.Module | None
    ) -> tuple[list[Tensor], Tensor]:
        """Unit vectors (P, T, W) of the phrases' tokens on each level, and which of them are real: 1 or 0 (P, T)."""
        ids = packing.pad(phrases, packing.PADDING).to(self.pieces.device)
        real = (ids >= 0).float()
        levels = [self.pieces[ids.clamp(min=0)] * real[..., None]] if pieces else []
        if model:
            levels.append(read_phrases(phrases, model=model, tokenizer=self.tokenizer)[0].to(real.device))
        return levels, real


def read_phrases(
    phrases: Sequence[list[int]], *, model: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> tuple[Tensor, Tensor]:
    """Unit vectors (P, T, W) of the tokens of P phrases in the encoder's last layer, each phrase read alone.

    Also which of the tokens are real: 1 or 0 (P, T).
    """
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    real = (packing.pad(phrases, packing.PADDING) >= 0).float().to(model.device)
    found = real.new_zeros(*real.shape, model.config.hidden_size)
    whole = [[cls, *tokens, sep] for tokens in phrases]
    for places, batch in encoder.phrase_batches(whole, tokenizer=tokenizer, batch_size=PHRASES):
        states = F.normalize(model(**batch.to(model.device)).last_hidden_state[:, 1:-1].float(), dim=-1)
        length = states.shape[1]
        places = places.to(model.device)
        found[places, :length] = states * real[places, :length, None]
    return found, real


def _stretches(groups: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Neighbouring groups, of about ROWS rows together."""
    ends = np.cumsum([len(rows) for rows in groups]) // ROWS
    for _, part in itertools.groupby(zip(ends, groups, strict=True), key=lambda each: each[0]):
        yield [rows for _, rows in part]


def whole_phrases(states: Tensor, real: Tensor) -> Tensor:
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


class Evidence(nn.Module):
    """Phrases -> numbers (`of`) -> features of a row (N, width) and a judgement, through two hidden layers.

    `kind`: "words"; "pieces" with the similarity of word pieces; "all" with that of the untouched backbone's last
    layer, too (of its lowest `layers` where not 0); "group" also says how a target's numbers differ from those of the
    other targets of its anchor in its class, and where it stands among them (see `company.py`), so that a score depends
    on its company. That backbone is read from where it came, not saved with the model.

    `readers`: how many encoders also say how alike they find the phrases, each tuned on the training pairs without a
    part of their anchors; with "all" and "group" only. `opinions`: how many numbers the judges of a stack add.

    `ratings`: whether it learns to tell data.RATINGS apart, too, which its judgement is then half made of.
    """

    width = 128

    def __init__(
        self,
        kind: str,
        *,
        backbone: str,
        layers: int = 0,
        ratings: bool = False,
        readers: int = 0,
        opinions: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.grouped = kind == "group"
        self.share = share(kind, stacked=readers > 0)
        self.opinions = opinions
        self.similarity = None
        if kind != "words":
            self.similarity = Similarity(backbone, layers=layers, read=kind != "pieces", grouped=self.grouped)
        self.readers = nn.ModuleList(encoder.load_backbone(backbone, layers=layers) for _ in range(readers))
        size = WORDS + (self.similarity.size if self.similarity else 0)
        size += (self.similarity.read_size if readers else 0) + opinions
        size = 2 * (size + 2 * company.STANDING) + 1 if self.grouped else size
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
        self.head = OrdinalHead(self.width)
        self.rating_head = nn.Linear(self.width, len(RATINGS)) if ratings else None

    def of(self, pairs: Pairs, *, unseen: np.ndarray | None = None, opinions: Tensor | None = None) -> Tensor:
        """The numbers (n, size) of all rows, float32 on the CPU.

        `unseen` (n,): for training rows, the reader that has not seen the row's anchor and so compares its phrases;
        those of other rows are compared by all readers, and their numbers averaged. `opinions`: of the judges (n, K).

        A group of more than ROWS is taken in parts, since the work of comparing its targets grows with their square.
        """
        groups = [part for rows in pairs.groups() for part in np.array_split(rows, -(-len(rows) // ROWS))]
        numbers = torch.from_numpy(words(pairs))
        if self.similarity:
            numbers = torch.cat([numbers, self.similarity(pairs, groups)], dim=1)
        if self.readers:
            numbers = torch.cat([numbers, self._by_readers(pairs, groups, unseen)], dim=1)
        if opinions is not None:
            numbers = torch.cat([numbers, opinions], dim=1)
        if not self.grouped:
            return numbers
        for parts in (str.split, _trigrams):
            stand = numbers.new_empty(len(numbers), company.STANDING)
            for rows in groups:
                phrases = pairs.phrases[[pairs.anchor[rows[0]], *pairs.target[rows]]]
                vectors = company.bags([set(parts(phrase)) for phrase in phrases])
                stand[torch.from_numpy(rows)] = company.standing(vectors[0], vectors[1:])
            numbers = torch.cat([numbers, stand], dim=1)
        return company.among(numbers, groups)

    def _by_readers(self, pairs: Pairs, groups: Sequence[np.ndarray], unseen: np.ndarray | None) -> Tensor:
        found = torch.zeros(len(pairs), self.similarity.read_size)
        for place, reader in enumerate(self.readers):
            reader.eval()  # it is a part of a model that may be in training
            if unseen is None:
                found += self.similarity.by(reader, pairs, groups) / len(self.readers)
            else:
                own = [rows for rows in groups if unseen[rows[0]] == place]
                found += self.similarity.by(reader, pairs, own)
        return found

    def standardise(self, numbers: Tensor) -> None:
        """Takes mean and deviation of training's numbers (n, size) as its unit from now on."""
        self.mean.copy_(numbers.mean(0))
        self.deviation.copy_(numbers.std(0).clamp(min=1e-3))

    def forward(self, numbers: Tensor) -> Tensor:
        return self.network((numbers - self.mean) / self.deviation)

    @torch.inference_mode()
    def score(self, numbers: Tensor) -> np.ndarray:
        """Scores (n,) in [0, 1] of its own judgement, without any encoder; of a network that is in eval mode."""
        features = self(numbers.to(self.mean.device))
        return self.above(features).mean(-1).double().cpu().numpy()

    def above(self, features: Tensor) -> Tensor:
        """Its own judgement: P(rank > k) (N, 4) float32 from its features (N, width)."""
        return ordinal.above(self.head(features), self.rating_head(features) if self.rating_head else None)
