"""A finished run is opened by its name or folder, and told from a run of other settings, data or files."""

import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.training import runs
from patsim_utils.training.runs import Run

FIGURES = {"n": 1, "pearson": 0.5, "pearson_ci": [0.4, 0.6], "spearman": 0.5, "mae": 0.1, "qwk": 0.5, "loss": 1.0}
METRICS = {
    "protocol": "anchor_disjoint",
    "data": {"train": "0"},
    "environment": {"commit": "abc", "date": "2026-01-02", "seed": 0},
    "train": {"seconds": 1.0, "trainable_parameters": 7, "device": "cpu", "precision": "fp32"},
    "baselines": {},
    "validation": FIGURES,
}


def make_run(folder: Path, config: Config | None = None, **entries: object) -> Path:
    """A run folder without a model, whose metrics have these entries."""
    folder.mkdir(parents=True)
    config = config or Config(epochs=2)
    (folder / "config.json").write_text(json.dumps(config.model_dump()))
    (folder / "metrics.json").write_text(json.dumps(METRICS | entries))
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
        ("predictions.csv", "a,b\n1,2\n"),
        ("predictions.csv", "split,anchor,target,context,score,prediction\nvalidation,a,b,H04,x,y\n"),
        ("metrics.json", "{}"),
        ("metrics.json", json.dumps(METRICS | {"validation": FIGURES | {"pearson_ci": [0.4]}})),
        ("metrics.json", json.dumps(METRICS | {"validation": FIGURES | {"pearson": "<b>"}})),
        ("metrics.json", json.dumps(METRICS | {"test": 5})),
        ("metrics.json", json.dumps(METRICS | {"environment": None})),
        ("metrics.json", json.dumps(METRICS | {"epochs": "x"})),
    ],
)
def test_a_damaged_run_is_one_line(root: Path, file: str, text: str) -> None:
    (root / "runs" / "one" / file).write_text(text)
    with pytest.raises(InputError, match=r"/runs/one: the run is damaged \(.+\)$"):
        Run.open("one")


def test_a_setting_that_is_none_is_named_with_its_file(root: Path) -> None:
    (root / "runs" / "one" / "config.json").write_text('{"fusion": "sum"}')
    with pytest.raises(InputError, match=f"^{root}/runs/one/config.json: parameter fusion"):
        Run.open("one")


@pytest.fixture
def config(tiny_backbone, tmp_path: Path) -> Config:
    """Settings that name an encoder's folder and a title list."""
    shutil.copytree(tiny_backbone("bert"), tmp_path / "encoder")
    write_titles(tmp_path / "titles.zip", "electric communication technique")
    return Config(backbone=str(tmp_path / "encoder"), cpc_titles=str(tmp_path / "titles.zip"))


def write_titles(path: Path, title: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cpc-section-H_20220201.txt", f"H04\t5\t{title}\n")


def change_weight(folder: Path) -> None:
    tensors = load_file(folder / "encoder" / "model.safetensors")
    name = min(tensors)
    tensors[name] += 1
    save_file(tensors, folder / "encoder" / "model.safetensors", metadata={"format": "pt"})


def change_vocabulary(folder: Path) -> None:
    path = folder / "encoder" / "tokenizer.json"
    path.write_text(path.read_text().replace("steel", "stele"))


def change_titles(folder: Path) -> None:
    write_titles(folder / "titles.zip", "telephony")


CHANGES = {change_weight: "the backbone's files", change_vocabulary: "the backbone's files"}
CHANGES |= {change_titles: "the title list's content"}


@pytest.mark.parametrize("change", CHANGES)
def test_other_content_at_the_same_path_is_another_run(config: Config, tmp_path: Path, change) -> None:
    splits = load("sample")
    before = runs.identity(config, splits)
    assert before["files"].keys() == {"backbone", "cpc_titles"}
    run = make_run(tmp_path / "run", config, data=before["data"], files=before["files"])
    older = make_run(tmp_path / "older", config, data=before["data"])  # its version did not note the files
    assert runs.finished(config, splits, run)
    (tmp_path / "encoder" / "README.md").write_text("a file that no model reads")
    assert runs.identity(config, splits) == before
    change(tmp_path)
    assert runs.identity(config, splits) != before
    with pytest.raises(InputError, match=f"^run is the name of a finished run that differs in {CHANGES[change]}: "):
        runs.finished(config, splits, run)
    assert runs.finished(config, splits, older)


def test_a_run_is_known_by_its_settings_and_rows_wherever_the_data_lies(root: Path, tmp_path: Path) -> None:
    splits = load("sample")
    config = Config(epochs=2)
    run = make_run(tmp_path / "run", config, data=runs.identity(config, splits)["data"], files={})
    moved = config.model_copy(update={"data": "elsewhere"})
    assert runs.finished(moved, splits, run)["protocol"] == "anchor_disjoint"
    assert runs.identity(moved, splits) == runs.identity(config, splits)
    with pytest.raises(InputError, match="differs in epochs, learning_rate: choose another name"):
        runs.finished(config.model_copy(update={"epochs": 1, "learning_rate": 0.1}), splits, run)
    with pytest.raises(InputError, match="differs in the data's rows"):
        runs.finished(config, splits | {"train": splits["test"]}, run)


@pytest.mark.parametrize("name", ["notes.txt", "model.old"])
def test_a_run_with_a_users_file_is_not_replaced(root: Path, name: str) -> None:
    run = root / "runs" / "one"
    runs.refuse_foreign(run)
    runs.refuse_foreign(root / "runs" / "none")
    (run / name).mkdir()
    with pytest.raises(InputError, match=rf"one/{name}: is no part of a run, which is to be replaced; move it away"):
        runs.refuse_foreign(run)


def test_a_file_of_a_users_within_a_model_is_not_replaced_and_what_a_search_left_is(root: Path) -> None:
    run = root / "runs" / "one"
    left = ("corpus.csv", "retrieval.csv", "corpus.csv.index/index.json", "retriever/1_Pooling/config.json")
    for name in (*left, "corpus.csv.index/phrases.lance/data/1.lance", "model/tokenizer/vocab.txt", ".x/notes.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    runs.refuse_foreign(run)
    (run / "model" / "notes.md").touch()
    with pytest.raises(InputError, match=r"one/model/notes.md: is no part of a run"):
        runs.refuse_foreign(run)


def test_what_no_training_left_is_no_work_folder(tmp_path: Path) -> None:
    work = tmp_path / ".one.work"
    runs.refuse_foreign_work(work)
    work.mkdir()
    (work / ".identity.json.0123456789abcdef.new").touch()
    runs.refuse_foreign_work(work)  # a kill came right after its making
    (work / "notes.txt").touch()
    with pytest.raises(InputError, match=r"\.one\.work: is no run that a training left; move it away"):
        runs.refuse_foreign_work(work)
    (work / "identity.json").touch()
    runs.refuse_foreign_work(work)
