"""The ablation: every variant is run once, goes on where it stopped, and a failure is named."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.experiments import ablation
from patsim_utils.experiments.ablation import VariantsError, run_variants, splits_of
from patsim_utils.experiments.comparison import effects
from patsim_utils.experiments.processes import Processes
from patsim_utils.experiments.variants import Variant


def variant(name: str, config: Config | None = None, **fields: object) -> Variant:
    return Variant(**{"name": name, "idea": "x", "config": config or Config(), "stem": name} | fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"share": 0.0}, r"share 0\.0 is to be in"), ({"processes": 0}, "processes 0 is to be at least 1")],
)
def test_an_option_out_of_range_is_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_variants([variant("a")], tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_a_stop_ends_the_runs_that_are_under_way(tmp_path: Path, monkeypatch) -> None:
    def stopped(jobs: dict) -> None:
        while not list(tmp_path.glob("runs/.one-seed0.work")):
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "as_completed", stopped)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_variants([variant("one", Config(epochs=1000), seeds=3)], tmp_path / "runs")
    assert time.monotonic() - began < 120  # a thousand epochs take hours
    assert not psutil.Process().children()
    assert not (tmp_path / "runs" / "one-seed1.log").exists()


def test_a_stop_kills_a_process_that_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    wait = subprocess.Popen.wait

    def stopped(self: subprocess.Popen) -> int:
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", stopped)
    processes = Processes()
    with pytest.raises(KeyboardInterrupt):
        processes.run("ablation", tmp_path / "none", threads=1, log=tmp_path / "log")
    assert [child.returncode for child in processes.children] == [-signal.SIGKILL]


def test_what_cannot_be_trained_is_refused_before_anything_is(tiny_backbone, tmp_path, monkeypatch) -> None:
    base = Config(backbone=tiny_backbone("bert"), contrast_layer=1, rating_weight=0)
    rated = variant("rated", base.model_copy(update={"rating_weight": 1.0}))
    splits = {name: frame.drop(columns="rating") for name, frame in load("sample").items()}
    monkeypatch.setattr(ablation, "splits_of", lambda *_, **__: splits)
    monkeypatch.setattr(Processes, "run", lambda *_, **__: pytest.fail("something was trained"))
    with pytest.raises(InputError, match=r"^variant rated \(.*rated-seed0\): parameter rating_weight"):
        run_variants([variant("one", base), rated], tmp_path / "runs")
    deep = variant("deep", base.model_copy(update={"contrast_layer": 6}))
    with pytest.raises(InputError, match=r"^variant deep .*contrast_layer"):
        run_variants([deep], tmp_path / "runs")


def test_variants_run_once_and_failures_are_named(
    tiny_backbone, tmp_path: Path, capsys, monkeypatch, in_this_process
) -> None:
    failed = in_this_process(Processes(), "nothing", tmp_path, threads=1, log=tmp_path / "log")
    assert failed.status == 1
    assert "No module named" in failed.message
    monkeypatch.setattr(ablation, "Matcher", lambda config: None)  # else `broken` would not even begin
    config = Config(backbone=tiny_backbone("bert"), contrast_layer=1, epochs=1, batch_size=64)
    broken = variant("broken", config.model_copy(update={"backbone": str(tmp_path / "none")}))
    good = [variant("one", config), variant("same", config, stem="one")]
    folder = tmp_path / "runs"
    with pytest.raises(VariantsError, match=r"^broken-seed0: .*none.* \(status 1\)$"):
        run_variants([good[0], broken, good[1]], folder, share=0.05)
    out = capsys.readouterr().out
    assert re.search(r"^0 of 2 runs are there already\n(.*\n)+1 of 2: .*\n2 of 2: .*; about 0 min left$", out.strip())
    before = (folder / "one-seed0").stat()
    assert not (folder / "one-seed0" / "model").exists()
    run_variants(good, folder, share=0.05)
    assert "1 of 1 runs are there already" in capsys.readouterr().out
    assert (folder / "one-seed0").stat() == before
    assert effects(good, folder)["parameters"].nunique() == 1
    with pytest.raises(InputError, match="one-seed0 is the name of a finished run that differs in the data's rows"):
        run_variants(good, folder, share=0.1)


@pytest.mark.parametrize("protocol", ["anchor_disjoint", "random"])
def test_a_share_of_the_anchors_leaks_as_much_as_all(protocol: str) -> None:
    one = variant("one", Config(protocol=protocol, seed=42))
    every = splits_of(one, share=1.0)
    part = splits_of(one, share=0.2)
    trained = part["train"]["anchor"].unique()
    assert len(trained) == round(0.2 * every["train"]["anchor"].nunique())
    rows = every["validation"]
    if protocol == "random":
        rows = rows[rows["anchor"].isin(trained)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part["validation"], rows)


def test_shuffled_classes_keep_groups_and_counts() -> None:
    frame = load("sample")["train"]
    shuffled = splits_of(variant("one", shuffle_context=True), share=1.0)["train"]
    assert (shuffled["context"] != frame["context"]).mean() > 0.5
    groups = shuffled.groupby([frame["anchor"], frame["context"]])
    assert groups["context"].nunique().max() == 1
    pd.testing.assert_frame_equal(shuffled.drop(columns="context"), frame.drop(columns="context"))
