"""Scoring by ONNX Runtime: torch's numbers, made once, without torch afterwards, and nothing reported to anybody."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from patsim_utils import storage
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import onnx  # before onnxruntime, which then reports nothing
from patsim_utils.tool import cli
from patsim_utils.tool.commands import checks

SECOND = """
import sys
from patsim_utils.tool import cli
assert cli.main(sys.argv[1:]) == 0
print(sorted({"torch", "transformers", "pydantic"} & sys.modules.keys()))
"""


def test_without_it_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--engine onnx: ONNX Runtime is not installed; pip install -e '.\[onnx\]'"):
        checks.check_engine(SimpleNamespace(engine="onnx", workers=1))
    # which writes the form that ONNX Runtime reads
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: name == "onnxruntime")
    with pytest.raises(InputError, match="--engine onnx: the package onnx is not installed"):
        checks.check_engine(SimpleNamespace(engine="onnx", workers=1))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    assert os.environ[onnx.SILENCE] == "1"
    for package in ("onnxruntime", "onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    return tmp_path / "cache"


def test_both_engines_give_the_same_numbers_and_the_second_start_needs_no_torch(cache: Path, tmp_path: Path) -> None:
    rows = load("sample")["test"].head(60)[["anchor", "target", "context"]]
    rows.loc[len(rows)] = ["air bag", "air-bag", "B60"]
    rows.to_csv(tmp_path / "pairs.csv", index=False)
    words = ["score", str(tmp_path / "pairs.csv"), "--explain"]
    assert cli.main([*words, "-o", str(tmp_path / "local.csv")]) == 0
    assert cli.main([*words, "-o", str(tmp_path / "first.csv"), "--engine", "onnx"]) == 0
    words += ["-o", str(tmp_path / "second.csv"), "--engine", "onnx"]
    process = subprocess.run([sys.executable, "-c", SECOND, *words], capture_output=True, text=True, check=False)
    assert process.stdout.splitlines()[-1:] == ["[]"], process.stderr
    expected = pd.read_csv(tmp_path / "local.csv")
    assert expected["prediction"].std() > 0.1
    for name in ("first.csv", "second.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), expected, rtol=0, atol=1e-3)
    assert [path.name for path in cache.iterdir()] == ["patsim"]  # a device's number would lie in another folder
    (graph,) = cache.rglob("model.onnx")
    graph.write_bytes(graph.read_bytes()[:1000])  # of a copy that was cut
    assert cli.main([*words[:-4], "-o", str(tmp_path / "third.csv"), "--engine", "onnx"]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "third.csv"), pd.read_csv(tmp_path / "first.csv"))


def test_a_graph_with_other_scores_is_refused_and_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patsim_utils.method.onnx import cached, export
    from patsim_utils.method.weights import folders

    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="--engine onnx: does not suit this model .scores differ by"):
        cached.load(folders.find("small"))
    assert not list(cache.rglob(f"[!.]*/{export.SETTINGS}"))
    features = SimpleNamespace(regressor=object())
    monkeypatch.setattr(export.Matcher, "load", lambda folder: features)
    with pytest.raises(InputError, match="this model has similarity features; use --engine local"):
        cached.load(folders.find("small"))


def test_a_graph_with_a_bit_that_changed_is_not_read(cache: Path) -> None:
    from patsim_utils.method.onnx import reader

    settings = {"pairs": {}, "special": {}, "files": storage.digest(b"a graph", b"a tokenizer")}
    (cache / reader.SETTINGS).write_text(json.dumps(settings))
    (cache / reader.GRAPH).write_bytes(b"a grapi")
    (cache / reader.FILE).write_bytes(b"a tokenizer")
    with pytest.raises(ValueError, match="the graph or the tokenizer was changed"):
        reader.Reader(cache)
