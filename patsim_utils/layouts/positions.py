"""Positions and attention mask of sequences with blocks, for each kind of encoder.

The positions of every block go on from the prefix, and no block sees another: so each is read as if
it stood alone behind the prefix. Encoders with learned absolute positions (BERT) take `position_ids`.
Encoders with relative positions count distances along the tokens, past other blocks; here the distances
are made from the positions instead:

- MPNet, DeBERTa-v2 and -v3: methods of the encoder that make distances or mask are replaced for one call.
- ModernBERT: its rotary angles follow `position_ids`; its local window becomes a mask of near positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from patsim_utils.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Encoders with learned absolute positions. 0: counted from 0; 1: from the number behind the padding id.
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

    Block 0 is seen by all tokens, block j > 0 and padding (-1) by themselves alone. Padding sees itself
    because a row of the mask without a single True would make the softmax NaN.
    """
    query = block[:, :, None]
    key = block[:, None, :]
    in_prefix = (key == 0) & (query >= 0)
    return (in_prefix | (key == query))[:, None]


def check(backbone: nn.Module, layout: str) -> None:
    """InputError where the encoder, or its installed version, cannot keep blocks apart."""
    if layout == "pair":
        return
    kind = backbone.config.model_type
    start = f"layout {layout!r} does not work with {kind}"
    if kind not in PASSED:
        raise InputError(f"{start}: a target's score could depend on its place; use layout 'pair'")
    if getattr(backbone.config, "conv_kernel_size", 0):
        reason = "and its convolution, which reads neighbouring targets"
        raise InputError(f"{start} {reason}; use layout 'pair'")
    for name in RELATIVE.get(kind, ()):
        if not hasattr(backbone.encoder, name):
            reason = f"of this version of transformers (it has no {name})"
            raise InputError(f"{start} {reason}; use layout 'pair'")


def first_position(config: "PretrainedConfig") -> int:
    """The number that an encoder gives to the position of the first token."""
    if not ABSOLUTE.get(config.model_type):
        return 0
    return 1 + (getattr(config, "pad_token_id", 0) or 0)


Mask = Tensor | dict[str, Tensor] | None  # what an encoder takes as `attention_mask`


class Call(NamedTuple):
    """How an encoder is called on sequences with blocks."""

    mask: Mask
    results: dict[str, Tensor] = {}  # what methods of the encoder return, by name, for this call


@contextmanager
def packed(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Iterator[Mask]:
    """Inside, the encoder takes distances from `positions` (B, T) and sees what is `visible` (B, 1, T, T).

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
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    encoder = backbone.encoder
    distances = positions[:, :, None] - positions[:, None, :]
    if encoder.position_buckets > 0:
        distances = make_log_bucket_position(distances, encoder.position_buckets, encoder.max_relative_positions)
    # (1, B * heads, T, T) is the shape in which this encoder takes distances of its own for each sequence
    heads = backbone.config.num_attention_heads
    of_heads = distances.long().repeat_interleave(heads, 0)[None]
    no_padding = torch.ones_like(positions)  # the mask comes from a method that is replaced
    return Call(no_padding, {"get_rel_pos": of_heads, "get_attention_mask": visible})


def _modernbert(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Call:
    distances = positions[:, None, :, None] - positions[:, None, None, :]
    far = distances.abs() > backbone.config.sliding_window
    mask = _added_mask(visible)
    return Call({"full_attention": mask, "sliding_attention": mask.masked_fill(far, HIDDEN)})


def _added_mask(visible: Tensor) -> Tensor:
    """bool (B, 1, T, T) -> float32, to be added to attention scores: 0 where visible, else HIDDEN."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, HIDDEN)


# Encoders with relative positions; the others are called by `_absolute`.
CALLS = {"mpnet": _mpnet, "deberta-v2": _deberta, "modernbert": _modernbert}
