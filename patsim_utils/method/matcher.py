"""A trained model and what one does with it: score, explain and rank pairs; save and load it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.pairs import check_pairs
from patsim_utils.errors import InputError, clip
from patsim_utils.layouts import positions
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.method import adapters, encoder, ordinal
from patsim_utils.method.features import Regressor
from patsim_utils.method.for_class import ForClass
from patsim_utils.method.model import Network
from patsim_utils.ratings import RANKS, RATINGS, SCORES

FORMAT = 3  # of a model folder
FORMER_FORMAT = 2  # whose layout `packed` had a [SEP] behind each target; its other models are read as they are
CONTEXT_TOKENS = {"title": 8, "whole_title": 64, "code": 8, "none": 0}  # that are read of a class text
BATCH_TOKENS = {"cuda": 8192, "cpu": 2048}  # of a batch in scoring; larger ones outgrow a CPU's caches
Progress = Callable[[int, int], None]  # called with the rows that are done and all rows


@dataclass
class Predictions:
    """What a model says of n rows, in their order."""

    logits: Tensor  # cumulative logits of P(rank > k) (n, 4) float32
    rating_logits: Tensor | None  # of RATINGS (n, 10) float32; None where the model has not learned them

    @property
    def scores(self) -> np.ndarray:
        """Expected scores (n,) in [0, 1]."""
        return ordinal.score(self.logits.double()).numpy()

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of each of the scores 0, .25, .5, .75, 1: (n, 5), rows sum to 1."""
        return ordinal.probabilities(self.logits.double()).numpy()

    @property
    def ratings(self) -> pd.DataFrame | None:
        """Probability of each of RATINGS (n, 10), such as hyponym or antonym; None where they were not learned."""
        if self.rating_logits is None:
            return None
        return pd.DataFrame(self.rating_logits.double().softmax(-1).numpy(), columns=list(RATINGS))


class Matcher:
    """Anchor, target and CPC class in, a score in [0, 1] and a probability of each rank out.

    Attributes: `network`, the torch module; `tokenizer`; `config`, the settings it was made with; `titles`, the class
    text of each CPC code; `regressor` of the similarity features, None before the end of a training and where the
    configuration has none.
    """

    def __init__(
        self,
        config: Config,
        *,
        titles: dict[str, str] | None = None,
        network: Network | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """A model whose encoder is pretrained and whose heads are new, unless `network` and `tokenizer` are given.

        `titles`: class text of each code; by default those that `config.cpc_titles` names, else the built-in ones.
        InputError where the backbone is not there, or does not suit the configuration.
        """
        self.config = config
        self.titles = titles or cpc.titles(config.cpc_titles or None)
        self.tokenizer = tokenizer or encoder.load_tokenizer(config.backbone)
        self.network = network or self._new_network()
        self.regressor: Regressor | None = None

    def _new_network(self) -> Network:
        backbone = encoder.load_backbone(self.config.backbone, layers=self.config.layers)
        check_backbone(backbone, self.config)
        title_vectors = None
        if self.config.fusion == "graph":  # before the adapter is in: the pretrained encoder reads the titles
            texts = [self.titles[code] for code in cpc.CODES]
            title_vectors = encoder.sentence_vectors(texts, tokenizer=self.tokenizer, model=backbone.eval())
        return Network(adapters.adapt(backbone, self.config), self.config, titles=title_vectors)

    @property
    def device(self) -> torch.device:
        return self.network.device

    def pairs(self, frame: pd.DataFrame, *, unknown: str = "error") -> Pairs:
        """The rows of a checked frame (`data.pairs.check_pairs`), tokenised for this model."""
        titles = self.titles
        if self.config.context_text == "code":
            titles = {code: code.lower() for code in cpc.CODES[1:]}
        return Pairs(
            frame,
            self.tokenizer,
            layout=self.config.layout,
            titles=titles,
            context_tokens=CONTEXT_TOKENS[self.config.context_text],
            longest=encoder.longest_sequence(self.network.encoder),
            unknown=unknown,
        )

    @torch.inference_mode()
    def run(self, pairs: Pairs, *, progress: Progress | None = None) -> Predictions:
        """What the network alone says of all pairs, in their order; without the regressor of similarity features.

        `progress(done, all)` follows every batch. The network is in evaluation mode afterwards.
        """
        if self.network.training:  # a walk over all modules, which takes longer than the scoring of one pair
            self.network.eval()
        predictions = Predictions(torch.zeros(len(pairs), RANKS - 1), None)
        if self.network.rating_head is not None:
            predictions.rating_logits = torch.zeros(len(pairs), len(RATINGS))
        done = 0
        for batch in self._batches(pairs):
            with encoder.autocast(self.config.precision, self.device):
                outputs = self.network({name: tensor.to(self.device) for name, tensor in batch.items()})
            predictions.logits[batch["rows"]] = outputs.logits().cpu()
            if outputs.ratings is not None:
                predictions.rating_logits[batch["rows"]] = outputs.ratings.float().cpu()
            done += len(batch["rows"])
            if progress:
                progress(done, len(pairs))
        return predictions

    def _batches(self, pairs: Pairs) -> Iterator[dict[str, Tensor]]:
        """All rows in batches of at most BATCH_TOKENS, the longest sequences first: memory is known at once."""
        sequences = pairs.sequences()
        lengths = pairs.lengths(sequences)
        order = np.argsort(lengths, kind="stable")[::-1]
        while len(order):
            size = max(1, BATCH_TOKENS[self.device.type] // int(lengths[order[0]]))
            yield pairs.collate([pairs[sequences[i]] for i in order[:size]])
            order = order[size:]

    def predictions(
        self, frame: pd.DataFrame, *, unknown: str = "error", progress: Progress | None = None
    ) -> Predictions:
        """What the model says of the rows of a checked frame: the network and, where there is one, the regressor."""
        predictions = self.run(self.pairs(frame, unknown=unknown), progress=progress)
        if self.regressor:
            predictions.logits = self.regressor.blend(predictions.logits, frame)
        return predictions

    def read(self, frame: pd.DataFrame, *, unknown: str = "error", progress: Progress | None = None) -> Predictions:
        """Scores, probabilities and ratings of each row by one pass of the encoder; arguments as in `score`."""
        frame = check_pairs(frame, unknown=unknown)
        if frame.empty:
            ratings = None if self.network.rating_head is None else torch.zeros(0, len(RATINGS))
            return Predictions(torch.zeros(0, RANKS - 1), ratings)
        return self.predictions(frame, unknown=unknown, progress=progress)

    def score(self, frame: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        """Scores (n,) in [0, 1] for rows of anchor, target, context.

        `unknown`: "embedding" scores a context that is no CPC class, also "", by the text alone; "error" refuses it.
        InputError with the row and column where a value is missing or no text.
        """
        return self.read(frame, unknown=unknown).scores

    def predict(self, pairs: Iterable[tuple[str, str, str]]) -> np.ndarray:
        """Scores (n,) of (anchor, target, class) triples: `score` under the name that a CrossEncoder has for it."""
        return self.score(pd.DataFrame(list(pairs), columns=["anchor", "target", "context"], dtype=object))

    def probabilities(self, frame: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        """Probability (n, 5) of each of the scores 0, .25, .5, .75, 1."""
        return self.read(frame, unknown=unknown).probabilities

    def ratings(self, frame: pd.DataFrame, *, unknown: str = "error") -> pd.DataFrame:
        """Probability of each of RATINGS (n, 10), such as hyponym or antonym: what kind of relation it is."""
        if self.network.rating_head is None:
            raise InputError("this model has not learned ratings: it was trained with rating_weight 0")
        return self.read(frame, unknown=unknown).ratings

    def explain(self, frame: pd.DataFrame, *, unknown: str = "error") -> pd.DataFrame:
        """What the model says of each row: `score`, the probability of each of the five scores (`0` to `1`) and, where
        it has learned ratings, the most probable `rating` with its `probability`.
        """
        predictions = self.read(frame, unknown=unknown)
        table = pd.DataFrame(predictions.probabilities, columns=[f"{score:g}" for score in SCORES])
        table.insert(0, "score", predictions.scores)
        ratings = predictions.ratings
        if ratings is not None:
            table["rating"] = ratings.idxmax(axis=1)
            table["probability"] = ratings.max(axis=1)
        return table

    def rank(
        self,
        query: str,
        candidates: Iterable[str],
        *,
        context: str,
        top_k: int | None = None,
        unknown: str = "error",
    ) -> pd.DataFrame:
        """The best `top_k` candidates by falling score: columns `rank` (from 1), `target` (as given), `score`.

        `unknown` as in `score`: with "embedding" the context may be "".
        """
        if isinstance(candidates, str):
            raise InputError(f"candidates: {clip(candidates)} is one text; needed is a list of phrases")
        targets = pd.Series(list(candidates), dtype=object)
        table = pd.DataFrame({"anchor": query, "target": targets, "context": context})
        table["score"] = self.score(table, unknown=unknown)
        table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True).head(top_k)
        table["rank"] = table.index + 1
        return table[["rank", "target", "score"]]

    def for_class(self, context: str) -> ForClass:
        """`predict` and `rank` as a CrossEncoder has them, for pairs that are compared in this class."""
        return ForClass(self, context)

    def cpc_vectors(self) -> pd.DataFrame:
        """The learned unit vectors, one row a code (without `unknown`, which is zero)."""
        if self.config.fusion == "none":
            raise InputError("fusion 'none' has learned no CPC vectors")
        with torch.inference_mode():
            vectors = self.network.fusion.embedding(torch.arange(1, len(cpc.CODES), device=self.device))
        return pd.DataFrame(vectors.cpu().numpy(), index=pd.Index(cpc.CODES[1:], name="code"))

    def save(self, folder: Path) -> None:
        """Writes matcher.json, encoder/config.json, tokenizer/ and model.safetensors (all weights, nothing pickled)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network.encoder.config.save_pretrained(folder / "encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        adapters.save_weights(self.network, folder / "model.safetensors")
        if self.regressor:
            self.regressor.save(folder / "features")
        note = {"format": FORMAT, "config": self.config.model_dump(exclude={"data"}), "codes": cpc.CODES}
        note |= {"titles": self.titles, "sha256": _digests(folder)}
        (folder / "matcher.json").write_text(json.dumps(note, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The model in a run folder, or in the model folder that `save` wrote; runs no code that the folder holds.

        It is there to score: a LoRA update is merged into its weights, which saves the update's own products.
        InputError where there is no model, or a part of it is missing, damaged or of another version.
        """
        folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
        config, titles = _read_note(folder, path)
        backbone = encoder.load_backbone(str(folder / "encoder"), weights=False)
        check_backbone(backbone, config)
        weights = folder / "model.safetensors"
        state = adapters.read_tensors(weights)
        if config.adapter == "hyperlora":  # whose update is another one for each class
            backbone = adapters.adapt(backbone, config)
        else:
            scaling = config.lora_alpha / config.lora_rank
            state = adapters.merge(adapters.plain_names(state), scaling=scaling, source=weights)
        network = Network(backbone, config, titles=torch.zeros(len(cpc.CODES), backbone.config.hidden_size))
        adapters.fill(network, state, source=weights)
        network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        tokenizer = encoder.load_tokenizer(str(folder / "tokenizer"))
        matcher = cls(config, titles=titles, network=network, tokenizer=tokenizer)
        if config.features != "none":
            matcher.regressor = Regressor.load(folder / "features", config.features, precision=config.precision)
        return matcher


def check_backbone(backbone: torch.nn.Module, config: Config) -> None:
    """InputError where an encoder does not suit the settings of contrast layer or layout."""
    layers = backbone.config.num_hidden_layers
    if config.contrast_weight and config.contrast_layer > layers:
        raise InputError(f"parameter contrast_layer: {config.contrast_layer} is not in 0..{layers} of this backbone")
    positions.check(backbone, config.layout)


def _read_note(folder: Path, path: str | Path) -> tuple[Config, dict[str, str]]:
    """Settings and titles of matcher.json in a model folder, `path` being where the user said that it is."""
    note_path = folder / "matcher.json"
    try:
        note = json.loads(note_path.read_text(encoding="utf-8"))
        version = note["format"], tuple(note["codes"])
        settings, titles, digests = (dict(note[name]) for name in ("config", "titles", "sha256"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no model here; `make study` trains one into runs/sample") from error
    except OSError as error:
        raise InputError(f"{note_path}: may not be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{note_path}: is damaged, or of another version of patsim") from error
    if version not in ((FORMAT, cpc.CODES), (FORMER_FORMAT, cpc.CODES)):
        raise InputError(f"{folder}: the model was written by another version of patsim")
    if note["format"] == FORMER_FORMAT and settings.get("layout") == "packed":
        start = f"{folder}: the model was written by another version of patsim"
        raise InputError(f"{start}, whose layout 'packed' was another one; train it again")
    if _digests(folder) != digests:
        raise InputError(f"{folder}: a file of tokenizer/ or encoder/ is missing or was changed")
    if titles.keys() != {*cpc.CODES} or not all(isinstance(text, str) for text in titles.values()):
        raise InputError(f"{note_path}: its titles are not those of the CPC codes")
    return Config.parse(settings, source=str(note_path)), titles


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of the small files of a model folder, by their path in it."""
    files = sorted(path for part in ("encoder", "tokenizer") for path in (folder / part).glob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
