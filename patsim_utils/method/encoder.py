"""The backbone: a Hugging Face text encoder, its tokenizer, precision and hidden states."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from patsim_utils.errors import InputError, clip
from patsim_utils.layouts import positions
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.method import backbones

disable_progress_bar()  # of loading weights, which takes a blink and fills the pages


def load_tokenizer(backbone: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone; InputError where there is none."""
    path = backbones.path(backbone)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("it has no vocabulary")  # as transformers makes one where its files are missing
    except Exception as error:
        raise _cannot_load(backbone, "tokenizer", error) from error
    return tokenizer


def load_backbone(backbone: str, *, layers: int = 0, weights: bool = True) -> nn.Module:
    """The pretrained encoder without its pooler, in float32, from safetensors only; InputError where there is none.

    `layers`: how many of its layers are kept, from the lowest on (Sajjad et al. 2020, arXiv 2004.03844); 0 for all.
    `weights`: false for the shape that its config.json describes alone, with random weights.
    """
    path, options = backbones.path(backbone), {"dtype": torch.float32, "trust_remote_code": False}
    try:
        none = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}  # the fused attention kernels have none
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **none)
        if weights:
            model = AutoModel.from_pretrained(path, config=config, use_safetensors=True, **options)
        else:
            model = AutoModel.from_config(config, **options)
    except Exception as error:  # a broken folder fails in many ways
        raise _cannot_load(backbone, "encoder", error) from error
    if layers:
        if layers > config.num_hidden_layers:
            raise InputError(
                f"parameter layers: {layers} is more than the {config.num_hidden_layers} of backbone {clip(backbone)}"
            )
        stack = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        del stack[layers:]
        model.config.num_hidden_layers = layers
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = model.config.layer_types[:layers]
    if hasattr(model, "pooler"):
        model.pooler = None  # its output is never used, and LoRA would wrap it
    return model


def _cannot_load(backbone: str, what: str, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(f"backbone {clip(backbone)}: no {what} can be loaded ({clip(reason)})")


class ByteDropout(nn.Dropout):
    """Dropout that draws a random byte for each element on a CPU, where torch's own takes five times as long.

    The rate is thereby the nearest multiple of 1/256, and what is kept is scaled by it.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not self.p or input.device.type != "cpu":
            return super().forward(input)
        dropped = min(round(256 * self.p), 255)
        words = torch.empty(-(-input.numel() // 8), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        kept = words.view(torch.uint8)[: input.numel()].view(input.shape) >= dropped
        return input * kept.to(input.dtype).mul_(256 / (256 - dropped))


def longest_sequence(backbone: nn.Module) -> int:
    """Tokens that the encoder can read at once; 512 where it does not say."""
    positions_of_encoder = getattr(backbone.config, "max_position_embeddings", 512) or 512
    return min(positions_of_encoder, 4096) - positions.first_position(backbone.config)


def hidden_states(backbone: nn.Module, embeddings: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Token embeddings (B, T, W) and their batch -> hidden states of every layer, 0 the embeddings, (B, T, W) each."""
    block = batch["block"]
    call = partial(backbone, inputs_embeds=embeddings, output_hidden_states=True)
    if backbone.config.model_type in positions.PASSED:
        call = partial(call, position_ids=batch["position_ids"] + positions.first_position(backbone.config))
    with _attention_kernel(embeddings.device):
        if not (block > 0).any():
            return call(attention_mask=(block >= 0).long()).hidden_states
        with positions.packed(backbone, batch["position_ids"], positions.visible(block)) as mask:
            return call(attention_mask=mask).hidden_states


def _attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Without the attention kernels that are slow here: the fused one in training in bfloat16 on a CPU, whose backward
    pass takes up to nine times as long as plain products; cuDNN's, which makes a plan for every new shape of a batch.
    """
    if device.type == "cuda":
        return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    if torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether matrix products are in bfloat16; `auto` on a GPU or a CPU (AMX, AVX512-BF16) that multiplies it fast."""
    if precision == "auto":
        if device.type == "cuda":
            return torch.cuda.is_bf16_supported()
        can = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
        return bool(can.get("amx_bf16") or can.get("avx512_bf16"))
    return precision == "bf16"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which an encoder computes with this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(precision, device))


def token_counts(frame: pd.DataFrame, *, backbone: str = "minilm", titles: dict[str, str]) -> np.ndarray:
    """Tokens of each row's model input in the `pair` layout, (n,) int."""
    pairs = Pairs(frame, load_tokenizer(backbone), titles=titles)
    return pairs.lengths(pairs.sequences())


def token_states(
    phrases: Sequence[str], *, tokenizer: PreTrainedTokenizerBase, model: nn.Module, batch_size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of phrases of like length (B): their places in `phrases`, the last states (B, T, W), the mask (B, T)."""
    ids = tokenizer(list(phrases), truncation=True, max_length=longest_sequence(model))["input_ids"]
    order = np.argsort([len(tokens) for tokens in ids], kind="stable")
    for places in np.array_split(order, -(-len(order) // batch_size)):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in places]}, return_tensors="pt").to(model.device)
        yield torch.from_numpy(places), model(**batch).last_hidden_state.float(), batch["attention_mask"]


@torch.inference_mode()
def sentence_vectors(phrases: Sequence[str], *, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> Tensor:
    """Mean-pooled unit vectors (n, width) float32 of the phrases."""
    vectors = torch.empty(len(phrases), model.config.hidden_size)
    for places, states, mask in token_states(phrases, tokenizer=tokenizer, model=model, batch_size=256):
        vectors[places] = sentence_mean(states, mask).cpu()
    return vectors


def sentence_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Token states (B, T, W) and their mask (B, T) -> mean-pooled unit vectors (B, W)."""
    return F.normalize((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)


def pretrained_cosine(frame: pd.DataFrame, *, backbone: str = "minilm") -> np.ndarray:
    """Cosine (n,) in [-1, 1] of the mean-pooled anchor and target by the pretrained backbone; a phrase is read once."""
    model = load_backbone(backbone).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    ids, phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
    vectors = sentence_vectors(phrases, tokenizer=load_tokenizer(backbone), model=model)
    anchor, target = vectors[ids].chunk(2)
    return (anchor * target).sum(-1).double().numpy()
