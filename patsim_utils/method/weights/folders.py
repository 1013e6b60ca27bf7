"""A model in a folder: matcher.json, model.safetensors, in one of two forms. Nothing is pickled.

- `full`: all weights, and beside them encoder/config.json and tokenizer/. The backbone that the
  training began with is no longer needed.
- `adapter`: what training has changed (`adapters.compress`), a few MB. With LoRA it is exact; without,
  each matrix of the encoder has a low-rank approximation. Encoder and tokenizer are those of the
  backbone, whose weights' sha256 is in matcher.json.

With similarity features, features/ holds the regressor; the encoder that it reads is always `minilm`,
which is in none of the forms. The sha256 of the files in encoder/, tokenizer/ and features/ are in
matcher.json; model.safetensors is checked tensor by tensor.

Whatever a folder holds, names, shapes and dtypes of its weights are compared with its settings
before memory is taken for them.
"""

import json
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.errors import InputError, clip
from patsim_utils.layouts.tokens import AnyTokenizer
from patsim_utils.method import backbones, encoder
from patsim_utils.method.features import Regressor
from patsim_utils.method.model import Network, check_backbone
from patsim_utils.method.weights import adapters, files, sizes
from patsim_utils.method.weights.files import State

FORMAT = 3
FORMER_FORMAT = 2  # of the form `full`; its layout `packed` had a [SEP] behind each target
FORMS = ("full", "adapter")
NOTE = "matcher.json"
WEIGHTS = "model.safetensors"
FEATURES = "features"  # the folder of the regressor
SHIPPED = Path(__file__).parents[2] / "models"
NAMES = ("small", "large")  # of models that ship with the package


class Note(NamedTuple):
    """What matcher.json of a written model says."""

    config: Config
    titles: dict[str, str]
    form: str  # one of FORMS
    pretrained_sha256: str  # of the backbone's weights; empty in the form `full`


def find(path: str | Path) -> Path:
    """The folder of a model: of "small" or "large", of a run folder, or the path itself.

    InputError where no model is in it.
    """
    if path in NAMES:
        if not (SHIPPED / path / NOTE).is_file():
            hint = "`make study` trains one into runs/sample"
            raise InputError(f"model {path!r} is not in this copy of the package; {hint}")
        return SHIPPED / path
    for folder in (Path(path) / "model", Path(path)):
        if (folder / NOTE).exists():
            return folder
    raise InputError(f"{path}: there is no model here; `make study` trains one into runs/sample")


class Model(Protocol):
    """What `write` needs of a `matcher.Matcher`."""

    config: Config
    titles: dict[str, str]
    network: Network
    tokenizer: AnyTokenizer
    regressor: Regressor | None


def write(folder: Path, model: Model, *, form: str, svd_rank: int) -> None:
    """Writes a model; matcher.json comes last: where a kill leaves none, there is no model.

    An older model in the folder loses its matcher.json first; its other files are overwritten or
    stay. InputError where the form does not suit the model: the folder is as it was.

    Args:
        folder: is made where it is missing.
        form: "full", "adapter" or "auto": "adapter" where it loses nothing, which is with LoRA on
            `minilm` or `mpnet`, else "full".
        svd_rank: of the approximation that the adapter form keeps of a network without LoRA, whose
            numbers are then in float16. A network with LoRA keeps its own factors, in float32.
    """
    config = model.config
    network = model.network
    form = _chosen(form, network, config)
    content = {"format": FORMAT, "form": form, "config": config.model_dump(exclude={"data"})}
    tensors = network.state_dict()
    if form == "adapter":
        content["pretrained_sha256"] = backbones.digest(config.backbone)
        pretrained = encoder.load_backbone(config.backbone, layers=config.layers)
        tensors = learned(config, network, pretrained, svd_rank=svd_rank)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTE).unlink(missing_ok=True)
    if form == "full":
        network.encoder.config.save_pretrained(folder / "encoder")
        model.tokenizer.save_pretrained(folder / "tokenizer")
    files.save_tensors(tensors, folder / WEIGHTS)
    if model.regressor:
        model.regressor.save(folder / FEATURES)
    content |= {"codes": cpc.CODES, "titles": model.titles, "sha256": _digests(folder)}
    storage.write_text(folder / NOTE, json.dumps(content, indent=1))


def add_regressor(folder: Path, regressor: Regressor) -> None:
    """Adds a regressor to a folder that `write` has made without one, also to its matcher.json."""
    regressor.save(folder / FEATURES)
    path = folder / NOTE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["sha256"] = _digests(folder)
    storage.write_text(path, json.dumps(content, indent=1))


def _chosen(form: str, network: Network, config: Config) -> str:
    """A form of FORMS; InputError where there is none of this name."""
    if form == "auto":
        return "adapter" if _has_exact_factors(network, config) else "full"
    if form not in FORMS:
        raise InputError(f"form {clip(form)} is none of auto, {', '.join(FORMS)}")
    return form


def _has_exact_factors(network: Network, config: Config) -> bool:
    """Whether the adapter form loses nothing, and needs no folder that may be gone."""
    if config.adapter == "hyperlora" or config.backbone not in backbones.SHA256:
        return False
    return network.has_lora


def learned(config: Config, network: Network, pretrained: nn.Module, *, svd_rank: int) -> State:
    """What the adapter form keeps: LoRA's own factors in float32, else a compression in float16."""
    if config.adapter == "hyperlora":
        reason = "has an update for each class; only the form 'full' keeps it"
        raise InputError(f"adapter 'hyperlora' {reason}")
    dtype = torch.float32 if network.has_lora else torch.float16
    scaling = config.lora_alpha / config.lora_rank
    return adapters.compress(network, pretrained, svd_rank=svd_rank, scaling=scaling, dtype=dtype)


def compressed(config: Config, network: Network, *, svd_rank: int) -> Network:
    """The network that `write` in the adapter form and `read` would give back."""
    pretrained = encoder.load_backbone(config.backbone, layers=config.layers)
    kept = learned(config, network, pretrained, svd_rank=svd_rank)
    smaller = _on_top_of(pretrained, kept, config, source="the compressed model")
    return smaller.to(network.device).eval()


def read_note(folder: Path) -> Note:
    """What matcher.json says; InputError where it, or a small file that it names, is damaged."""
    path = folder / NOTE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format"]
        codes = tuple(content["codes"])
        settings = dict(content["config"])
        titles = dict(content["titles"])
        digests = dict(content["sha256"])
        form = content.get("form", "full")
        pretrained_sha256 = str(content.get("pretrained_sha256", ""))
    except OSError as error:
        raise InputError(f"{path}: may not be read ({error.strerror})") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged, or of another version of patsim") from error
    if version not in (FORMER_FORMAT, FORMAT) or codes != cpc.CODES or form not in FORMS:
        raise InputError(f"{folder}: the model was written by another version of patsim")
    if version == FORMER_FORMAT and settings.get("layout") == "packed":
        start = f"{folder}: the model was written by another version of patsim"
        raise InputError(f"{start}, whose layout 'packed' was another one; train it again")
    # older notes of a model with a regressor do not name its file
    names_features = any(name.startswith(f"{FEATURES}/") for name in digests)
    if _digests(folder, with_features=names_features) != digests:
        raise InputError(f"{folder}: a file of tokenizer/, encoder/ or features/ is missing or was changed")
    if titles.keys() != {*cpc.CODES} or not all(isinstance(text, str) for text in titles.values()):
        raise InputError(f"{path}: its titles are not those of the CPC codes")
    return Note(Config.parse(settings, source=str(path)), titles, form, pretrained_sha256)


def read(folder: Path, note: Note) -> tuple[Network, AnyTokenizer]:
    """The network, to score with, and its tokenizer; InputError where a part is damaged."""
    reader = {"full": _read_full, "adapter": _read_adapter}[note.form]
    network, tokenizer = reader(folder, note)
    known = network.encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        count = len(tokenizer)
        raise InputError(f"{folder}: the tokenizer has {count} tokens, and the encoder only {known}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device).eval(), tokenizer


def _read_full(folder: Path, note: Note) -> tuple[Network, AnyTokenizer]:
    weights = folder / WEIGHTS
    shapes = _plain(files.read_shapes(weights), note.config, weights)
    sizes.check(folder / "encoder" / "config.json", shapes)
    with torch.device("meta"):
        skeleton = encoder.empty_backbone(str(folder / "encoder"), tensors=len(shapes))
    check_backbone(skeleton, note.config)
    of_encoder = {name: shape for name, shape in shapes.items() if name.startswith("backbone.")}
    files.check_shapes(_of_encoder(skeleton), of_encoder, source=weights)
    backbone = encoder.empty_backbone(str(folder / "encoder"), tensors=len(shapes))
    state = files.read_tensors(weights)
    if note.config.adapter == "hyperlora":  # whose update is another one for each class
        backbone = adapters.adapt(backbone, note.config)
    else:
        state = _plain(state, note.config, weights)
    network = _network(backbone, note.config)
    files.fill(network, state, source=weights)
    return network, encoder.load_tokenizer(str(folder / "tokenizer"))


def _plain(state: State, config: Config, source: Path) -> State:
    """The tensors of the form `full` as those of a network without LoRA."""
    scaling = config.lora_alpha / config.lora_rank
    return adapters.merge(adapters.plain_names(state), scaling=scaling, source=source)


def _read_adapter(folder: Path, note: Note) -> tuple[Network, AnyTokenizer]:
    config = note.config
    if backbones.digest(config.backbone) != note.pretrained_sha256:
        fault = f"backbone {clip(config.backbone)} has other weights than the one it was trained on"
        raise InputError(f"{folder}: {fault}")
    weights = folder / WEIGHTS
    pretrained, tokenizer = encoder.load_to_score(config.backbone, layers=config.layers)
    check_backbone(pretrained, config)
    kept = files.read_tensors(weights)
    dtypes = {value.dtype for value in kept.values()}
    if dtypes not in ({torch.float16}, {torch.float32}):
        raise InputError(f"{weights}: its weights are not all float16, nor all float32")
    network = _on_top_of(pretrained, kept, config, source=weights)
    return network, tokenizer


def _on_top_of(pretrained: nn.Module, kept: State, config: Config, *, source: object) -> Network:
    state = adapters.restore(kept, pretrained, source=source)
    network = _network(pretrained, config)
    files.fill(network, state, source=source)
    return network


def _network(backbone: nn.Module, config: Config) -> Network:
    """A network around an encoder, whose other weights are to be read."""
    titles = torch.zeros(len(cpc.CODES), backbone.config.hidden_size)
    return Network(backbone, config, titles=titles)


def _of_encoder(backbone: nn.Module) -> State:
    """The tensors of an encoder under their names in a network."""
    return {f"backbone.{name}": value for name, value in backbone.state_dict().items()}


def _digests(folder: Path, *, with_features: bool = True) -> dict[str, str]:
    """sha256 of the files in encoder/, tokenizer/ and features/, by their path in the folder."""
    parts = ["encoder", "tokenizer"]
    if with_features:
        parts.append(FEATURES)
    paths: list[Path] = []
    for part in parts:
        paths += (folder / part).glob("*")
    names = {str(path.relative_to(folder)): path for path in sorted(paths) if path.is_file()}
    return {name: backbones.sha256(path) for name, path in names.items()}
