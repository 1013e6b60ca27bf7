"""Positions and mask of packed tokens, for encoders that would otherwise take both from the order of the tokens.

The positions of each packed target go on from its prefix, so that it is read as if it stood alone behind it. Encoders
with learned absolute positions (BERT) take `position_ids`. Encoders with relative positions take distances from the
order of the tokens, which packing breaks; here the distances are made from `position_ids`:

- MPNet, DeBERTa-v2 and -v3: for one call, the encoder's own methods that make distances or mask are replaced.
- ModernBERT: its rotary angles follow `position_ids`, and its local window becomes a mask of near positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from patsim_utils.errors import InputError

# Encoders with learned absolute positions. 0: they are counted from 0; 1: from behind the padding id.
ABSOLUTE = {"bert": 0, "roberta": 1, "xlm-roberta": 1, "electra": 0, "mpnet": 1}
# Encoders with relative positions, and the methods of theirs that are replaced.
RELATIVE = {
    "mpnet": ("compute_position_bias",),
    "deberta-v2": ("get_rel_pos", "get_attention_mask"),
    "modernbert": (),
}
PASSED = (*ABSOLUTE, *RELATIVE)  # encoders that are called with `position_ids`
HIDDEN = -1e30  # attention score of a token that is not seen; finite also in bfloat16


def visible(block: Tensor) -> Tensor:
    """Blocks (B, T) -> bool (B, 1, T, T): may token q (third axis) attend to token k (fourth axis)?

    Block 0 is seen by all tokens, block j > 0 by itself only, padding (-1) by itself only: a row of the mask without a
    single True would make the attention's softmax NaN.
    """
    query = block[:, :, None]
    key = block[:, None, :]
    in_prefix = (key == 0) & (query >= 0)
    return (in_prefix | (key == query))[:, None]


def check(backbone: nn.Module, layout: str) -> None:
    """InputError where the encoder, or the installed version of it, cannot keep packed targets apart."""
    if layout == "pair":
        return
    kind = backbone.config.model_type
    start = f"layout {layout!r} does not work with {kind}"
    if kind not in PASSED:
        raise InputError(f"{start}: a target's score could depend on its place; use layout 'pair'")
    if getattr(backbone.config, "conv_kernel_size", 0):
        raise InputError(f"{start} and its convolution, which reads neighbouring targets; use layout 'pair'")
    for name in RELATIVE.get(kind, ()):
        if not hasattr(backbone.encoder, name):
            raise InputError(f"{start} of this version of transformers (it has no {name}); use layout 'pair'")


def first(config: object) -> int:
    """The number that an encoder gives to the position of a sequence's first token."""
    if not ABSOLUTE.get(config.model_type):
        return 0
    return 1 + (getattr(config, "pad_token_id", 0) or 0)


class Call(NamedTuple):
    """How an encoder is called on packed tokens."""

    mask: Tensor | dict[str, Tensor] | None  # its argument `attention_mask`
    results: dict[str, Tensor] = {}  # of the encoder's own methods, by name, in place of what they compute


@contextmanager
def packed(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Iterator[Tensor | dict[str, Tensor] | None]:
    """While it lasts, the encoder takes distances from `positions` (B, T) and keeps to `visible` (B, 1, T, T).

    Gives the attention mask that the encoder is to be called with.
    """
    prepare = CALLS.get(backbone.config.model_type, _absolute)
    call = prepare(backbone, positions, visible)
    for name, value in call.results.items():
        setattr(backbone.encoder, name, lambda *_, value=value, **__: value)
    try:
        yield call.mask
    finally:
        for name in call.results:
            delattr(backbone.encoder, name)  # the method of the class is seen again


def _absolute(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Call:
    return Call(_added_mask(visible))


def _mpnet(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Call:
    distances = positions[:, None, :] - positions[:, :, None]
    buckets = backbone.encoder.relative_position_bucket(distances)
    bias = backbone.encoder.relative_attention_bias(buckets).permute(0, 3, 1, 2)  # (B, heads, T, T)
    return Call(None, {"compute_position_bias": bias + _added_mask(visible)})


def _deberta(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Call:
    encoder = backbone.encoder
    distances = positions[:, :, None] - positions[:, None, :]
    if encoder.position_buckets > 0:
        distances = make_log_bucket_position(distances, encoder.position_buckets, encoder.max_relative_positions)
    # (1, B * heads, T, T): the one shape in which this encoder takes other distances for each sequence
    of_heads = distances.long().repeat_interleave(backbone.config.num_attention_heads, 0)[None]
    no_mask = torch.ones_like(positions)  # what is not seen is left to the second of the replaced methods
    return Call(no_mask, {"get_rel_pos": of_heads, "get_attention_mask": visible})


def _modernbert(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Call:
    distances = positions[:, None, :, None] - positions[:, None, None, :]
    far = distances.abs() > backbone.config.sliding_window
    mask = _added_mask(visible)
    return Call({"full_attention": mask, "sliding_attention": mask.masked_fill(far, HIDDEN)})


def _added_mask(visible: Tensor) -> Tensor:
    """bool (B, 1, T, T) -> float32 to be added to attention scores: 0 where a token is seen, else HIDDEN."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, HIDDEN)


CALLS = {"mpnet": _mpnet, "deberta-v2": _deberta, "modernbert": _modernbert}  # of the others: _absolute
