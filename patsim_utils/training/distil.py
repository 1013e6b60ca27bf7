"""Distillation: a teacher labels pairs that nobody rated, and a smaller, faster student learns from them as well.

What a small model may lack is anchors: the data has 733 in training. New ones are phrases of the training data that are
no anchor yet, each in the class of its pair, and, where the official CPC title list is given, what its groups are
called. About sixteen candidates are mined for each: the nearest phrases, the nearest of the class, other targets of its
group, and random ones. The nearest four are paired with it in a second class as well, so that a student learns what a
class changes. The held-out anchors are never mined.

The student learns rated pairs by the method's own loss, and labelled pairs from the teacher's probabilities
(Hinton et al. 2015, arXiv 1503.02531). Variants of phrases are labelled as the same, and phrases
with one word exchanged for its opposite as antonyms (`data.variants`).
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.variants import opposite, other_spelling, variants
from patsim_utils.errors import InputError, named
from patsim_utils.method import backbones, encoder
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights import folders
from patsim_utils.ratings import TEACHER_COLUMNS
from patsim_utils.training.fit import fit

# How many candidates of each kind are mined for a new anchor.
NEAREST = 4
NEAR_DRAWN = 3  # at random of the NEAR_POOL phrases that follow the nearest
NEAR_POOL = 36
NEAREST_OF_CLASS = 2
OF_GROUP = 3
RANDOM_OF_CLASS = 3

SHARD = 200  # anchors that are labelled at a time; a kill costs at most one shard


class Miner:
    """Draws candidates for new anchors from the phrases of rated pairs."""

    def __init__(
        self, train: pd.DataFrame, *, excluded: Iterable[str], backbone: str = "minilm", seed: int = 0
    ) -> None:
        """
        Args:
            train: rated pairs with anchor, target, context.
            excluded: phrases that are neither an anchor nor a candidate: the anchors of what is held out.
            backbone: the pretrained encoder whose cosine says what is near.
            seed: of the random candidates.
        """
        self.generator = np.random.default_rng(seed)
        kept = {*train["anchor"], *train["target"]} - {*excluded}
        self.phrases = np.array(sorted(kept), dtype=object)
        self.number = {phrase: number for number, phrase in enumerate(self.phrases)}
        model = encoder.load_backbone(backbone).eval()
        tokenizer = encoder.load_tokenizer(backbone)
        self.vectors = encoder.sentence_vectors(list(self.phrases), tokenizer=tokenizer, model=model).numpy()
        self.of_class = {context: self._numbers(targets) for context, targets in train.groupby("context")["target"]}
        self.of_group = {group: self._numbers(rows) for group, rows in train.groupby(["anchor", "context"])["target"]}

    def _numbers(self, targets: pd.Series) -> np.ndarray:
        return np.array(sorted({self.number[target] for target in targets if target in self.number}), dtype=np.int64)

    def candidates(self, phrase: str, *, source_anchor: str, context: str) -> list[str]:
        """The mined candidates of one new anchor, each once; `source_anchor` is the anchor that it was a target of."""
        own = self.number[phrase]
        similarity = self.vectors @ self.vectors[own]
        near = self._nearest(similarity, NEAREST + NEAR_POOL + 1, without=own)
        of_class = self.of_class[context]
        near_in_class = of_class[np.argsort(-similarity[of_class])]
        near_in_class = near_in_class[~np.isin(near_in_class, [own, *near[:NEAREST]])]
        numbers = [
            *near[:NEAREST],
            *self._draw(near[NEAREST : NEAREST + NEAR_POOL], NEAR_DRAWN),
            *near_in_class[:NEAREST_OF_CLASS],
            *self._draw(self.of_group[source_anchor, context], OF_GROUP),
            *self._draw(of_class, RANDOM_OF_CLASS),
            self.generator.integers(len(self.phrases)),
        ]
        if source_anchor in self.number:
            numbers.append(self.number[source_anchor])
        return [self.phrases[number] for number in dict.fromkeys(numbers) if number != own]

    def _nearest(self, similarity: np.ndarray, count: int, *, without: int) -> np.ndarray:
        count = min(count, len(similarity) - 1)
        numbers = np.argpartition(-similarity, count)[:count]
        numbers = numbers[np.argsort(-similarity[numbers])]
        return numbers[numbers != without]

    def _draw(self, numbers: np.ndarray, count: int) -> np.ndarray:
        return self.generator.choice(numbers, min(count, len(numbers)), replace=False)


def mine(
    train: pd.DataFrame, *, excluded: Iterable[str], anchors: int, titles: pd.DataFrame | None = None, seed: int = 0
) -> pd.DataFrame:
    """Unrated pairs of `anchors` new anchors, about sixteen each and four in a second class: anchor, target, context.

    `titles`: what CPC groups are called, as `of_titles` has it; half of the new anchors are of these.
    """
    excluded = {*excluded}
    known = excluded | {*train["anchor"]}
    if titles is None:
        sources = train
        new = _new_anchors(train, anchors, known=known, seed=seed)
    else:
        sources = pd.concat([train, titles], ignore_index=True)
        of_train = _new_anchors(train, anchors - anchors // 2, known=known, seed=seed)
        of_titles = _new_anchors(titles, anchors // 2, known=known | {*train["target"]}, seed=seed)
        new = pd.concat([of_train, of_titles], ignore_index=True)
    miner = Miner(sources, excluded=excluded, seed=seed)
    classes = sorted(train["context"].unique())
    rows = []
    for phrase, source_anchor, context in new[["target", "anchor", "context"]].itertuples(index=False):
        candidates = miner.candidates(phrase, source_anchor=source_anchor, context=context)
        rows += [(phrase, candidate, context) for candidate in candidates]
        second = classes[miner.generator.integers(len(classes))]
        if second != context:
            rows += [(phrase, candidate, second) for candidate in candidates[:NEAREST]]
    return pd.DataFrame(rows, columns=["anchor", "target", "context"])


def _new_anchors(pairs: pd.DataFrame, count: int, *, known: set[str], seed: int) -> pd.DataFrame:
    """Pairs whose targets are new anchors: at most `count`, each target once and none of `known`."""
    new = pairs[~pairs["target"].isin(known)].drop_duplicates("target")
    return new.sample(n=min(count, len(new)), random_state=seed)


def of_titles(path: Path, train: pd.DataFrame) -> pd.DataFrame:
    """What groups of the official CPC title list are called, in the classes of `train`, as pairs that can be mined.

    Columns: anchor (what the group above is called), target (what the group is called), context.
    """
    titles = pd.DataFrame(cpc.title_phrases(path), columns=["anchor", "target", "context"])
    return titles[titles["context"].isin(train["context"])]


def label(teachers: Sequence[Matcher], pairs: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The pairs with TEACHER_COLUMNS: the mean of the teachers' probabilities.

    Anchors are labelled SHARD at a time into `folder`; a shard that is there is not labelled again, so that a killed
    labelling goes on where it was. `folder` belongs to these teachers and pairs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shard_of_anchor = pd.factorize(pairs["anchor"])[0] // SHARD
    shards = []
    for number, shard in pairs.groupby(shard_of_anchor):
        path = folder / f"{number:04}.csv"
        if not path.is_file():
            labels = np.mean([_probabilities(teacher, shard) for teacher in teachers], axis=0)
            labelled = shard.assign(**dict(zip(TEACHER_COLUMNS, labels.T.round(4), strict=True)))
            storage.write_text(path, labelled.to_csv(index=False))
            print(f"labelled: {number + 1} of {shard_of_anchor.max() + 1} parts", flush=True)
        shards.append(pd.read_csv(path, keep_default_na=False))
    return pd.concat(shards, ignore_index=True)


def _probabilities(teacher: Matcher, pairs: pd.DataFrame) -> np.ndarray:
    """TEACHER_COLUMNS (n, 14) by one teacher: P(rank > k), with its regressor if it has one, and its ratings."""
    predictions = teacher.predictions(pairs)
    above = predictions.logits.double().sigmoid()
    ratings = predictions.rating_logits.double().softmax(-1)
    return torch.cat([above, ratings], dim=-1).numpy()


def student_rows(
    train: pd.DataFrame, labelled: pd.DataFrame, *, excluded: Iterable[str], seed: int = 0
) -> pd.DataFrame:
    """What a student is trained on: rated pairs, labelled pairs, and pairs that `by_rule` makes.

    TEACHER_COLUMNS are NaN but for labelled pairs. Score 0 and rating "0" of those are placeholders: the loss of a
    labelled pair reads its TEACHER_COLUMNS alone.
    """
    excluded = {*excluded}
    new_anchors = labelled[["anchor", "context"]].drop_duplicates()
    targets = train[["target", "context"]].rename(columns={"target": "anchor"}).drop_duplicates("anchor")
    targets = targets[~targets["anchor"].isin([*train["anchor"], *excluded])]
    has_opposite = targets["anchor"].map(opposite).notna()
    has_spelling = targets["anchor"].map(other_spelling).notna()
    phrases = pd.concat([new_anchors, targets[has_opposite | has_spelling]]).drop_duplicates()
    made = by_rule(phrases, excluded=excluded, seed=seed)
    labelled = labelled.assign(score=0.0, rating="0")
    unrated = pd.concat([made, labelled]).drop_duplicates(["anchor", "target", "context"])
    return pd.concat([train, unrated], ignore_index=True)


def by_rule(phrases: pd.DataFrame, *, excluded: set[str], seed: int) -> pd.DataFrame:
    """A variant and the opposite of each phrase that has them: anchor, target, context, score, rating.

    `phrases`: columns anchor, context. A variant is rated "4" (the same), an opposite "1a".
    """
    generator = np.random.default_rng(seed)
    rows = []
    for anchor, context in phrases[["anchor", "context"]].itertuples(index=False):
        texts = variants(anchor)
        kinds = ["spelling"] if "spelling" in texts else [*texts]
        if kinds:
            variant = texts[kinds[generator.integers(len(kinds))]]
            rows.append((anchor, variant, context, 1.0, "4"))
        other = opposite(anchor)
        if other is not None:
            rows.append((anchor, other, context, 0.25, "1a"))
    made = pd.DataFrame(rows, columns=["anchor", "target", "context", "score", "rating"])
    return made[~made["target"].isin(excluded)]


def distil(
    splits: dict[str, pd.DataFrame],
    config: Config,
    teachers: Sequence[Path],
    folder: Path,
    *,
    anchors: int,
    titles: Path | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Trains a student in the run folder `folder` on `splits["train"]` and `anchors` new anchors; returns its metrics.

    `titles`: the official CPC title list; half of the new anchors are what its groups are called. Labels lie in
    `.<name>.labels` beside the run, for a training that is killed or repeated with other settings; labels of other
    teachers or pairs are deleted.

    Raises:
        InputError: a teacher is no model, or has learned no ratings; the title list cannot be read; what `fit` raises.
    """
    matchers = [Matcher.load(teacher) for teacher in teachers]
    for teacher, matcher in zip(teachers, matchers, strict=True):
        if matcher.network.rating_head is None:
            raise InputError(f"--teacher {named(teacher)}: has learned no ratings (rating_weight 0)")
    held_out = [frame["anchor"] for name, frame in splits.items() if name != "train"]
    excluded = set(pd.concat(held_out))
    phrases = None
    if titles:
        phrases = of_titles(titles, splits["train"])
    pairs = mine(splits["train"], excluded=excluded, anchors=anchors, titles=phrases, seed=config.seed)
    labels = folder.with_name(f".{folder.name}.labels")
    with storage.lock(storage.companion(labels, "lock"), f"labels of run {folder.name}"):
        labelled = label(matchers, pairs, _label_folder(folder, teachers, pairs))
    rows = student_rows(splits["train"], labelled, excluded=excluded, seed=config.seed)
    print(f"{len(splits['train']):,} rated pairs, {len(rows):,} with those that the teacher labelled", flush=True)
    return fit(splits | {"train": rows}, config, folder, replace=replace)


def _label_folder(folder: Path, teachers: Sequence[Path], pairs: pd.DataFrame) -> Path:
    """Where the labels of these pairs by these teachers lie; labels of others are deleted."""
    labels = folder.with_name(f".{folder.name}.labels")
    identity = "".join(backbones.identity(folders.find(teacher)) for teacher in teachers)
    identity = hashlib.sha256(identity.encode() + pairs.to_csv(index=False).encode()).hexdigest()
    labels.mkdir(parents=True, exist_ok=True)
    for other in labels.iterdir():
        holds_labels = other.is_dir() and re.fullmatch(r"[0-9a-f]{64}", other.name)
        if holds_labels and other.name != identity:
            shutil.rmtree(other)
    return labels / identity
