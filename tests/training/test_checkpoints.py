"""The newest whole checkpoint, whatever is wrong with a newer one."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from patsim_utils.training.checkpoints import newest_checkpoint, seconds_of

ARCHIVES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def make(folder: Path, step: int) -> Path:
    """A checkpoint as the Trainer writes one, whose training took 1.5 seconds a step."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    log = [{"seconds": 1.5}, {"seconds": 1.5 * step}]
    (path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    save_file({"weight": torch.ones(3)}, path / "model.safetensors")
    for name in ARCHIVES:
        with zipfile.ZipFile(path / name, "w") as archive:
            archive.writestr("data", bytes(100))
    return path


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[50] ^= 255  # in the data, so that the archive opens and its checksum is wrong
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    newest = [make(tmp_path, step) for step in (20, 100, 9)][1]
    assert newest_checkpoint(tmp_path) == newest
    assert seconds_of(newest) == 150
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("trainer_state.json", Path.unlink, "No such file"),
        ("trainer_state.json", cut, "Unterminated|delimiter|Expecting"),
        ("model.safetensors", Path.unlink, "No such file"),
        ("model.safetensors", cut, "header|Header"),
        ("rng_state.pth", Path.unlink, r"rng_state\.pth is missing"),
        *[(name, cut, "not a zip file") for name in ARCHIVES],
        *[(name, flip_a_byte, f"{name}: data is damaged") for name in ARCHIVES],
    ],
)
def test_a_damaged_one_is_deleted_and_the_one_before_is_taken(
    tmp_path: Path, capsys, name: str, damage: Callable[[Path], None], reason: str
) -> None:
    older = make(tmp_path, 20)
    newest = make(tmp_path, 100)
    damage(newest / name)
    assert newest_checkpoint(tmp_path) == older
    assert list(tmp_path.iterdir()) == [older]
    line = capsys.readouterr().out
    assert line.startswith("checkpoint-100 is incomplete and left out (")
    assert line.endswith(")\n")
    assert re.search(reason, line)


def test_the_random_state_of_every_device_is_checked(tmp_path: Path) -> None:
    newest = make(tmp_path, 20)
    (newest / "rng_state.pth").rename(newest / "rng_state_0.pth")
    shutil.copy(newest / "rng_state_0.pth", newest / "rng_state_1.pth")
    assert newest_checkpoint(tmp_path) == newest
    cut(newest / "rng_state_1.pth")
    assert newest_checkpoint(tmp_path) is None
