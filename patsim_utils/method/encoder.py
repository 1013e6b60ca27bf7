"""The backbone: a Hugging Face text encoder, its tokenizer, its precision and its hidden states."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence

from patsim_utils.errors import InputError, clip
from patsim_utils.layouts import positions
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.layouts.tokens import AnyTokenizer, Tokens
from patsim_utils.method import backbones
from patsim_utils.method.minilm import bert
from patsim_utils.method.weights import files, sizes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

LONGEST = 4096  # tokens of a sequence, at most, whatever an encoder says
# The fused attention kernels know no dropout
NO_ATTENTION_DROPOUT = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}
# Those that sequences are made with
SPECIAL_TOKENS = ("cls_token", "sep_token", "pad_token", "unk_token")
# A word that every vocabulary has, if in pieces, and a letter that hardly any has
PROBE = "a valve \u3400"


@cache
def library() -> ModuleType:
    """transformers, which is imported when it is first needed: that takes three seconds."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # of loading weights, which takes a moment and fills the pages
    return transformers


def load_to_score(backbone: str, *, layers: int = 0) -> tuple[nn.Module, AnyTokenizer]:
    """The encoder and its tokenizer, as `load_backbone` and `load_tokenizer` give them, but not to be trained.

    Those of `minilm`, which are known here, do without transformers.
    """
    if backbone == "minilm":
        return bert.load(layers=layers), Tokens.of_bert(Path(backbones.path(backbone)))
    return load_backbone(backbone, layers=layers), load_tokenizer(backbone)


def load_tokenizer(backbone: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a backbone; InputError where there is none, or it lacks a special token."""
    path = backbones.path(backbone)
    try:
        tokenizer = library().AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            # as transformers makes one where its files are missing
            raise ValueError("it has no vocabulary")
        for name in SPECIAL_TOKENS:
            if getattr(tokenizer, f"{name}_id") is None:
                raise ValueError(f"it has no {name}")
        tokenizer([PROBE])  # fails where words are unknown and it has no token for them
    except Exception as error:
        raise _cannot_load(backbone, "tokenizer", error) from error
    return tokenizer


def load_backbone(backbone: str, *, layers: int = 0) -> nn.Module:
    """The pretrained encoder without its pooler, in float32, from safetensors only.

    `layers`: how many of its layers are kept, from the lowest on (Sajjad et al. 2020,
    arXiv 2004.03844); 0 for all. InputError where there is no encoder, or it has fewer layers.
    """
    path = backbones.path(backbone)
    weights = Path(path) / backbones.WEIGHTS
    try:
        model = None
        if weights.is_file():  # else a model of the hub, which is about to be fetched
            sizes.check(weights.with_name("config.json"), files.read_shapes(weights))
            model = _with_own_names(path, files.read_tensors(weights))
        model = model or _translated(path)
    except InputError:
        raise
    except Exception as error:  # a broken folder fails in many ways
        raise _cannot_load(backbone, "encoder", error) from error
    if layers:
        _keep_lowest(model, layers, backbone)
    return model


def _with_own_names(folder: str, state: files.State) -> nn.Module | None:
    """The encoder, where its file names every tensor as this version of transformers does, else None.

    That takes a tenth of a second, and `_translated` one and a half.
    """
    model = empty_backbone(folder, tensors=len(state))
    names = model.state_dict().keys()
    if not names <= state.keys():
        return None
    model.load_state_dict({name: state[name] for name in names})
    return model.eval()


def _translated(path: str) -> nn.Module:
    """The encoder, whose file may name its tensors as another version or a model with a head does."""
    model = library().AutoModel.from_pretrained(
        path, config=read_config(path), use_safetensors=True, dtype=torch.float32, trust_remote_code=False
    )
    return _without_pooler(model)


def empty_backbone(folder: str, *, tensors: int) -> nn.Module:
    """The encoder that a folder's config.json describes, without values; else InputError.

    `tensors`: how many there are in its weights, which says how many modules it can have.
    """
    from transformers.initialization import no_init_weights

    try:
        with no_init_weights(), sizes.few_modules(tensors):
            model = library().AutoModel.from_config(read_config(folder), dtype=torch.float32, trust_remote_code=False)
    except Exception as error:
        raise _cannot_load(folder, "encoder", error) from error
    return _without_pooler(model)


def read_config(path: str) -> "PretrainedConfig":
    """The configuration of an encoder, with no dropout in its attention."""
    return library().AutoConfig.from_pretrained(path, trust_remote_code=False, **NO_ATTENTION_DROPOUT)


def _keep_lowest(model: nn.Module, layers: int, backbone: str) -> None:
    config = model.config
    if layers > config.num_hidden_layers:
        raise InputError(
            f"parameter layers: {layers} is more than the {config.num_hidden_layers} of backbone {clip(backbone)}"
        )
    stack = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    del stack[layers:]
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]


def _without_pooler(model: nn.Module) -> nn.Module:
    """The pooler's output is never used, and LoRA would wrap it."""
    if hasattr(model, "pooler"):
        model.pooler = None
    return model


def _cannot_load(backbone: str, what: str, error: Exception) -> InputError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(f"backbone {clip(backbone)}: no {what} can be loaded ({clip(lines[0])})")


def longest_sequence(backbone: nn.Module) -> int:
    """Tokens that the encoder can read at once; 512 where it does not say."""
    size = getattr(backbone.config, "max_position_embeddings", None) or 512
    return min(size, LONGEST) - positions.first_position(backbone.config)


def hidden_states(backbone: nn.Module, embeddings: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The states of every layer, (B, T, W) each; state 0 is the embeddings with their positions.

    Args:
        backbone: the encoder.
        embeddings: of the tokens, without positions (B, T, W).
        batch: of `layouts.Pairs`; its `block` says which tokens see each other.
    """
    block = batch["block"]
    call = partial(backbone, inputs_embeds=embeddings, output_hidden_states=True)
    if backbone.config.model_type in positions.PASSED:
        call = partial(call, position_ids=batch["position_ids"] + positions.first_position(backbone.config))
    with _attention_kernel(embeddings.device):
        if not (block > 0).any():  # one pair per sequence: every token sees every other
            return call(attention_mask=(block >= 0).long()).hidden_states
        with positions.packed(backbone, batch["position_ids"], positions.visible(block)) as mask:
            return call(attention_mask=mask).hidden_states


def _attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Leaves out the attention kernels that are slow here.

    On a GPU that is cuDNN's, which makes a plan for every new shape of a batch. On a CPU it is the
    fused one in training in bfloat16: its backward pass takes up to nine times as long as plain
    products.
    """
    if device.type == "cuda":
        return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    if torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether matrix products are in bfloat16.

    `precision`: "fp32", "bf16", or "auto" for bfloat16 on a device that multiplies it fast: a GPU
    that supports it, a CPU with AMX or AVX512-BF16.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which an encoder computes with this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(precision, device))


def token_counts(frame: pd.DataFrame, *, backbone: str = "minilm", titles: dict[str, str]) -> np.ndarray:
    """Tokens of each row's model input in the `pair` layout, (n,) int; for pages about the data."""
    pairs = Pairs(frame, load_tokenizer(backbone), layout="pair", titles=titles)
    return pairs.lengths(pairs.sequences())


def token_states(
    phrases: Sequence[str], *, tokenizer: AnyTokenizer, model: nn.Module, batch_size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Reads phrases in batches of like length (B phrases, T tokens).

    Yields which of the `phrases` they are (B,), their last states (B, T, W) and the mask (B, T).
    """
    ids = tokenizer(list(phrases), truncation=True, max_length=longest_sequence(model))["input_ids"]
    order = np.argsort([len(tokens) for tokens in ids], kind="stable")
    for rows in np.array_split(order, -(-len(order) // batch_size)):
        tokens = [torch.tensor(ids[row]) for row in rows]
        mask = pad_sequence([torch.ones_like(part) for part in tokens], batch_first=True).to(model.device)
        padded = pad_sequence(tokens, batch_first=True, padding_value=tokenizer.pad_token_id).to(model.device)
        yield torch.from_numpy(rows), model(padded, attention_mask=mask).last_hidden_state.float(), mask


@torch.inference_mode()
def sentence_vectors(phrases: Sequence[str], *, tokenizer: AnyTokenizer, model: nn.Module) -> Tensor:
    """Mean-pooled unit vectors (n, W) float32 of the phrases."""
    vectors = torch.empty(len(phrases), model.config.hidden_size)
    for rows, states, mask in token_states(phrases, tokenizer=tokenizer, model=model, batch_size=256):
        vectors[rows] = sentence_mean(states, mask).cpu()
    return vectors


def sentence_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Token states (B, T, W) and their mask (B, T) -> mean-pooled unit vectors (B, W)."""
    return F.normalize((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)


def pretrained_cosine(frame: pd.DataFrame, *, backbone: str = "minilm") -> np.ndarray:
    """Cosine (n,) in [-1, 1] of anchor and target by the pretrained backbone's sentence vectors.

    Each distinct phrase is read once. It is a baseline of a training, and a curriculum uses it.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = load_to_score(backbone)
    phrase_of, phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
    vectors = sentence_vectors(phrases, tokenizer=tokenizer, model=model.to(device).eval())
    anchor, target = vectors[phrase_of].chunk(2)
    return (anchor * target).sum(-1).double().numpy()
