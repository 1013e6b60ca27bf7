"""Which weights of an encoder are trained, and how the weights of a network are written, read and checked.

LoRA (Hu et al. 2021, arXiv 2106.09685) freezes a weight W (out, in) and trains an update of low rank r beside it:
W + alpha / r * B A, with A (r, in) and B (out, r). peft puts it in place for training. What only scores needs no peft:
`merge` adds the update to W once, and the layers are plain ones.
"""

import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from patsim_utils.config import Config
from patsim_utils.errors import InputError, clip
from patsim_utils.method.encoder import ByteDropout

QUERY_KEY_VALUE = (
    r".*\.(query|key|value|query_proj|key_proj|value_proj|q_proj|k_proj|v_proj|q|k|v|q_lin|k_lin|v_lin|Wqkv)"
)
# Endings of the names that peft gives to a layer's weights -> endings of the same ones in a plain network
PEFT_ENDINGS = {
    ".base_layer.weight": ".weight",
    ".base_layer.bias": ".bias",
    ".lora_A.default.weight": ".weight.down",
    ".lora_B.default.weight": ".weight.up",
}


def adapt(backbone: nn.Module, config: Config) -> nn.Module:
    """Chooses what is trained of an encoder, which is changed in place; returns it, wrapped by peft where it has LoRA.

    - `lora`: low-rank updates on query, key and value layers; every other weight is frozen.
    - `lora_all`: the same on all linear layers.
    - `hyperlora`: the same as `lora_all`; `fusion.RankScale` then lets the class scale the ranks.
    - `full`: every weight is trained.

    Raises:
        InputError: the adapter cannot know to which sequence of the batch a state belongs.
    """
    check(backbone, config)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
    if config.adapter != "full":
        backbone = _with_lora(backbone, config)
    for parent in list(backbone.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, ByteDropout(child.p))
    return backbone


def check(backbone: nn.Module, config: Config) -> None:
    """InputError where the adapter does not work with this kind of encoder."""
    kind = backbone.config.model_type
    if config.adapter == "hyperlora" and kind.startswith("deberta"):
        raise InputError(
            f"adapter 'hyperlora' does not work with {kind}: its relative positions, which belong to no class, "
            f"go through the adapted layers, too; use 'lora'"
        )


def _with_lora(backbone: nn.Module, config: Config) -> nn.Module:
    import peft  # here, since its import takes seconds and a model that scores does without

    targets = QUERY_KEY_VALUE if config.adapter == "lora" else "all-linear"
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    with warnings.catch_warnings():  # peft asks transformers for a name that has been renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return peft.get_peft_model(backbone, lora)


def plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of a network without peft; a LoRA update is `<weight>.down` and `<weight>.up`.

    >>> list(plain_names({"backbone.base_model.model.a.query.lora_A.default.weight": torch.ones(2, 3)}))
    ['backbone.a.query.weight.down']
    """
    plain = {}
    for name, value in state.items():
        new_name = name.replace("backbone.base_model.model.", "backbone.", 1)
        for ending, plain_ending in PEFT_ENDINGS.items():
            if new_name.endswith(ending):
                new_name = new_name.removesuffix(ending) + plain_ending
        plain[new_name] = value
    return plain


def merge(state: dict[str, Tensor], *, scaling: float, source: object) -> dict[str, Tensor]:
    """Adds each update `scaling` * up (out, r) @ down (r, in) to its weight (out, in); the other tensors stay.

    InputError with the `source`, a path, where the three do not fit each other.
    """
    merged = {name: value for name, value in state.items() if not name.endswith((".down", ".up"))}
    names = {name.removesuffix(".down").removesuffix(".up") for name in state.keys() - merged.keys()}
    for name in sorted(names):
        weight, down, up = (state.get(key) for key in (name, f"{name}.down", f"{name}.up"))
        if weight is None or down is None or up is None:
            raise InputError(f"{source}: weight {clip(name)} is missing, or a part of its update")
        fits = weight.ndim == down.ndim == up.ndim == 2 and weight.shape == (up.shape[0], down.shape[1])
        if not fits or up.shape[1] != down.shape[0] or down.dtype != up.dtype:
            raise InputError(f"{source}: the update of weight {clip(name)} does not fit it")
        update = up.to(weight.dtype) @ down.to(weight.dtype) * scaling
        merged[name] = weight + update
    return merged


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes all weights of a module with safetensors."""
    save_tensors(module.state_dict(), path)


def save_tensors(state: dict[str, Tensor], path: Path) -> None:
    """Writes tensors with safetensors, also where two names share memory: each name gets a copy."""
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, path)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors writes for the owner alone


def load_weights(module: nn.Module, path: Path) -> None:
    """Reads what `save_weights` wrote; InputError where a weight is missing, unknown, mistyped or not finite."""
    fill(module, read_tensors(path), source=path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; InputError where it may not be read."""
    try:
        return load_file(path)
    except Exception as error:  # cut off, no safetensors, not there, not to be read
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path}: the weights may not be read ({clip(reason)})") from error


def fill(module: nn.Module, state: dict[str, Tensor], *, source: object) -> None:
    """Puts tensors into a module; InputError where one is missing, unknown, mistyped or not finite."""
    own = module.state_dict()
    for names, complaint in ((own.keys() - state.keys(), "is missing"), (state.keys() - own.keys(), "is unknown")):
        if names:
            raise InputError(f"{source}: weight {clip(min(names))} {complaint} ({len(names)} such)")
    for name, value in state.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            is_a, should_be = (f"{list(each.shape)} {each.dtype}" for each in (value, own[name]))
            raise InputError(f"{source}: weight {clip(name)} is {is_a}, not {should_be}")
        if not torch.isfinite(value).all():
            raise InputError(f"{source}: weight {clip(name)} holds values that are not finite")
    module.load_state_dict(state)
