"""Checkpoints of the Trainer: which one a training goes on from."""

import json
import shutil
import zipfile
from pathlib import Path

from safetensors.torch import load_file

from patsim_utils.errors import clip


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; newer ones that are incomplete are deleted."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)
    for path in checkpoints:
        try:
            _check(path)
        except Exception as error:  # whatever is wrong with it, an older one is as good
            print(f"{path.name} is incomplete and left out ({clip(error)})", flush=True)
            shutil.rmtree(path)
        else:
            return path
    return None


def seconds_of(checkpoint: Path) -> float:
    """Seconds of training up to a checkpoint, also those of processes that were killed."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return state["log_history"][-1]["seconds"]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _check(checkpoint: Path) -> None:
    """An error of some kind where a file of the checkpoint is missing or damaged."""
    json.loads((checkpoint / "trainer_state.json").read_text())
    load_file(checkpoint / "model.safetensors")
    random_states = sorted(checkpoint.glob("rng_state*.pth"))  # one of each device
    if not random_states:
        raise FileNotFoundError("rng_state.pth is missing")
    for path in (checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *random_states):
        with zipfile.ZipFile(path) as archive:  # the Trainer unpickles nothing but tensors from it
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{path.name}: {damaged} is damaged")
