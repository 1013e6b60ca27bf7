"""A small run and a table of pairs for the tests of the tool."""

from pathlib import Path

import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.method.matcher import Matcher


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    Matcher(Config(backbone=tiny_backbone("bert"), contrast_layer=1, layout="packed")).save(folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pairs.csv"
    rows = [f"{i},h01m 8/04,{'ab'[i % 2]} {i // 6},part {i},=1+{i}" for i in range(20)]
    path.write_text("\n".join(["id,context,Anchor,target,note", *rows, "20,E04,null,nan,\n"]))
    return path
