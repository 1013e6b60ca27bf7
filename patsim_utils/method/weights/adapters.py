"""Which weights of an encoder are trained, and what of a trained network is worth keeping.

LoRA (Hu et al. 2021, arXiv 2106.09685) freezes a weight W (out, in) and trains an update of low
rank r beside it: W + alpha / r * B A, with A (r, in) and B (out, r). peft puts the update in place
for training. What only scores needs no peft: `merge` adds the update to W, and the layer is plain.
The exception is HyperLoRA, whose update differs from class to class: there peft's layers stay.

Under plain names, those of the adapter form, the update of a weight is two tensors:
`<weight>.down` (r, in) and `<weight>.up` (out, r), and the weight is W + up @ down.
"""

import warnings

import torch
from torch import Tensor, nn

from patsim_utils.config import Config
from patsim_utils.errors import InputError, clip
from patsim_utils.method.weights.files import State

QUERY_KEY_VALUE = (
    r".*\.(query|key|value|query_proj|key_proj|value_proj"
    r"|q_proj|k_proj|v_proj|q|k|v|q_lin|k_lin|v_lin|Wqkv)"
)
WRAPPER = "backbone.base_model.model."  # how names in an encoder begin that peft has wrapped
# Endings of peft's names in a layer with LoRA -> endings of the same tensors' plain names
PEFT_ENDINGS = {
    ".base_layer.weight": ".weight",
    ".base_layer.bias": ".bias",
    ".lora_A.default.weight": ".weight.down",
    ".lora_B.default.weight": ".weight.up",
}


def adapt(backbone: nn.Module, config: Config) -> nn.Module:
    """Prepares an encoder for training, in place; returns it, wrapped by peft where it has LoRA.

    Its dropout is set to `config.dropout` and replaced by `ByteDropout`. The heads, which are no
    part of the encoder, keep their own rate.

    - `lora`: updates of low rank on query, key and value; every other weight is frozen.
    - `lora_all`: the same on all linear layers.
    - `hyperlora`: the same as `lora_all`; with `fusion.RankScale` the class scales each of LoRA's ranks.
    - `full`: every weight is trained.

    InputError where the adapter does not work with this kind of encoder.
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
    """InputError for HyperLoRA on DeBERTa.

    Its layers also read relative positions, which all sequences share, and so belong to no class.
    """
    kind = backbone.config.model_type
    if config.adapter == "hyperlora" and kind.startswith("deberta"):
        raise InputError(
            f"adapter 'hyperlora' does not work with {kind}: its relative positions, which belong"
            f" to no class, go through the adapted layers, too; use 'lora'"
        )


def _with_lora(backbone: nn.Module, config: Config) -> nn.Module:
    import peft  # here, since its import takes seconds and a model that scores does without

    targets = "all-linear"
    if config.adapter == "lora":
        targets = QUERY_KEY_VALUE
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    with warnings.catch_warnings():  # peft asks transformers for a name that has been renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        try:
            return peft.get_peft_model(backbone, lora)
        except ValueError as error:  # it has no layers of these names, as decoders have none
            kind = backbone.config.model_type
            raise InputError(f"adapter {config.adapter!r} does not work with {kind} ({clip(error)})") from error


class ByteDropout(nn.Dropout):
    """Dropout that draws a byte for each element on a CPU, in a fifth of the time of torch's.

    The rate is thereby the nearest multiple of 1/256, and what is kept is scaled by it.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not self.p or input.device.type != "cpu":
            return super().forward(input)
        dropped = min(round(256 * self.p), 255)  # of 256 byte values
        words = torch.empty(-(-input.numel() // 8), dtype=torch.int64)  # of eight bytes
        words.random_(torch.iinfo(torch.int64).min, None)
        random_bytes = words.view(torch.uint8)[: input.numel()].view(input.shape)
        kept = random_bytes >= dropped
        return input * kept.to(input.dtype).mul_(256 / (256 - dropped))


def plain_names(state: State) -> State:
    """The tensors of a network that has LoRA, by plain names instead of peft's.

    These are `<weight>`, `<weight>.down` and `<weight>.up`.

    >>> update = torch.ones(2, 3)
    >>> list(plain_names({"backbone.base_model.model.query.lora_A.default.weight": update}))
    ['backbone.query.weight.down']
    """
    plain = {}
    for name, value in state.items():
        if name.startswith(WRAPPER):
            name = name.replace(WRAPPER, "backbone.", 1)
        for ending, plain_ending in PEFT_ENDINGS.items():
            if name.endswith(ending):
                name = name.removesuffix(ending) + plain_ending
        plain[name] = value
    return plain


def merge(state: State, *, scaling: float, source: object) -> State:
    """Adds `scaling` * up @ down to each weight that has an update; the other tensors stay.

    InputError with the `source`, such as a path, where weight and update do not fit.
    """
    merged = {name: value for name, value in state.items() if not name.endswith((".down", ".up"))}
    updated = {name.removesuffix(".down").removesuffix(".up") for name in state.keys() - merged.keys()}
    for name in sorted(updated):
        weight = state.get(name)
        down = state.get(f"{name}.down")
        up = state.get(f"{name}.up")
        if weight is None or down is None or up is None:
            raise InputError(f"{source}: weight {clip(name)} is missing, or a part of its update")
        if not _fit(weight, up, down):
            raise InputError(f"{source}: the update of weight {clip(name)} does not fit it")
        merged[name] = weight + up @ down * scaling
    return merged


def _fit(weight: Tensor, up: Tensor, down: Tensor) -> bool:
    """Whether weight + up @ down can be computed."""
    if not weight.dtype == up.dtype == down.dtype:
        return False
    if not weight.ndim == up.ndim == down.ndim == 2:
        return False
    return up.shape[1] == down.shape[0] and weight.shape == (up.shape[0], down.shape[1])


def compress(
    network: nn.Module,
    pretrained: nn.Module,
    *,
    svd_rank: int,
    scaling: float,
    dtype: torch.dtype,
) -> State:
    """What a network has learned, in few numbers; `restore` adds it to the pretrained encoder.

    Of a layer with LoRA its own two factors are kept. Of every other weight matrix of the encoder
    that has changed, the best approximation of rank `svd_rank` to trained minus pretrained is kept
    (truncated singular value decomposition), or the matrix itself where that is smaller. Biases,
    norms, heads and class vectors are kept as they are.

    Args:
        network: a `model.Network`.
        pretrained: the encoder that its training started from.
        svd_rank: of the approximation; not that of LoRA, whose factors are kept as they are.
        scaling: of LoRA's updates, alpha / r.
        dtype: of the tensors that are returned.
    """
    before = {f"backbone.{name}": value for name, value in pretrained.state_dict().items()}
    kept = {}
    for name, value in plain_names(network.state_dict()).items():
        value = value.detach().cpu()
        if name.endswith(".up"):
            kept[name] = value * scaling
        elif name not in before:  # also `<weight>.down`
            kept[name] = value
        else:
            kept |= _difference(name, value, before[name], svd_rank)
    return {name: value.to(dtype).contiguous() for name, value in kept.items()}


def _difference(name: str, value: Tensor, before: Tensor, svd_rank: int) -> State:
    """The tensors that say how a weight of the encoder differs from its pretrained value."""
    if torch.equal(value, before):
        return {}
    if value.ndim != 2 or svd_rank * sum(value.shape) >= value.numel():
        return {name: value}
    left, size, right = torch.linalg.svd(value.float() - before.float(), full_matrices=False)
    root = size[:svd_rank].sqrt()  # in both factors, so that neither is too small for float16
    return {f"{name}.down": root[:, None] * right[:svd_rank], f"{name}.up": left[:, :svd_rank] * root}


def restore(kept: State, pretrained: nn.Module, *, source: object) -> State:
    """The tensors of a plain network: what `compress` kept, on top of the pretrained encoder."""
    state = {f"backbone.{name}": value for name, value in pretrained.state_dict().items()}
    state |= {name: value.float() for name, value in kept.items()}
    return merge(state, scaling=1.0, source=source)
