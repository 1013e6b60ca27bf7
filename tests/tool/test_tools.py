"""The tools: the check of a GPU, run dry on the CPU with a tiny shape; what a search and a table cost, on few rows."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from patsim_utils import metrics
from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.method.matcher import Matcher

ROOT = Path(__file__).parents[2]
TEXT = {"capture_output": True, "text": True, "check": True}


def test_the_gpu_check_runs_dry(monkeypatch, capsys) -> None:
    script = ROOT / "tools" / "gpu_check.sh"
    said = subprocess.run([str(script), "--dry"], env={"PATH": os.environ["PATH"], "PYTHON": "echo"}, **TEXT)
    assert said.stdout.split() == [str(script.with_suffix(".py")), "--dry"]
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--dry"])
    runpy.run_path(str(script.with_suffix(".py")), run_name="__main__")
    rows = dict(re.findall(r"^\| (.*?) \| (.*) \|$", capsys.readouterr().out, flags=re.MULTILINE))
    assert rows["device"].startswith("CPU, torch")
    assert float(re.search(r"cosine of the gradients (\S+)", rows["one step, CPU fp32 and device bf16"])[1]) > 0.98
    for whole in ("MiniLM, packed, 96", "large shape, all weights, pair, 64"):
        assert re.search(r"s of training, .* Pearson -?0\.\d{4}$", rows[f"{whole} pairs a step, all epochs"])
    steps = [name for name in rows if name.startswith(("full, ", "lora_all, "))]
    shapes = ("full, packed, 32", "full, packed, 64", "full, pair, 16", "full, pair, 64")
    shapes += ("lora_all, packed, 32", "lora_all, pair, 16", "lora_all, pair, 64")
    assert steps == [*(f"{shape} pairs a step" for shape in shapes), f"{shapes[0]} pairs a step, no wait for the terms"]
    assert all(float(re.match(r"(\S+) ms a step", rows[name])[1]) > 0 for name in steps)


def test_the_cost_of_a_search_is_printed_and_its_index_kept(tiny_backbone, tmp_path, monkeypatch, capsys) -> None:
    Matcher(Config(backbone=tiny_backbone("bert"), layout="packed", contrast_layer=1)).save(tmp_path / "model")
    words = ["--run", str(tmp_path), "--phrases", "60", "--folder", str(tmp_path / "index"), "--queries", "10"]
    monkeypatch.setattr(sys, "argv", ["search_bench.py", *words])
    for built in (True, False):
        runpy.run_path(str(ROOT / "tools" / "search_bench.py"), run_name="__main__")
        printed = capsys.readouterr().out
        assert ("a second" in printed) is built
        found = json.loads(printed[printed.rindex("\n{\n") if built else 0 :])
        assert found["phrases"] == 60
        assert found["recall@100 of the exact search"] == pytest.approx(0.6)  # there are but 60
        assert 0 < found["retrieval"]["p50_ms"] <= found["search"]["p95_ms"]
        assert found["together"]["cpu_ms"] > 0
        assert found["together"]["equal"] == 1


def test_the_memory_of_a_table_is_printed(monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys, "argv", ["large_table.py", "memory", "--rows", "30"])
    runpy.run_path(str(ROOT / "tools" / "large_table.py"), run_name="__main__")
    read, scored = re.findall(r"(.*) ([\d,]+) MB at most", capfd.readouterr().out)
    assert scored[0] == "30 of 30 pairs,"
    assert 100 < int(read[1].replace(",", "")) <= int(scored[1].replace(",", ""))


def test_models_are_compared_on_the_same_pairs(tiny_backbone, tmp_path, monkeypatch, capsys) -> None:
    matcher = Matcher(Config(backbone=tiny_backbone("bert"), layout="packed", contrast_layer=1))
    for name in ("first", "second"):
        matcher.save(tmp_path / name / "model")
    names = [str(tmp_path / "first"), str(tmp_path / "second")]
    monkeypatch.setattr(sys, "argv", ["models.py", *names, "--data", "sample"])
    runpy.run_path(str(ROOT / "tools" / "models.py"), run_name="__main__")
    first, second, difference = capsys.readouterr().out.splitlines()
    frame = load("sample")["validation"]
    pearson = metrics.pearson(frame["score"], matcher.predictions(frame).scores)
    assert first.startswith(f"{names[0]}: Pearson {pearson:.4f} [")
    assert second.split(": ")[1] == first.split(": ")[1]
    assert difference == f"{names[1]} less {names[0]}: +0.0000 [+0.000, +0.000], paired over anchors"


def test_the_speed_of_a_model_is_printed_for_each_number_of_threads(monkeypatch, capsys) -> None:
    rates = {"1 x 100": {"pairs_per_second": 900.0, "cross_encoder": 150.0}}
    measured = {"rates": rates, "precision": "fp32"}
    speed = "patsim_utils.experiments.shipping.speed"
    monkeypatch.setattr(speed, lambda matcher, config: measured | {"threads": torch.get_num_threads()})
    before = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["models.py", "small", "--threads", "1"])
    try:
        runpy.run_path(str(ROOT / "tools" / "models.py"), run_name="__main__")
    finally:
        torch.set_num_threads(before)
    expected = "small, 1 x 100, 1 thread, fp32: 900 pairs a second, 6.00 times a CrossEncoder\n"
    assert capsys.readouterr().out == expected


def test_what_a_command_costs_is_printed_and_one_that_fails_is_told(monkeypatch, capsys) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "startup.py"))
    monkeypatch.setattr(sys, "argv", ["startup.py", "--times", "2"])
    wrong = {tool["WRONG"]: ["score", "pairs.csv", "-o", "scored.csv", "--no-such-option"]}
    monkeypatch.setitem(tool["main"].__globals__, "commands", lambda folder: wrong)
    tool["main"]()
    assert re.fullmatch(r"a wrong argument: \d+\.\d, \d+\.\d s of CPU\n", capsys.readouterr().out)
    with pytest.raises(RuntimeError, match="--no-such-option"):
        tool["seconds_of"](wrong[tool["WRONG"]], exit_code=0)
