"""The model: tokens + CPC vector -> encoder -> span features -> ordinal head, with saving, loading and scoring."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from patsim_utils import cpc, encoder, ordinal
from patsim_utils.data import RATINGS
from patsim_utils.errors import InputError
from patsim_utils.evidence import EVIDENCE, Evidence
from patsim_utils.fusion import FUSIONS, Fusion
from patsim_utils.hyperlora import RankScale
from patsim_utils.ordinal import RANKS, OrdinalHead, small_network
from patsim_utils.packing import LAYOUTS, Pairs

POOLINGS = ("span", "attention", "mean", "cls")
CONTEXT_TEXTS = ("title", "code", "none")
JUDGE_LAYERS = 3  # of the backbone, from the lowest on
LIST_SHUFFLES = 4  # orders of a group over which a `list` score is averaged
# Targets of a sequence in scoring, at most: attention grows with their square, the prefix is read once a sequence.
# A `list` keeps its company together.
TARGETS = {"pair": 1, "packed": 64, "list": 128}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a model is made of; the defaults are the described method. Raises InputError where it cannot work."""

    backbone: str = "minilm"
    layers: int = 0
    context_text: str = "title"
    context_tokens: int = 8
    layout: str = "pair"
    target_sep: bool = True
    fusion: str = "add"
    cpc_dim: int = 50
    adapter: str = "lora"
    lora_layers: str = "attention"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.1
    backbone_dropout: float = 0.0
    pooling: str = "span"
    separate_layers: int = 0
    contrast_layer: int = 3
    rating_weight: float = 0.0
    evidence: str = "none"
    stack: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "context_text": CONTEXT_TEXTS,
            "layout": LAYOUTS,
            "fusion": FUSIONS,
            "adapter": encoder.ADAPTERS,
            "lora_layers": encoder.LORA_LAYERS,
            "pooling": POOLINGS,
            "evidence": EVIDENCE,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise InputError(f"parameter {name}: {getattr(self, name)!r} is none of {', '.join(values)}")
        for name in ("context_tokens", "cpc_dim", "lora_rank", "lora_alpha"):
            if getattr(self, name) < 1:
                raise InputError(f"parameter {name}: {getattr(self, name)} is less than 1")
        for name in ("lora_dropout", "backbone_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"parameter {name}: {getattr(self, name)} is not in [0, 1)")
        for name in ("layers", "rating_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"parameter {name}: {getattr(self, name)} is less than 0")
        if self.pooling == "cls" and self.layout != "pair":
            raise InputError(f"pooling 'cls' needs layout 'pair': in {self.layout!r} one [CLS] serves many targets")
        if self.layout == "pair" and not self.target_sep:
            raise InputError("parameter target_sep: false needs layout 'packed' or 'list': in 'pair' the class follows")
        if self.stack and (self.stack < 2 or self.evidence not in ("all", "group")):
            raise InputError(
                f"parameter stack: {self.stack}; use 0, or 2 or more and evidence 'all' or 'group', not"
                f" {self.evidence!r}"
            )
        if self.adapter == "hyperlora" and self.fusion == "none":
            raise InputError("adapter 'hyperlora' needs class vectors, and fusion 'none' has none")

    def judge(self) -> Self:
        """The same for a judge of its stack: small and fast, like the preset `search`."""
        return replace(
            self,
            layers=min(self.layers or JUDGE_LAYERS, JUDGE_LAYERS),
            layout="packed",
            target_sep=False,
            fusion="none",
            adapter="full",
            backbone_dropout=0.0,
            pooling="span",
            separate_layers=0,
            contrast_layer=0,
            evidence="pieces",
            stack=0,
        )


class SpanFeatures(nn.Module):
    """Hidden states and spans -> one feature vector a row (N, width).

    - `span`: anchor a and target t, each the mean of its tokens -> [a; t; a * t; |a - t|]
    - `attention`: the same with tokens weighted by a learned query (attention pooling)
    - `mean`: the mean over both spans' tokens
    - `cls`: the first token
    """

    def __init__(self, pooling: str, *, width: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.width = 4 * width if pooling in ("span", "attention") else width
        if pooling == "attention":
            self.attend = nn.Sequential(nn.Linear(width, width // 4), nn.Tanh(), nn.Linear(width // 4, 1))
            nn.init.zeros_(self.attend[-1].weight)  # starts as the mean

    def forward(self, states: Tensor, batch: dict[str, Tensor]) -> Tensor:
        if self.pooling == "cls":
            return states[batch["sequence"], 0]
        anchor, target = batch["anchor_span"], batch["target_span"]
        if self.pooling == "mean":
            return self.pool(states, torch.cat([anchor, target], dim=1))
        a, t = self.pool(states, anchor), self.pool(states, target)  # (N, W)
        return torch.cat([a, t, a * t, (a - t).abs()], dim=-1)

    def pool(self, states: Tensor, span: Tensor) -> Tensor:
        if self.pooling != "attention":
            return span_mean(states, span)
        tokens = states.flatten(0, 1)[span.clamp(min=0)]  # (N, L, W)
        weight = self.attend(tokens).float().masked_fill((span < 0)[..., None], -1e4).softmax(1)
        return (tokens * weight.to(tokens.dtype)).sum(1)


def span_mean(states: Tensor, span: Tensor) -> Tensor:
    """States (B, T, W) and spans (N, L) of flat token indices, -1 where shorter -> means (N, W)."""
    tokens = states.flatten(0, 1)[span.clamp(min=0)]  # (N, L, W)
    inside = (span >= 0)[..., None].to(tokens.dtype)
    return (tokens * inside).sum(1) / inside.sum(1)


@dataclass
class Output:
    """What a batch of N rows gives.

    cumulative: the ordinal head's logits of P(rank > k) (N, 4); ratings: the rating head's logits of data.RATINGS
    (N, 10), where the model learns them; evidence: P(rank > k) by the evidence alone (N, 4), where there is any, which
    has `evidence_share` of the score; anchor, target: span means at the contrast layer (N, W).
    """

    cumulative: Tensor
    anchor: Tensor
    target: Tensor
    ratings: Tensor | None = None
    evidence: Tensor | None = None
    evidence_share: float = 0.0

    def opinions(self) -> Tensor:
        """What both heads say, each by itself: P(rank > k) (N, 4), then, if there are any, P(rating) (N, 10)."""
        heads = [self.cumulative.float().sigmoid()]
        if self.ratings is not None:
            heads.append(self.ratings.float().softmax(-1))
        return torch.cat(heads, dim=1)

    def judgement(self) -> Tensor:
        """Cumulative logits (N, 4) float32 that scores are made of: P(rank > k) of both heads, and of the evidence."""
        if self.ratings is None and self.evidence is None:
            return self.cumulative.float()
        above = ordinal.above(self.cumulative, self.ratings)
        if self.evidence is not None:
            above = torch.lerp(above, self.evidence, self.evidence_share)
        return torch.logit(above, eps=1e-6)


class Matcher(nn.Module):
    """Anchor, target and CPC class in, a score in [0, 1] and a probability of each rank out."""

    def __init__(self, architecture: Architecture, *, titles: dict[str, str] | None = None) -> None:
        """`titles`: context text of each code (default: the built-in glosses); kept with the model."""
        super().__init__()
        self.architecture = architecture
        self.tokenizer = encoder.load_tokenizer(architecture.backbone)
        self.titles = titles or cpc.titles()
        a, backbone = architecture, encoder.load_backbone(architecture.backbone, layers=architecture.layers)
        layers, width = backbone.config.num_hidden_layers, backbone.config.hidden_size
        for name in ("separate_layers", "contrast_layer"):
            if not 0 <= getattr(a, name) <= layers:
                raise InputError(f"parameter {name}: {getattr(a, name)} is not in 0..{layers} of this backbone")
        encoder.check_layout(backbone, a.layout, separate_layers=a.separate_layers)
        encoder.check_adapter(backbone, a.adapter)
        if a.stack and (kind := backbone.config.model_type) not in encoder.ABSOLUTE_POSITIONS:
            raise InputError(
                f"parameter stack: its judges read packed groups, which the relative positions of {kind} do not allow;"
                " use 0"
            )
        vectors = None
        if a.fusion == "graph":  # before the adapter is in: the untouched backbone reads the titles
            texts = [self.titles[code] for code in cpc.CODES]
            vectors = encoder.sentence_vectors(texts, tokenizer=self.tokenizer, model=backbone.eval())
        self.backbone = encoder.adapt(
            backbone,
            adapter=a.adapter,
            layers=a.lora_layers,
            rank=a.lora_rank,
            alpha=a.lora_alpha,
            dropout=a.lora_dropout,
            backbone_dropout=a.backbone_dropout,
        )
        self.features = SpanFeatures(a.pooling, width=width)
        fused = self.features.width if a.fusion == "pooled" else width
        self.fusion = Fusion(a.fusion, width=fused, dim=a.cpc_dim, titles=vectors)
        self.hyperlora = RankScale(self.encoder, dim=a.cpc_dim) if a.adapter == "hyperlora" else None
        self.evidence = None
        if a.evidence != "none":
            ratings = a.rating_weight > 0
            self.evidence = Evidence(
                a.evidence,
                backbone=a.backbone,
                layers=a.layers,
                ratings=ratings,
                readers=a.stack,
                opinions=(RANKS - 1 + ratings * len(RATINGS)) * (a.stack > 0),
            ).requires_grad_(False)  # but while it is fitted
        self.judges = nn.ModuleList(Matcher(a.judge(), titles=self.titles) for _ in range(a.stack))
        self.judges.requires_grad_(False)
        judged = self.features.width + (self.evidence.width if self.evidence else 0)
        self.head = OrdinalHead(judged)
        self.rating_head = small_network(judged, len(RATINGS)) if a.rating_weight else None

    @property
    def encoder(self) -> nn.Module:
        """The encoder itself, with LoRA layers in place but without their wrapper."""
        return self.backbone.base_model.model if isinstance(self.backbone, peft.PeftModel) else self.backbone

    def forward(self, batch: dict[str, Tensor]) -> Output:
        tokens = self.encoder.get_input_embeddings()(batch["input_ids"])  # (B, T, W)
        pooled = self.architecture.fusion == "pooled"
        if not pooled:
            tokens = self.fusion(tokens, batch["code"])
        with self.hyperlora.of(self.fusion.embedding(batch["code"])) if self.hyperlora else nullcontext():
            states = encoder.hidden_states(
                self.encoder,
                tokens,
                batch,
                separate_layers=self.architecture.separate_layers,
                spans_only=self.architecture.pooling != "cls",
            )
        middle = states[self.architecture.contrast_layer]
        features = self.features(states[-1], batch)  # (N, F)
        if pooled:
            features = self.fusion(features[:, None], batch["row_code"])[:, 0]
        beside = None
        if self.evidence:
            beside = self.evidence(batch["evidence"])  # (N, F')
            features = torch.cat([features, beside.to(features.dtype)], dim=-1)
        return Output(
            cumulative=self.head(features),
            anchor=span_mean(middle, batch["anchor_span"]),
            target=span_mean(middle, batch["target_span"]),
            ratings=self.rating_head(features) if self.rating_head else None,
            evidence=self.evidence.above(beside) if self.evidence else None,
            evidence_share=self.evidence.share if self.evidence else 0.0,
        )

    def pairs(self, frame: pd.DataFrame, *, unknown: str = "error") -> Pairs:
        """The frame's rows, tokenised for this model, with their evidence."""
        pairs = self.tokenised(frame, unknown=unknown)
        if self.evidence:
            pairs.evidence = self.evidence_of(pairs, frame, unknown=unknown)
        return pairs

    def evidence_of(
        self, pairs: Pairs, frame: pd.DataFrame, *, unknown: str = "error", unseen: np.ndarray | None = None
    ) -> Tensor:
        """The numbers (n, F) that its evidence reads of the frame's rows, tokenised as `pairs`.

        `unseen` (n,): for training rows, the part of the stack that has not seen the row's anchor and so compares and
        judges it; other rows are compared and judged by all parts, on the mean.
        """
        opinions = None
        if self.judges:
            opinions = torch.zeros(len(frame), self.evidence.opinions)
            for part, judge in enumerate(self.judges):
                rows = np.arange(len(frame)) if unseen is None else np.flatnonzero(unseen == part)
                if len(rows):
                    seen_by = judge.pairs(frame.iloc[rows], unknown=unknown)
                    found = judge._outputs(seen_by, Output.opinions)
                    opinions[torch.from_numpy(rows)] += found / (len(self.judges) if unseen is None else 1)
        return self.evidence.of(pairs, unseen=unseen, opinions=opinions)

    def tokenised(self, frame: pd.DataFrame, *, unknown: str = "error") -> Pairs:
        """The frame's rows, tokenised for this model, without evidence."""
        kind = self.architecture.context_text
        text = {"title": self.titles, "code": {code: code.lower() for code in cpc.CODES[1:]}, "none": {}}[kind]
        return Pairs(
            frame,
            self.tokenizer,
            layout=self.architecture.layout,
            titles=text,
            context_tokens=self.architecture.context_tokens,
            target_sep=self.architecture.target_sep,
            unknown=unknown,
        )

    def cumulative(
        self, pairs: Pairs, *, batch_tokens: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Cumulative logits (n, 4) float32 of all rows, in their order, as `Output.judgement` gives them.

        A batch has about `batch_tokens` tokens; 0 stands for 2,048 on a CPU, whose caches larger batches outgrow, and
        8,192 on a GPU. In the `list` layout the mean over LIST_SHUFFLES orders of each group. `progress(done, all)` is
        called after every batch, with numbers of rows.
        """
        return self._outputs(pairs, Output.judgement, batch_tokens=batch_tokens, progress=progress)

    @torch.inference_mode()
    def _outputs(
        self,
        pairs: Pairs,
        part: Callable[[Output], Tensor],
        *,
        batch_tokens: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """The `part` (n, K) of the output for every row, in their order, as `cumulative` describes it."""
        was_training = self.training
        if was_training:  # a walk over all modules, which takes longer than the scoring of one pair
            self.eval()
        device = next(self.parameters()).device
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        batch_tokens = batch_tokens or (8192 if device.type == "cuda" else 2048)
        orders = [np.random.default_rng(k) for k in range(LIST_SHUFFLES)] if pairs.layout == "list" else [None]
        sequences = [
            rows for order in orders for rows in pairs.sequences(largest=TARGETS[pairs.layout], generator=order)
        ]
        lengths = pairs.lengths(sequences)
        found: list[Tensor] = []
        rows: list[Tensor] = []
        done = 0
        order = np.argsort(lengths, kind="stable")[::-1]
        while len(order):
            size = max(1, batch_tokens // int(lengths[order[0]]))  # longest first: memory is known at once
            batch = pairs.collate([pairs[sequences[i]] for i in order[:size]])
            order = order[size:]
            with torch.autocast("cuda", dtype=torch.bfloat16) if bf16 else nullcontext():
                output = self({name: tensor.to(device) for name, tensor in batch.items()})
            found.append(part(output).float().cpu())
            rows.append(batch["rows"])
            done += len(batch["rows"])
            if progress:
                progress(done, len(pairs) * len(orders))
        if was_training:
            self.train()
        values = torch.cat(found)
        return torch.zeros(len(pairs), values.shape[1]).index_add_(0, torch.cat(rows), values) / len(orders)

    def score(self, frame: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        """Scores (n,) in [0, 1] for rows of anchor, target, context.

        `unknown`: "embedding" scores a context that is no CPC class, also "", by the text alone; "error" refuses it.
        """
        return ordinal.score(self.cumulative(self.pairs(frame, unknown=unknown))).double().numpy()

    def probabilities(self, frame: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        """Probability (n, 5) of each of the scores 0, .25, .5, .75, 1."""
        return ordinal.probabilities(self.cumulative(self.pairs(frame, unknown=unknown)).double()).numpy()

    def ratings(self, frame: pd.DataFrame, *, unknown: str = "error") -> pd.DataFrame:
        """Probability of each of data.RATINGS (n, 10), such as hyponym or antonym: what kind of match it is."""
        if self.rating_head is None:
            raise InputError("this model has not learned ratings: it was trained with rating_weight 0")
        logits = self._outputs(self.pairs(frame, unknown=unknown), lambda output: output.ratings)
        return pd.DataFrame(logits.double().softmax(-1).numpy(), columns=list(RATINGS), index=frame.index)

    def cpc_vectors(self) -> pd.DataFrame:
        """The learned unit vectors, one row a code (without `unknown`, which is zero)."""
        if self.architecture.fusion == "none":
            raise InputError("fusion 'none' has learned no CPC vectors")
        with torch.inference_mode():
            vectors = self.fusion.embedding(torch.arange(1, len(cpc.CODES), device=next(self.parameters()).device))
        return pd.DataFrame(vectors.cpu().numpy(), index=pd.Index(cpc.CODES[1:], name="code"))

    def _own_weights(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def save(self, folder: Path) -> None:
        """Writes matcher.json, tokenizer/, own.safetensors (all but the encoder), backbone/ (adapter or encoder)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backbone.save_pretrained(folder / "backbone")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        save_file(
            {name: value.contiguous() for name, value in self._own_weights().items()},
            folder / "own.safetensors",
        )
        note = {"architecture": asdict(self.architecture), "codes": cpc.CODES, "titles": self.titles}
        (folder / "matcher.json").write_text(json.dumps(note, indent=1))

    def restore(self, folder: Path) -> None:
        """Reads the weights that `save` wrote back into this model."""
        if isinstance(self.backbone, peft.PeftModel):
            weights = load_file(folder / "backbone" / "adapter_model.safetensors")
            outcome = peft.set_peft_model_state_dict(self.backbone, weights)
            if outcome.unexpected_keys:
                raise InputError(f"{folder}: the adapter holds weights of another model: {outcome.unexpected_keys[:3]}")
        else:
            self.backbone.load_state_dict(load_file(folder / "backbone" / "model.safetensors"))
        self.load_state_dict({**self.state_dict(), **load_file(folder / "own.safetensors")})

    @classmethod
    def load(cls, path: str | Path) -> "Matcher":
        """The model that `save` wrote to the folder; only safetensors and JSON are read, no pickled code runs.

        It is there to score: a plain LoRA update is merged into its weights, which saves the update's own products and
        leaves the scores as they are up to float32's rounding. Also takes a run folder, whose model/ it loads. Raises
        InputError where there is no model.
        """
        folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
        if not (folder / "matcher.json").is_file():
            raise InputError(f"{path}: no model here (matcher.json is missing)")
        note = json.loads((folder / "matcher.json").read_text())
        if tuple(note["codes"]) != cpc.CODES:
            raise InputError(f"{folder}: the model knows another list of CPC codes than this version of patsim")
        matcher = cls(Architecture(**note["architecture"]), titles=note["titles"])
        matcher.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        matcher.restore(folder)
        if matcher.architecture.adapter == "lora":  # that of `hyperlora` is another one for each class
            matcher.backbone.merge_adapter()
        return matcher.to("cuda" if torch.cuda.is_available() else "cpu").eval()
