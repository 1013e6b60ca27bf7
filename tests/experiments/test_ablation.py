"""The ablation: variants are read strictly, run once each, go on where they stopped, and are compared in pairs."""

import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from patsim_utils import metrics
from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.experiments import ablation
from patsim_utils.experiments.ablation import Variant, VariantsError, effects, read_variants, run_variants, sentences
from patsim_utils.training.runs import Run

Read = Callable[..., list[Variant]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """`read(text, base)` reads the variants of a file with that text."""
    monkeypatch.setattr(ablation, "VARIANTS", tmp_path)
    file = tmp_path / "few.yaml"
    return lambda text, base=None: file.write_text(text) and read_variants("few", base or Config())


def test_the_committed_variants_change_what_they_say() -> None:
    described = Config(adapter="lora_all", rating_weight=0, learning_rate=8e-4, head_learning_rate=1e-4)
    variants = {one.name: one for one in read_variants("ablation", described)}
    assert variants["described"].config == described
    assert variants["full"].config == described.model_copy(update={"adapter": "full", "learning_rate": 1e-4})
    assert variants["vector-and-title"].runs(Path("x")) == variants["described"].runs(Path("x"))  # not run twice
    assert list(variants["random-rows"].runs(Path("x"))) == [42]
    changed = {field for one in variants.values() for field, value in one.config if getattr(described, field) != value}
    assert {"loss", "contrast_weight", "context_text", "fusion", "adapter", "features", "layout"} < changed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {idea: x, change: {losss: mse}}", "variant 'a': there is no parameter 'losss'; did you mean loss"),
        ("a: {idea: x, change: {epochs: many}}", "variant 'a': parameter epochs: 'many'"),
        ("a: {idea: x, change: {loss: huber}}", "variant 'a': parameter loss: 'huber'"),
        ("a: {idea: x, change: 3}", "variant 'a': is no mapping"),
        ("a: {idea: x, against: b}\nb: {idea: x}", "variant 'a': against is 'b'"),
        ("a: {idea: x, idee: x}", "variant 'a': 'idee' is none of idea, against"),
        ("a: {idea: x, config: {loss: mse}}", "variant 'a': 'config' is none of"),
        ("a: {idea: x}\nb: {idea: x}\na: {idea: y}", "is no mapping of variants \\(a stands twice"),
        ("a: {idea: x, seeds: 0}", "variant 'a': seeds: .*greater"),
        ("a: {}", "variant 'a': idea: Field required"),
        ("../a: {idea: x}", "variant '../a': name: "),
        ("- a", "is no mapping of variants"),
        ("a: {idea: [x}", "is no mapping of variants"),
    ],
)
def test_a_broken_file_is_one_line(read: Read, text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^few.yaml: .*{said}") as error:
        read(text)
    assert "\n" not in str(error.value)


def test_what_is_not_there_or_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'ladder' is none of ablation"):
        read_variants("ladder", Config())
    for options in ({"share": 0.0}, {"processes": 0}):
        with pytest.raises(InputError, match="share .*processes"):
            run_variants(read_variants("ablation", Config()), tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_a_stop_ends_the_runs_that_are_under_way(read: Read, tmp_path: Path, monkeypatch) -> None:
    def stopped(jobs: dict) -> None:
        while not list(tmp_path.glob("runs/.one-seed0.work")):
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "as_completed", stopped)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_variants(read("one: {idea: x, seeds: 3}", Config(epochs=1000)), tmp_path / "runs")
    assert time.monotonic() - began < 120  # a thousand epochs take hours
    assert not psutil.Process().children()
    assert not (tmp_path / "runs" / "one-seed1.log").exists()


def test_a_stop_kills_a_process_that_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    wait, children = subprocess.Popen.wait, []

    def stopped(self: subprocess.Popen) -> int:
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", stopped)
    with pytest.raises(KeyboardInterrupt):
        ablation.process("ablation", folder=tmp_path / "none", threads=1, log=tmp_path / "log", children=children)
    assert [one.returncode for one in children] == [-signal.SIGKILL]


def test_what_cannot_be_trained_is_refused_before_anything_is(read: Read, tiny_backbone, tmp_path, monkeypatch) -> None:
    text = "one: {idea: x}\nrated: {idea: x, change: {rating_weight: 1}}\n"
    variants = read(text, Config(backbone=tiny_backbone("bert"), contrast_layer=1, rating_weight=0))
    splits = {name: frame.drop(columns="rating") for name, frame in load("sample").items()}
    monkeypatch.setattr(ablation, "splits_of", lambda *_, **__: splits)
    monkeypatch.setattr(ablation, "process", lambda *_, **__: pytest.fail("something was trained"))
    with pytest.raises(InputError, match=r"^variant rated \(.*rated-seed0\): parameter rating_weight"):
        run_variants(variants, tmp_path / "runs")
    deep = read("deep: {idea: x, change: {contrast_layer: 6}}", variants[0].config)
    with pytest.raises(InputError, match=r"^variant deep .*contrast_layer"):
        run_variants(deep, tmp_path / "runs")


def test_variants_run_once_and_failures_are_named(
    read: Read, tiny_backbone, tmp_path: Path, capsys, monkeypatch, in_this_process
) -> None:
    failed = in_this_process("nothing", folder=tmp_path, threads=1, log=tmp_path / "log", children=[])
    assert failed[0] == 1
    assert "No module named" in failed[1]
    monkeypatch.setattr(ablation, "Matcher", lambda config: None)  # else `broken` would not even begin
    tiny = {"backbone": tiny_backbone("bert"), "contrast_layer": 1, "epochs": 1, "batch_size": 64}
    text = f"one: {{idea: x}}\nbroken: {{idea: x, change: {{backbone: {tmp_path / 'none'}}}}}\nsame: {{idea: x}}\n"
    variants, folder = read(text, Config(**tiny)), tmp_path / "runs"
    with pytest.raises(VariantsError, match=r"^broken-seed0: .*none.* \(status 1\)$"):
        run_variants(variants, folder, share=0.05)
    out = capsys.readouterr().out
    assert re.search(r"^0 of 2 runs are there already\n(.*\n)+1 of 2: .*\n2 of 2: .*; about 0 min left$", out.strip())
    before = (folder / "one-seed0").stat()
    assert not (folder / "one-seed0" / "model").exists()
    good = [variants[0], variants[2]]
    run_variants(good, folder, share=0.05)
    assert "1 of 1 runs are there already" in capsys.readouterr().out
    assert (folder / "one-seed0").stat() == before
    assert effects(good, folder)["parameters"].nunique() == 1
    with pytest.raises(InputError, match="one-seed0 is the name of a finished run that differs in the data's rows"):
        run_variants(good, folder, share=0.1)


def test_effects_are_the_paired_differences_of_means(read: Read, tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    anchor = np.repeat([f"a{i}" for i in range(20)], 5)
    frame = pd.DataFrame({"anchor": anchor, "target": "t", "score": rng.integers(0, 5, 100) / 4, "split": "validation"})
    noise = {"one-seed0": 0.5, "one-seed1": 0.6, "two-seed0": 0.1, "two-seed1": 0.2}
    made = {run: frame.assign(prediction=frame["score"] + s * rng.normal(size=100)) for run, s in noise.items()}
    made["rows-seed0"] = made["one-seed0"].assign(target="other")
    pearson = {run: metrics.pearson(table["score"], table["prediction"]) for run, table in made.items()}

    def run_of(run: Path) -> Run:
        cost = {"seconds": 10.0 * (1 + int(run.name[-1])), "trainable_parameters": 7}
        numbers = {"validation": {"pearson": pearson[run.name]}, "train": cost}
        numbers["environment"] = {"commit": run.name, "date": "2026-01-02"}
        rest = made[run.name].iloc[:10].assign(split="test")
        predictions = pd.concat([made[run.name], rest], ignore_index=True)
        return Run(run, Config(), numbers, pd.DataFrame(), predictions)

    monkeypatch.setattr(Run, "open", run_of)
    text = "one: {idea: base, seeds: 2}\ntwo: {idea: less noise, against: one, change: {beta: 0}, seeds: 2}\n"
    text += "rows: {idea: other pairs, against: one, change: {alpha: 2}}\nsame: {idea: base, against: two}\n"
    text += "twin: {idea: base, against: one}\n"
    table = effects(read(text), tmp_path)
    assert table.columns.tolist() == ablation.COLUMNS
    assert [*table["variant"]] == ["two", "same", "one", "rows", "twin"]  # largest first, what is not compared last
    table = table.set_index("variant")
    means = {one: (pearson[f"{one}-seed0"] + pearson[f"{one}-seed1"]) / 2 for one in ("one", "two")}
    assert table.loc["two", "difference"] == pytest.approx(means["two"] - means["one"])
    assert 0 < table.loc["two", "difference_low"] < table.loc["two", "difference"] < table.loc["two", "difference_high"]
    assert table.loc["same", "difference"] == pytest.approx(pearson["one-seed0"] - pearson["two-seed0"])
    assert table["compared"].to_dict() == {"two": 2, "same": 1, "one": 0, "rows": 0, "twin": 0}
    assert table["difference"].isna().sum() == 3
    assert table.loc["one", ["worst_seed", "best_seed"]].tolist() == [pearson["one-seed1"], pearson["one-seed0"]]
    assert table.loc["one", ["pearson", "seconds", "parameters"]].tolist() == pytest.approx([means["one"], 15, 7])
    assert table.loc["one", ["protocol", "track", "commit"]].tolist() == ["anchor_disjoint", "pair", "one-seed0"]
    better, worse, alone, *_ = sentences(table.reset_index()).splitlines()
    assert re.fullmatch(r"- \*\*two\*\* \(less noise\) is significantly better than `one`: 0\..*, seeds: 2\.", better)
    assert worse.startswith("- **same** (base) is significantly worse than `two`: -0.")
    assert "reaches" in alone
    assert "nan" not in sentences(table.reset_index())
    assert "no significant difference to `one`" in sentences(table.reset_index().head(1).assign(difference_low=-0.01))


@pytest.mark.parametrize("protocol", ["anchor_disjoint", "random"])
def test_a_share_of_the_anchors_leaks_as_much_as_all(read: Read, protocol: str) -> None:
    [variant] = read("one: {idea: x}", Config(protocol=protocol, seed=42))
    every, part = (ablation.splits_of(variant, share=share) for share in (1.0, 0.2))
    trained = part["train"]["anchor"].unique()
    assert len(trained) == round(0.2 * every["train"]["anchor"].nunique())
    rows = every["validation"]
    if protocol == "random":
        rows = rows[rows["anchor"].isin(trained)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part["validation"], rows)


def test_shuffled_classes_keep_groups_and_counts(read: Read) -> None:
    [variant] = read("one: {idea: x, shuffle_context: true}")
    frame, shuffled = load("sample")["train"], ablation.splits_of(variant, share=1.0)["train"]
    assert (shuffled["context"] != frame["context"]).mean() > 0.5
    assert shuffled.groupby([frame["anchor"], frame["context"]])["context"].nunique().max() == 1
    pd.testing.assert_frame_equal(shuffled.drop(columns="context"), frame.drop(columns="context"))
