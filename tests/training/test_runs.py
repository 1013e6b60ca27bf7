"""A finished run is opened by its name or folder; one that is missing or damaged is one line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from patsim_utils.config import Config
from patsim_utils.errors import InputError
from patsim_utils.training import runs
from patsim_utils.training.runs import Run


def make_run(folder: Path) -> Path:
    """A run folder without a model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(Config(epochs=2).model_dump()))
    (folder / "metrics.json").write_text(json.dumps({"protocol": "anchor_disjoint", "data": {}}))
    pd.DataFrame({"step": [1], "loss": [0.5]}).to_csv(folder / "history.csv", index=False)
    row = {"split": "validation", "anchor": "null", "target": "nan", "context": "G06", "score": 0.25, "prediction": 0.5}
    pd.DataFrame([row]).to_csv(folder / "predictions.csv", index=False)
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose runs/ holds the finished runs `one` and `two`."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    make_run(tmp_path / "runs" / "one")
    make_run(tmp_path / "runs" / "two")
    return tmp_path


def test_a_run_is_opened_by_its_name_or_its_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open("one")
    assert run.folder == root / "runs" / "one"
    assert run.config == Config(epochs=2)
    assert run.metrics["protocol"] == "anchor_disjoint"
    assert run.history["loss"].tolist() == [0.5]
    assert run.predictions[["anchor", "target"]].iloc[0].tolist() == ["null", "nan"]  # phrases, not gaps
    monkeypatch.chdir(root / "runs")
    for same in (root / "runs" / "one", "./one", "../runs/one", Path("one")):
        assert Run.open(same).folder.samefile(run.folder)


def test_a_run_that_is_missing_names_its_absolute_path_and_those_that_are(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        Run.open("three")
    assert str(error.value) == f"{root}/runs/three: there is no finished run here; finished runs beside it: one, two"
    with pytest.raises(InputError, match=r"/none/three: there is no finished run here, nor beside it"):
        Run.open(tmp_path / "none" / "three")
    for number in range(30):
        make_run(root / "runs" / f"more-{number}")
    with pytest.raises(InputError, match=r"more-0, .* and 12 more$"):
        Run.open("three")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "[1]"),
        ("metrics.json", "3"),
        ("metrics.json", "["),
        ("metrics.json", "[" * 100_000),
        ("history.csv", ""),
        ("predictions.csv", 'a,b\n"'),
    ],
)
def test_a_damaged_run_is_one_line(root: Path, file: str, text: str) -> None:
    (root / "runs" / "one" / file).write_text(text)
    with pytest.raises(InputError, match=r"/runs/one: the run is damaged \(.+\)$"):
        Run.open("one")
