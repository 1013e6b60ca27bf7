"""Positions of packed tokens: each target's go on from the prefix, also where an encoder counts them by itself.

Encoders with learned absolute positions (BERT) take `position_ids`. Relative ones take distances from the order of the
tokens, which packing breaks; here they are made from `position_ids`, so that a target is read as if it stood alone
behind its prefix. MPNet and DeBERTa-v2/v3: the encoder's own method that makes the distances is replaced for one call.
ModernBERT: rotary angles follow `position_ids`, and its local window becomes a mask of near positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from patsim_utils.errors import InputError


def visible(block: Tensor) -> Tensor:
    """Blocks (B, T) -> bool (B, 1, T, T): may token q (third axis) attend to token k (fourth axis)?

    Block 0 is seen by all, block j > 0 by itself only, padding (-1) by nobody but itself: a row of the mask without
    a single True would make the attention's softmax NaN.
    """
    query, key = block[:, :, None], block[:, None, :]
    return (((key == 0) & (query >= 0)) | (key == query))[:, None]


# Encoders with learned absolute positions. The number says whether these start at 0 or behind the padding id.
ABSOLUTE = {"bert": 0, "roberta": 1, "xlm-roberta": 1, "electra": 0, "mpnet": 1}
# Encoders with relative ones, and the methods of theirs that are replaced.
RELATIVE = {
    "mpnet": ("compute_position_bias",),
    "deberta-v2": ("get_rel_pos", "get_attention_mask"),
    "modernbert": (),
}
PASSED = (*ABSOLUTE, *RELATIVE)  # encoders that are told the positions
HIDDEN = -1e30  # of an attention score that must count for nothing; finite also in bfloat16


def check(backbone: nn.Module, layout: str) -> None:
    """InputError where the encoder, or the installed version of it, cannot keep packed targets apart."""
    config = backbone.config
    kind, start = config.model_type, f"layout {layout!r} does not work with {config.model_type}"
    if layout in ("pair", "listwise"):
        return
    if kind not in ABSOLUTE and kind not in RELATIVE:
        raise InputError(f"{start}: a target's score could depend on its place; use layout 'pair'")
    if getattr(config, "conv_kernel_size", 0):
        raise InputError(f"{start} and its convolution, which reads neighbouring targets; use layout 'pair'")
    for name in RELATIVE.get(kind, ()):
        if not hasattr(backbone.encoder, name):
            raise InputError(f"{start} of this version of transformers (it has no {name}); use layout 'pair'")


def first(config: object) -> int:
    """The number that an encoder gives to a sequence's first token."""
    return ABSOLUTE.get(config.model_type, 0) * (1 + (getattr(config, "pad_token_id", 0) or 0))


@contextmanager
def packed(backbone: nn.Module, positions: Tensor, visible: Tensor) -> Iterator[Tensor | dict[str, Tensor] | None]:
    """While it lasts, the encoder takes distances from `positions` (B, T); gives the attention mask to call it with.

    `visible`: bool (B, 1, T, T), may token q (third axis) attend to token k (fourth axis)?
    """
    config = backbone.config
    hooks: dict[str, Tensor] = {}  # what methods of the encoder are to return
    mask = torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, HIDDEN)
    if config.model_type == "mpnet":
        buckets = backbone.encoder.relative_position_bucket(positions[:, None, :] - positions[:, :, None])
        bias = backbone.encoder.relative_attention_bias(buckets).permute(0, 3, 1, 2)  # (B, heads, T, T)
        hooks, mask = {"compute_position_bias": bias + mask}, None
    elif config.model_type == "deberta-v2":
        hooks = {"get_rel_pos": _deberta_distances(positions, backbone), "get_attention_mask": visible}
        mask = visible[:, 0].any(1).long()
    elif config.model_type == "modernbert":
        near = (positions[:, None, :, None] - positions[:, None, None, :]).abs() <= config.sliding_window
        mask = {"full_attention": mask, "sliding_attention": mask.masked_fill(~near, HIDDEN)}
    for name, value in hooks.items():
        setattr(backbone.encoder, name, lambda *_, value=value, **__: value)
    try:
        yield mask
    finally:
        for name in hooks:
            delattr(backbone.encoder, name)  # the class's own method is seen again


def _deberta_distances(positions: Tensor, backbone: nn.Module) -> Tensor:
    """Bucketed distances (1, B * heads, T, T), the one shape in which that encoder takes other ones for each row."""
    config, distances = backbone.encoder, positions[:, :, None] - positions[:, None, :]
    if config.position_buckets > 0:
        distances = make_log_bucket_position(distances, config.position_buckets, config.max_relative_positions).long()
    return distances.repeat_interleave(backbone.config.num_attention_heads, 0)[None]
