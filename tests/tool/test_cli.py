"""The command: help at once, one line for what is wrong, tables scored in their order and after a break."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.errors import InputError
from patsim_utils.experiments import ablation
from patsim_utils.method.matcher import Matcher
from patsim_utils.study import notebooks
from patsim_utils.tool import cli, outputs, scoring

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    for layout in ("packed", "listwise"):
        Matcher(Config(backbone=tiny_backbone("bert"), contrast_layer=1, layout=layout)).save(folder / layout)
    return folder / "listwise"


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pairs.csv"
    rows = [f"{i},h01m 8/04,{'ab'[i % 2]} {i // 6},part {i},=1+{i}" for i in range(20)]
    path.write_text("\n".join(["id,context,Anchor,target,note", *rows, "20,E04,null,nan,\n"]))
    return path


def score(run: Path, *words: object) -> int:
    return cli.main(["score", "--run", str(run), *map(str, words)])


def test_help_is_quick_and_shows_presets_and_an_example() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "patsim_utils", "study", "--help"], capture_output=True, text=True)
    assert time.monotonic() - began < 1
    assert done.returncode == 0
    for text in ("sample      The sample that ships", "described ", "patsim study --preset sample\n"):
        assert text in done.stdout
    program = "import sys, patsim_utils.tool.cli; sys.exit(bool({'torch', 'pandas', 'papermill'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: command (patsim --help"),
        (["stdy"], "invalid choice: 'stdy'"),
        (["score", "x.csv"], "required: --run, -o/--output (patsim score --help"),
        (["study", "--preset", "x", "-p", "epochs"], "argument -p: expected 2 arguments"),
        (["study", "--pres", "x"], "required: --preset"),
        (["study", "--preset", "sample", "x\x1b\n" * 400], "unrecognized arguments"),
        (["check-name", "../x"], "--name: '../x' is no name of a study"),
        (["record", "none"], "reports/none: there is no study of a run"),
        (["ablation", "--preset", "sample", "--share", "2"], "--share: is not in (0, 1]"),
    ],
)
def test_a_wrong_command_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = cli.main(words)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert error[:-1].isprintable()
    assert len(error) < 500


def test_words_for_make_are_those_of_a_shell(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PATSIM_P", "-p epochs 'it")
    assert cli.main(["study", "--preset", "sample"]) == 2
    assert capsys.readouterr().err == "error: P: No closing quotation\n"
    monkeypatch.setenv("PATSIM_P", "-p backbone 'no such; echo'")
    assert cli.main(["study", "--preset", "sample"]) == 2
    assert "backbone 'no such; echo'" in capsys.readouterr().err


@pytest.mark.parametrize("chunk", [4096, 5])
def test_rows_come_back_in_order_as_they_were(run: Path, pairs: Path, monkeypatch, capsys, chunk: int) -> None:
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    run = run.with_name("packed") if chunk == 5 else run
    assert score(run, pairs, "-o", "scored.csv") == 0
    given, found = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (pairs, "scored.csv"))
    pd.testing.assert_frame_equal(found.iloc[:, :-1], given)
    expected = Matcher.load(run).score(given)
    np.testing.assert_allclose(found["prediction"].astype(float), expected, atol=1e-6)
    out, err = capsys.readouterr()
    assert out == "scored.csv: 21 pairs\n"
    assert err.count("contexts are read as their CPC class") <= 1
    assert sorted(os.listdir()) == ["pairs.csv", "scored.csv"]


def test_a_break_costs_one_chunk(run: Path, pairs: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 5)
    calls, read = [], Matcher.read

    def stopped(self, frame, **options):
        calls.append(len(frame))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, frame, **options)

    run = shutil.copytree(run.with_name("packed"), Path("real/model")).parent
    assert score(run, pairs, "-o", "whole.csv") == 0
    monkeypatch.setattr(Matcher, "read", stopped)
    assert score(run, pairs, "-o", "scored.csv") == 130
    assert "stopped; give the same command again to go on" in capsys.readouterr().err
    assert not Path("scored.csv").exists()
    assert calls[:2] == [5, 5]  # also within a group, which does not matter here
    (run / "corpus.csv").touch()  # nothing of the model
    assert score(run, pairs, "-o", "scored.csv") == 0
    assert sum(calls[3:]) == 11
    assert Path("scored.csv").read_bytes() == Path("whole.csv").read_bytes()
    calls[:] = []
    assert score(run, pairs, "-o", "scored.csv", "--overwrite") == 130
    pairs.write_text(pairs.read_text().replace("part 19", "part x"))
    calls[:] = [0, 0, 0]
    assert score(run, pairs, "-o", "scored.csv", "--overwrite") == 0
    assert sum(calls) == 21  # of another input nothing is taken
    assert sorted(os.listdir()) == ["pairs.csv", "real", "scored.csv", "whole.csv"]


def test_no_other_command_writes_the_same_output_meanwhile(run: Path, pairs: Path, monkeypatch, capsys) -> None:
    write = outputs.write_table

    def late(*given: object, **options: object) -> None:
        monkeypatch.setattr(outputs, "write_table", write)
        assert score(run, pairs, "-o", "scored.csv") == 2
        write(*given, **options)

    monkeypatch.setattr(outputs, "write_table", late)
    assert score(run, pairs, "-o", "scored.csv") == 0
    assert "'scored.csv' is being written by another process" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["pairs.csv", "scored.csv"]
    load = Matcher.load
    monkeypatch.setattr(Matcher, "load", lambda path: Path("late.csv").write_text("theirs") and load(path))
    assert score(run, pairs, "-o", "late.csv") == 2  # it was written after the first look at it
    assert Path("late.csv").read_text() == "theirs"


def test_a_submission_and_standard_output(run: Path, pairs: Path, capfd) -> None:
    assert score(run, pairs, "-o", "-", "--columns", "id,note,score", "--spreadsheet-safe") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == "id,note,score"
    assert len(out) == 22
    assert out[4].startswith("3,'=1+3,0.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "pairs.csv"], "'pairs.csv': exists already; --overwrite replaces it"),
        (
            ["-o", "x.csv", "--columns", "id,scor"],
            "--columns: 'scor' is none of 'id, context, Anchor, target, note', score",
        ),
        (["-o", "x.csv", "--run", "nowhere"], "nowhere: there is no model here; `make study`"),
    ],
)
def test_what_cannot_be_scored_is_one_line(run: Path, pairs: Path, capsys, words: list[str], said: str) -> None:
    before = pairs.read_text()
    assert score(run, "pairs.csv", *words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
    assert os.listdir() == ["pairs.csv"]
    assert pairs.read_text() == before


def test_bad_rows_are_one_line(run: Path, pairs: Path, capsys) -> None:
    header = "anchor,target,context"
    for text, said in {
        f"{header}\na,,H04\n": "pairs.csv, row 2, column target",
        f"{header}\n": "pairs.csv: has no row below its header",
        f"{header},prediction\na,b,H04,1\n": "pairs.csv: there is a column 'prediction' already",
    }.items():
        pairs.write_text(text)
        assert score(run, pairs, "-o", "x.csv") == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert os.listdir() == ["pairs.csv"]


def test_an_unknown_class_can_be_scored_by_choice(run: Path, pairs: Path) -> None:
    pairs.write_text("anchor,target,context\na,b,\n")
    assert score(run, pairs, "-o", "x.csv", "--unknown", "embedding") == 0
    assert 0 <= pd.read_csv("x.csv")["prediction"].item() <= 1


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    run: Path, pairs: Path, tmp_path_factory, monkeypatch, capfd
) -> None:
    temporary, kept = tmp_path_factory.mktemp("temporary"), os.dup(1)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    try:
        with Path("/dev/full").open("wb") as full:
            os.dup2(full.fileno(), 1)
        assert score(run, pairs, "-o", "-") == 1
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert capfd.readouterr().err.splitlines()[-1] == "error: [Errno 28] No space left on device"
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(("terminal", "said"), [(True, "\r50 of 100 pairs, 25 a second, 2 s left\033[K"), (False, "")])
def test_progress(monkeypatch: pytest.MonkeyPatch, capsys, terminal: bool, said: str) -> None:
    clock = iter([0.0, 2.0, 40.0])
    monkeypatch.setattr(scoring.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = scoring.Progress(100, size=100)
    progress(1, 2)
    assert capsys.readouterr().err == said
    progress(4, 5)
    assert "80 of 100 pairs, 2 a second, 10 s left" in capsys.readouterr().err


def test_a_folder_is_scored_but_for_its_bad_tables(run: Path, pairs: Path, monkeypatch, capsys) -> None:
    for name in ("b", "d"):
        shutil.copyfile(pairs, pairs.parent / f"{name}.csv")
    (pairs.parent / "a.csv").write_text("anchor,target\nx,y\n")
    (pairs.parent / "c.csv").write_text("anchor,target,context\n")
    load, loaded = Matcher.load, []
    monkeypatch.setattr(Matcher, "load", lambda path: loaded.append(path) or load(path))
    assert score(run, pairs.parent, "--unknown", "embedding", "-o", "new/scored") == 2
    assert sorted(path.name for path in Path("new/scored").iterdir()) == ["b.csv", "d.csv", "pairs.csv"]
    assert loaded == [run]  # once for all
    first, second = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "a.csv: column 'context' is missing" in first
    assert "c.csv: has no row below its header" in second


def test_a_training_and_its_paths_start_where_the_command_was_given(
    tmp_path, monkeypatch, tiny_backbone, capsys
) -> None:
    shutil.copytree(ROOT / "patsim_utils" / "data" / "sample", tmp_path / "mine")
    shutil.copytree(tiny_backbone("bert"), tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)

    def fit(splits: dict, config: Config, folder: Path, **_: object) -> dict:
        Matcher(config)  # finds the encoder
        assert folder == ROOT / "runs" / "one"
        raise InputError(f"{len(splits['train'])} rows")

    monkeypatch.setattr("patsim_utils.training.fit.fit", fit)
    words = ["--preset", "sample", "--data", "mine", "--name", "one", "-p", "backbone", "./encoder"]
    assert cli.main(["train", *words, "-p", "contrast_layer", "1"]) == 2
    assert capsys.readouterr().err == "error: 1515 rows\n"


def test_an_ablation_runs_its_variants_and_then_its_notebook(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    asked = []
    monkeypatch.setattr(notebooks, "check", lambda parameters, **_: parameters)
    monkeypatch.setattr(ablation, "run_variants", lambda found, folder, **options: asked.append((folder, options)))

    def ran(parameters, *, notebooks, before):
        before()
        asked.append((parameters.name, parameters.variants, parameters.share, notebooks))

    monkeypatch.setattr(notebooks, "study", ran)
    words = ["ablation", "--preset", "sample", "--name", "one", "--processes", "3", "--share", ".5"]
    assert cli.main([*words, "-p", "share", "1"]) == 2
    assert "-p: share and variants are set with --share and --variants" in capsys.readouterr().err
    assert cli.main(words) == 0
    folder = ROOT / "runs" / "one-ablation"
    assert asked == [(folder, {"share": 0.5, "processes": 3}), ("one", "ablation", 0.5, ["5_ablation"])]

    def fail(*_: object, **__: object) -> None:
        raise ablation.VariantsError("mse-seed0: FloatingPointError: step 3")

    monkeypatch.setattr(ablation, "run_variants", fail)
    assert cli.main(words) == 1
    assert capsys.readouterr().err == "error: mse-seed0: FloatingPointError: step 3\n"
