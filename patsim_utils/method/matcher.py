"""A trained model and what one does with it: score, explain and rank pairs; save and load it.

"Rank" has three meanings here: 0 to 4 of a pair (its score is a quarter of that), the place in a list
(`Matcher.rank`), and the size of a low-rank update (`Matcher.save(rank=)`, `config.lora_rank`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import pandas as pd
from numpy import ndarray

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.pairs import KEY, check_pairs, is_one_phrase
from patsim_utils.errors import InputError, clip
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.layouts.tokens import AnyTokenizer
from patsim_utils.method import encoder, model
from patsim_utils.method.features import Regressor
from patsim_utils.method.for_class import ForClass
from patsim_utils.method.model import Network, Predictions, Progress
from patsim_utils.method.weights import folders

# Tokens that are read of a class text
CONTEXT_TOKENS = {"title": 8, "whole_title": 64, "code": 8, "none": 0}


class Matcher:
    """Anchor, target and CPC class in, a score in [0, 1] and a probability of each rank out.

    Equal phrases are the same by definition: a pair whose normalised anchor and target differ in
    spaces, hyphens and American spelling at most has score 1, whatever the network says of it.

    Attributes:
        network: the torch module.
        tokenizer: of its encoder.
        config: the settings that it was made with.
        titles: the class text of each CPC code.
        regressor: of the similarity features, which reads an encoder of its own; None where there
            are none. Its probabilities are blended into scores, not into ratings.
    """

    def __init__(
        self,
        config: Config,
        *,
        titles: dict[str, str] | None = None,
        network: Network | None = None,
        tokenizer: AnyTokenizer | None = None,
    ) -> None:
        """A model to be trained: its encoder is pretrained, its heads are new.

        `titles`: by default those that `config.cpc_titles` names, else the built-in ones. With
        `network` and `tokenizer` it is a trained model. InputError where the backbone is not
        there, or does not suit the configuration.
        """
        self.config = config
        self.titles = titles or cpc.titles(config.cpc_titles or None)
        self.tokenizer = tokenizer or encoder.load_tokenizer(config.backbone)
        self.network = network or model.new_network(config, self.tokenizer, self.titles)
        self.regressor: Regressor | None = None

    def pairs(self, frame: pd.DataFrame, *, unknown: str = "error") -> Pairs:
        """The rows of a checked frame (`data.pairs.check_pairs`), tokenised for this model."""
        return Pairs(frame, self.tokenizer, unknown=unknown, **self.settings_of_pairs())

    def settings_of_pairs(self) -> dict[str, Any]:
        """How `Pairs` reads rows for this model."""
        return {
            "layout": self.config.layout,
            "titles": class_texts(self.config, self.titles),
            "context_tokens": CONTEXT_TOKENS[self.config.context_text],
            "longest": encoder.longest_sequence(self.network.encoder),
        }

    def run(self, pairs: Pairs, *, progress: Progress | None = None) -> Predictions:
        """What the network alone says of all pairs; `progress` as in `model.run`."""
        return model.run(self.network, pairs, precision=self.config.precision, progress=progress)

    def predictions(
        self, frame: pd.DataFrame, *, unknown: str = "error", progress: Progress | None = None
    ) -> Predictions:
        """What network and regressor say of a checked frame, also of equal phrases."""
        predictions = self.run(self.pairs(frame, unknown=unknown), progress=progress)
        if self.regressor:
            predictions.logits = self.regressor.blend(predictions.logits, frame)
        return predictions

    def read(self, frame: pd.DataFrame, *, unknown: str = "error", progress: Progress | None = None) -> Predictions:
        """Scores, probabilities and ratings, for which each row is read once; arguments as in `score`."""
        frame = check_pairs(frame, unknown=unknown)
        if frame.empty:
            return Predictions.zeros(0, with_ratings=self.network.rating_head is not None)
        predictions = self.predictions(frame, unknown=unknown, progress=progress)
        return predictions.with_equal(is_one_phrase(frame["anchor"], frame["target"]))

    def score(self, frame: pd.DataFrame, *, unknown: str = "error") -> ndarray:
        """Scores (n,) in [0, 1] for rows of anchor, target, context; 1 where the phrases are equal.

        A score depends on the other rows only with the features "group" (`config.listwise`): on
        those of its anchor and class.

        `unknown`: "embedding" scores a context that is no CPC class, also "", by the text alone;
        "error" refuses it. InputError with row and column of a value that is missing or no text.
        """
        return self.read(frame, unknown=unknown).scores

    def predict(self, pairs: Iterable[tuple[str, str, str]]) -> ndarray:
        """`score` of (anchor, target, class) triples, under the name that a CrossEncoder has."""
        return self.score(frame_of(pairs))

    def probabilities(self, frame: pd.DataFrame, *, unknown: str = "error") -> ndarray:
        """Probability of each of the scores 0, .25, .5, .75, 1: (n, 5)."""
        return self.read(frame, unknown=unknown).probabilities

    def ratings(self, frame: pd.DataFrame, *, unknown: str = "error") -> pd.DataFrame:
        """Probability of each of RATINGS (n, 10): what kind of relation it is."""
        if self.network.rating_head is None:
            raise InputError("this model was trained with rating_weight 0: it has not learned ratings")
        return self.read(frame, unknown=unknown).ratings

    def explain(self, frame: pd.DataFrame, *, unknown: str = "error") -> pd.DataFrame:
        """What the model says of each row, as `Predictions.table`; of equal phrases it is certain."""
        return self.read(frame, unknown=unknown).table()

    def rank(
        self, query: str, candidates: Iterable[str], *, context: str, top_k: int | None = None, unknown: str = "error"
    ) -> pd.DataFrame:
        """The best `top_k` candidates by falling score.

        With the features "group", a score depends on the other candidates.
        Columns: `rank` (from 1), `target` (as it came), `score`. `unknown` as in `score`: with
        "embedding" the context may be "".
        """
        table = candidates_of(query, candidates, context)
        table["score"] = self.score(table, unknown=unknown)
        table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
        return table.assign(rank=table.index + 1)[["rank", "target", "score"]].head(top_k)

    def for_class(self, context: str) -> ForClass:
        """`predict` and `rank` as a CrossEncoder has them, for pairs in this class."""
        return ForClass(self, context)

    def cpc_vectors(self) -> pd.DataFrame:
        """The learned class vectors, one row per code; InputError where the fusion has none."""
        return self.network.fusion.vectors()

    def compressed(self, rank: int = 64) -> Self:
        """The model that `save(folder, form="adapter", rank=rank)` and `load` would give back."""
        network = folders.compressed(self.config, self.network, svd_rank=rank)
        matcher = type(self)(self.config, titles=self.titles, network=network, tokenizer=self.tokenizer)
        matcher.regressor = self.regressor
        return matcher

    def save(self, folder: str | Path, *, form: str = "auto", rank: int = 64) -> None:
        """Writes a model folder of a `form`; for form and rank (there `svd_rank`) see `folders.write`.

        A model that was loaded has no LoRA any more, since `load` merges it: by "auto" its form is
        "full", and "adapter" keeps an approximation of it in float16.
        """
        folders.write(Path(folder), self, form=form, svd_rank=rank)

    @classmethod
    def load(cls, path: str | Path = "small") -> Self:
        """A model to score with, of a run folder, a model folder, or one that ships.

        LoRA is merged into the weights, except HyperLoRA's.
        `path`: "small" and "large" are the models that ship. No code in the folder is run.
        InputError where there is no model, or a part of it is missing, damaged or too new.
        """
        folder = folders.find(path)
        note = folders.read_note(folder)
        network, tokenizer = folders.read(folder, note)
        matcher = cls(note.config, titles=note.titles, network=network, tokenizer=tokenizer)
        if note.config.features != "none":
            matcher.regressor = Regressor.load(folder / folders.FEATURES, note.config)
        return matcher


def class_texts(config: Config, titles: dict[str, str]) -> dict[str, str]:
    """What is read of each class: its title, or its code in lower case."""
    if config.context_text == "code":
        return {code: code.lower() for code in cpc.CODES[1:]}
    return titles


def candidates_of(query: str, candidates: Iterable[str], context: str) -> pd.DataFrame:
    """A row for each candidate, in the order in which they came."""
    if isinstance(candidates, str):
        text = clip(candidates)
        raise InputError(f"candidates: {text} is one text; needed is a list of phrases")
    targets = pd.Series(list(candidates), dtype=object)
    return pd.DataFrame({"anchor": query, "target": targets, "context": context})


def frame_of(pairs: Iterable[tuple[str, str, str]]) -> pd.DataFrame:
    """The rows of a list of triples; InputError where it is something else."""
    if isinstance(pairs, pd.DataFrame):
        raise InputError("pairs: is a DataFrame; `score` takes one, `predict` a list of triples")
    rows = list(pairs)
    for row in rows:
        if isinstance(row, str):
            need = "a list of (anchor, target, class) triples"
            raise InputError(f"pairs: {clip(row)} is a text; needed is {need}")
        if not hasattr(row, "__len__") or len(row) != len(KEY):
            need = "an anchor, a target and a CPC class"
            raise InputError(f"pairs: {clip(row)} is no triple; {need} are needed")
    return pd.DataFrame(rows, columns=KEY, dtype=object)
