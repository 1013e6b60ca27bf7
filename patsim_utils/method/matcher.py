"""The model: tokens + CPC vector -> encoder -> span features -> ordinal head, with saving, loading and scoring."""

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import torch
from torch import Tensor, nn

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.pairs import check_pairs
from patsim_utils.errors import InputError, clip
from patsim_utils.layouts import positions
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.method import encoder, ordinal
from patsim_utils.method.features import Regressor
from patsim_utils.method.fusion import Fusion, RankScale
from patsim_utils.method.model import CONTEXT_TOKENS, Output, span_mean
from patsim_utils.method.ordinal import OrdinalHead, small_network
from patsim_utils.ratings import RANKS, RATINGS, SCORES

FORMAT = 2  # of a model folder; a folder of another one is refused
LIST_SHUFFLES = 4  # orders of a group over which a `listwise` score is averaged
# Targets of a sequence in scoring, at most: attention grows with their square, the prefix is read once a sequence.
TARGETS = {"pair": 1, "packed": 64, "compact": 64, "repeated": 32, "listwise": 128}


class Matcher(nn.Module):
    """Anchor, target and CPC class in, a score in [0, 1] and a probability of each rank out."""

    def __init__(self, config: Config, *, titles: dict[str, str] | None = None, folder: Path | None = None) -> None:
        """A model with a pretrained encoder; InputError where that is not there, or does not suit the configuration.

        `titles`: class text of each code, kept with the model. `folder`: of a saved model, whose encoder's shape and
        tokenizer are taken; its weights are loaded afterwards.
        """
        super().__init__()
        self.settings = config  # `config` would be taken for an encoder's by the Trainer
        self.titles = titles or cpc.titles(config.cpc_titles or None)
        if folder:
            backbone = encoder.load_backbone(str(folder / "encoder"), weights=False)
            self.tokenizer = encoder.load_tokenizer(str(folder / "tokenizer"))
        else:
            backbone = encoder.load_backbone(config.backbone, layers=config.layers)
            self.tokenizer = encoder.load_tokenizer(config.backbone)
        layers, width = backbone.config.num_hidden_layers, backbone.config.hidden_size
        if config.contrast_weight and config.contrast_layer > layers:
            found = f"parameter contrast_layer: {config.contrast_layer}"
            raise InputError(f"{found} is not in 0..{layers} of this backbone")
        positions.check(backbone, config.layout)
        vectors = torch.zeros(len(cpc.CODES), width)
        if config.fusion == "graph" and not folder:  # before the adapter is in: the pretrained backbone reads them
            texts = [self.titles[code] for code in cpc.CODES]
            vectors = encoder.sentence_vectors(texts, tokenizer=self.tokenizer, model=backbone.eval())
        self.backbone = encoder.adapt(backbone, config)
        self.fusion = Fusion(config.fusion, width=width, titles=vectors)
        self.hyperlora = RankScale(self.encoder) if config.adapter == "hyperlora" else None
        self.head = OrdinalHead(4 * width)
        self.rating_head = small_network(4 * width, len(RATINGS)) if config.rating_weight else None
        self.regressor: Regressor | None = None  # of similarity features; comes with a finished run only

    @property
    def encoder(self) -> nn.Module:
        """The encoder itself, with LoRA layers in place but without their wrapper."""
        return self.backbone.base_model.model if isinstance(self.backbone, peft.PeftModel) else self.backbone

    @property
    def device(self) -> torch.device:
        return self.head.first.device

    def forward(self, batch: dict[str, Tensor]) -> Output:
        tokens = self.encoder.get_input_embeddings()(batch["input_ids"])  # (B, T, W)
        tokens = self.fusion(tokens, batch["code"])
        with self.hyperlora.of(self.fusion.embedding(batch["code"])) if self.hyperlora else nullcontext():
            states = encoder.hidden_states(self.encoder, tokens, batch)
        with torch.autocast(self.device.type, enabled=False):  # the heads stay in float32
            spans = batch["anchor_span"], batch["target_span"]
            a, t = (span_mean(states[-1].float(), span) for span in spans)  # (N, W)
            features = torch.cat([a, t, a * t, (a - t).abs()], dim=-1)
            middle = states[min(self.settings.contrast_layer, len(states) - 1)].float()
            cumulative = self.head(features)
            ratings = self.rating_head(features) if self.rating_head else None
            return Output(cumulative, *(span_mean(middle, span) for span in spans), ratings)

    def pairs(self, frame: pd.DataFrame, *, unknown: str = "error") -> Pairs:
        """The rows of a checked frame (`data.check_pairs`), tokenised for this model."""
        kind = self.settings.context_text
        return Pairs(
            frame,
            self.tokenizer,
            layout=self.settings.layout,
            titles={code: code.lower() for code in cpc.CODES[1:]} if kind == "code" else self.titles,
            context_tokens=CONTEXT_TOKENS[kind],
            longest=encoder.longest_sequence(self.encoder),
            unknown=unknown,
        )

    @torch.inference_mode()
    def cumulative(
        self,
        pairs: Pairs,
        part: Callable[[Output], Tensor] = Output.logits,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Cumulative logits (n, 4) float32 of all rows, or another `part` (n, K) of the output, in their order.

        In the `listwise` layout they are the mean over LIST_SHUFFLES orders of each group. `progress(done, all)`
        follows every batch. The model is in evaluation mode afterwards.
        """
        if self.training:  # a walk over all modules, which takes longer than the scoring of one pair
            self.eval()
        batch_tokens = 8192 if self.device.type == "cuda" else 2048  # larger batches outgrow a CPU's caches
        orders = range(LIST_SHUFFLES) if pairs.layout == "listwise" else [None]
        largest = TARGETS[pairs.layout]
        sequences = [rows for order in orders for rows in pairs.sequences(largest=largest, shuffle=order)]
        lengths = pairs.lengths(sequences)
        order = np.argsort(lengths, kind="stable")[::-1]
        found, rows, done = [], [], 0
        while len(order):
            size = max(1, batch_tokens // int(lengths[order[0]]))  # longest first: memory is known at once
            batch = pairs.collate([pairs[sequences[i]] for i in order[:size]])
            order = order[size:]
            with encoder.autocast(self.settings.precision, self.device):
                output = self({name: tensor.to(self.device) for name, tensor in batch.items()})
            found.append(part(output).float().cpu())
            rows.append(batch["rows"])
            done += len(batch["rows"])
            if progress:
                progress(done, len(pairs) * len(orders))
        values = torch.cat(found)
        return torch.zeros(len(pairs), values.shape[1]).index_add_(0, torch.cat(rows), values) / len(orders)

    def logits(self, frame: pd.DataFrame, *, unknown: str = "error", **options: Any) -> Tensor:
        """Cumulative logits (n, 4) that the scores of a checked frame are made of; options as in `cumulative`."""
        found = self.cumulative(self.pairs(frame, unknown=unknown), **options)
        return self.regressor.blend(found, frame) if self.regressor else found

    def predict(self, pairs: Iterable[tuple[str, str, str]]) -> np.ndarray:
        """Scores (n,) of (anchor, target, class) triples: `score` under the name that a CrossEncoder has for it."""
        return self.score(pd.DataFrame(list(pairs), columns=["anchor", "target", "context"], dtype=object))

    def score(self, frame: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        """Scores (n,) in [0, 1] for rows of anchor, target, context.

        `unknown`: "embedding" scores a context that is no CPC class, also "", by the text alone; "error" refuses it.
        InputError with the row and column where a value is missing or no text.
        """
        return self.probabilities(frame, unknown=unknown) @ SCORES

    def probabilities(self, frame: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        """Probability (n, 5) of each of the scores 0, .25, .5, .75, 1."""
        return self.read(frame, unknown=unknown)[0]

    def ratings(self, frame: pd.DataFrame, *, unknown: str = "error") -> pd.DataFrame:
        """Probability of each of data.RATINGS (n, 10), such as hyponym or antonym: what kind of relation it is."""
        if self.rating_head is None:
            raise InputError("this model has not learned ratings: it was trained with rating_weight 0")
        return self.read(frame, unknown=unknown)[1]

    def read(self, frame: pd.DataFrame, *, unknown: str = "error") -> tuple[np.ndarray, pd.DataFrame | None]:
        """`probabilities` and `ratings` (None where the model has not learned them) by one pass of the encoder."""
        frame = check_pairs(frame, unknown=unknown)
        known, levels = self.rating_head is not None, RANKS - 1
        found = torch.zeros(0, levels + len(RATINGS))
        if len(frame):
            pairs = self.pairs(frame, unknown=unknown)
            found = self.cumulative(pairs, lambda o: torch.cat([o.logits(), o.ratings], -1) if known else o.logits())
        logits, ratings = found.split([levels, found.shape[1] - levels], dim=1)
        if self.regressor and len(frame):
            logits = self.regressor.blend(logits, frame)
        ratings = pd.DataFrame(ratings.double().softmax(-1).numpy(), columns=list(RATINGS)) if known else None
        return ordinal.probabilities(logits.double()).numpy(), ratings

    def explain(self, frame: pd.DataFrame, *, unknown: str = "error") -> pd.DataFrame:
        """What the model says of each row: `score`, the probability of each of the five scores (`0` to `1`) and, where
        it has learned ratings, the most probable `rating` with its `probability`.
        """
        p, ratings = self.read(frame, unknown=unknown)
        found = pd.DataFrame(p, columns=["0", "0.25", "0.5", "0.75", "1"])
        found.insert(0, "score", p @ SCORES)
        if ratings is not None:
            found = found.assign(rating=ratings.idxmax(axis=1), probability=ratings.max(axis=1))
        return found

    def rank(self, query: str, candidates: Iterable[str], *, context: str, top_k: int | None = None) -> pd.DataFrame:
        """The best `top_k` candidates by falling score: columns `rank` (from 1), `target` (as given), `score`."""
        if isinstance(candidates, str):
            raise InputError(f"candidates: {clip(candidates)} is one text; needed is a list of phrases")
        targets = pd.Series(list(candidates), dtype=object)
        found = pd.DataFrame({"anchor": query, "target": targets, "context": context})
        found["score"] = self.score(found)
        found = found.sort_values("score", ascending=False, kind="stable", ignore_index=True).head(top_k)
        return found.assign(rank=found.index + 1)[["rank", "target", "score"]]

    def cpc_vectors(self) -> pd.DataFrame:
        """The learned unit vectors, one row a code (without `unknown`, which is zero)."""
        if self.settings.fusion == "none":
            raise InputError("fusion 'none' has learned no CPC vectors")
        with torch.inference_mode():
            vectors = self.fusion.embedding(torch.arange(1, len(cpc.CODES), device=self.device))
        return pd.DataFrame(vectors.cpu().numpy(), index=pd.Index(cpc.CODES[1:], name="code"))

    def save(self, folder: Path) -> None:
        """Writes matcher.json, encoder/config.json, tokenizer/ and model.safetensors (all weights, nothing pickled)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.config.save_pretrained(folder / "encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        if merged := any(getattr(module, "merged", False) for module in self.modules()):
            self.backbone.unmerge_adapter()  # LoRA's update is saved apart from the weights, to which `load` adds it
        encoder.save_weights(self, folder / "model.safetensors")
        if merged:
            self.backbone.merge_adapter()
        if self.regressor:
            self.regressor.save(folder / "features")
        note = {"format": FORMAT, "config": self.settings.model_dump(exclude={"data"}), "codes": cpc.CODES}
        note |= {"titles": self.titles, "sha256": _digests(folder)}
        (folder / "matcher.json").write_text(json.dumps(note, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "Matcher":
        """The model in a run folder, or in the model folder that `save` wrote; runs no code that the folder holds.

        It is there to score: a LoRA update is merged into its weights, which saves the update's own products.
        InputError where there is no model, or a part of it is missing, damaged or of another version.
        """
        folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
        place = folder / "matcher.json"
        try:
            note = json.loads(place.read_text(encoding="utf-8"))
            version = note["format"], tuple(note["codes"])
            given, titles, digests = (dict(note[name]) for name in ("config", "titles", "sha256"))
        except FileNotFoundError as error:
            raise InputError(f"{path}: there is no model here; `make study` trains one into runs/sample") from error
        except OSError as error:
            raise InputError(f"{place}: may not be read ({error.strerror})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place}: is damaged, or of another version of patsim") from error
        if version != (FORMAT, cpc.CODES):
            raise InputError(f"{folder}: the model was written by another version of patsim")
        if _digests(folder) != digests:
            raise InputError(f"{folder}: a file of tokenizer/ or encoder/ is missing or was changed")
        config = Config.parse(given, source=str(place))
        if titles.keys() != {*cpc.CODES} or not all(isinstance(text, str) for text in titles.values()):
            raise InputError(f"{place}: its titles are not those of the CPC codes")
        matcher = cls(config, titles=titles, folder=folder)
        encoder.load_weights(matcher, folder / "model.safetensors")
        if config.features != "none":
            matcher.regressor = Regressor.load(folder / "features", config.features, precision=config.precision)
        if config.adapter in ("lora", "lora_all"):  # that of `hyperlora` is another one for each class
            matcher.backbone.merge_adapter()
        return matcher.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of the small files of a model folder, by their path in it."""
    files = sorted(path for part in ("encoder", "tokenizer") for path in (folder / part).glob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
