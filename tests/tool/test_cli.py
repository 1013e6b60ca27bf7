"""The command: help at once, one line for what is wrong, tables scored in their order and after a break."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.errors import InputError
from patsim_utils.experiments import ablation
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATION_WORDS, RELATIONS, in_words
from patsim_utils.study import notebooks
from patsim_utils.tool import cli, models, outputs, parts, rows, scale, scoring
from patsim_utils.tool.commands import checks

ROOT = Path(__file__).parents[2]


def score(run: Path, *words: object) -> int:
    return cli.main(["score", "--run", str(run), *map(str, words)])


def test_help_shows_presets_and_an_example_and_so_does_the_bare_command(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["study", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for line in ("sample      The sample that ships", "described ", "patsim study --preset sample\n"):
        assert line in text
    assert cli.main([]) == 0
    assert "search" in capsys.readouterr().out


WRONG = [
    ["stdy"],
    ["score", "nowhere.csv", "-o", "x.csv", "--run", "."],
    ["score", "pairs.csv", "-o", "x.zst", "--run", "."],
    ["score", "pairs.csv", "-o", "pairs.csv", "--run", "."],
    ["score", "pairs.csv", "-o", "x.csv", "--run", "nowhere"],
    ["score", "pairs.csv", "-o", "x.csv", "--model", "middle"],
    ["score", "pairs.csv", "-o", "x.csv", "--run", ".", "--workers", "2"],
    ["score", "pairs.csv", "-o", "x.csv", "--run", ".", "--context", "Q1"],
    ["score", ".", "-o", "-", "--run", "."],
    ["ask", "bolt", " ", "--context", "F16", "--run", "."],
    ["search", "bolt", "--context", "F16", "--corpus", "nowhere.csv", "--run", "."],
    ["search", "bolt", "--context", "F16", "--corpus", "sample", "--run", ".", "--top", "0"],
    ["study", "--preset", "nothing"],
    ["study", "--preset", "sample", "--data", "nowhere"],
    ["study", "--preset", "sample", "-p", "epoch", "1"],
    ["train", "--preset", "sample", "--name", "../x"],
    ["check-name", "../x"],
    ["ablation", "--preset", "sample", "--share", "2"],
    ["models", "all"],
    ["serve", "--run", "nowhere"],
    ["serve", "--run", ".", "--port", "-1"],
]
NEEDLESS = {"peft", "sklearn", "sentence_transformers", "lancedb", "matplotlib", "openpyxl", "ray", "papermill"}
PROGRAM = """
import json, sys
from patsim_utils.tool import cli

for words in json.loads(sys.argv[1]):
    assert cli.main(words) == 2, words
    slow = {"torch", "pandas", "transformers", "papermill", "lancedb"} & set(sys.modules)
    assert not slow, (words, slow)
"""


def test_what_is_wrong_is_said_before_anything_slow_is_imported(pairs: Path) -> None:
    Path("matcher.json").touch()
    command = [sys.executable, "-c", PROGRAM, json.dumps(WRONG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(WRONG)
    assert all(line.startswith("error: ") for line in lines)


def test_a_score_imports_nothing_that_it_does_not_need(run: Path, pairs: Path) -> None:
    program = "import sys; from patsim_utils.tool import cli; status = cli.main(sys.argv[1:]); print(*sys.modules)"
    words = ["score", "--run", str(run), str(pairs), "-o", "scored.csv", "--explain"]
    command = [sys.executable, "-c", f"{program}; sys.exit(status)", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not NEEDLESS & set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--version"], "the following arguments are required: command (patsim --help"),
        (["stdy"], "invalid choice: 'stdy'"),
        (["score", "x.csv"], "required: -o/--output (patsim score --help"),
        (["study", "--preset", "x", "-p", "epochs"], "argument -p: expected 2 arguments"),
        (["study", "--pres", "x"], "required: --preset"),
        (["study", "--preset", "sample", "x\x1b\n" * 400], "unrecognized arguments"),
        (["check-name", "../x"], "--name: '../x' is no name of a study"),
        (["record", "none"], "reports/none: there is no study of a run"),
        (["ask", "a", "b", "--context", "H04", "--threads", "99999999"], "'99999999' is more than 1,024"),
        (["score", "x.csv", "-o", "y.csv", "--workers", "1025"], "'1025' is more than 1,024"),
        (["serve", "--port", "65536"], "'65536' is no port: the last one is 65535"),
        (["ablation", "--preset", "sample", "--share", "2"], "argument --share: '2' is not in (0, 1]"),
    ],
)
def test_a_wrong_command_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(words)
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert error[:-1].isprintable()
    assert len(error) < 500


@pytest.mark.parametrize(
    ("destination", "status", "said"),
    [("/dev/full", 1, "error: [Errno 28] No space left on device\n"), (None, 1, "")],
)
def test_an_output_that_cannot_be_written_is_one_line(destination: str | None, status: int, said: str) -> None:
    """A disk that is full, and a reader that has gone."""
    program = "import sys; from patsim_utils.tool import cli; sys.exit(cli.main(['models']))"
    command = [sys.executable, "-c", program]
    if destination:
        with Path(destination).open("wb") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
        os.close(writing)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_sign_that_the_terminal_does_not_know_is_spelt_out(run: Path) -> None:
    program = "import sys; from patsim_utils.tool import cli; sys.exit(cli.main(sys.argv[1:]))"
    words = ["ask", "café", "bar", "--context", "H04", "--run", str(run)]
    settings = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=settings, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("'caf\\xe9' and 'bar' in H04")


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
    assert score(run, pairs, "-o", "scored.csv", "--threads", 1) == 0
    given, found = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (pairs, "scored.csv"))
    pd.testing.assert_frame_equal(found.iloc[:, :-1], given)
    assert found["prediction"].str.fullmatch(r"0\.\d{1,4}").all()
    expected = Matcher.load(run).score(given)
    np.testing.assert_allclose(found["prediction"].astype(float), expected, atol=6e-5)
    out, err = capsys.readouterr()
    assert out == "scored.csv: 21 pairs\n"
    assert err.startswith("1 thread of ")
    assert err.count("\n") <= 2
    assert sorted(os.listdir()) == ["pairs.csv", "scored.csv"]


def test_parts_keep_the_groups_of_a_listwise_model_together() -> None:
    frame = pd.DataFrame({"anchor": [*"abcabcabca"], "context": "H01"})
    for whole in (False, True):
        chunks = parts.chunks(frame, 4, whole_groups=whole)
        assert sorted(np.concatenate(chunks)) == list(range(10))
        parts_of_anchor = [sum("a" in frame["anchor"].iloc[rows].tolist() for rows in chunks)]
        parts_of_anchor += [sum(name in frame["anchor"].iloc[rows].tolist() for rows in chunks) for name in "bc"]
        assert (max(parts_of_anchor) == 1) is whole


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the scoring of parts stop after so many; the list holds the rows of each part that was begun."""
    sizes: list[int] = []
    values = scale.values

    def stopped(matcher: Matcher, part: pd.DataFrame, **options: object) -> np.ndarray:
        sizes.append(len(part))
        if len(sizes) == count + 1:
            raise KeyboardInterrupt
        return values(matcher, part, **options)

    monkeypatch.setattr(scale, "values", stopped)
    return sizes


def test_a_break_costs_one_chunk(run: Path, pairs: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 5)
    run = shutil.copytree(run, Path("real/model")).parent
    assert score(run, pairs, "-o", "whole.csv") == 0
    sizes = stop_after(2, monkeypatch)
    assert score(run, pairs, "-o", "scored.csv") == 130
    assert "stopped; give the same command again to go on" in capsys.readouterr().err
    assert not Path("scored.csv").exists()
    assert sizes[:2] == [5, 5]
    (run / "corpus.csv").touch()  # nothing of the model
    assert score(run, pairs, "-o", "scored.csv") == 0
    assert sum(sizes[3:]) == 11
    assert Path("scored.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sorted(os.listdir()) == ["pairs.csv", "real", "scored.csv", "whole.csv"]


def through_a_pipe(run: Path, content: bytes, *words: object) -> int:
    """`patsim score` of a table that comes through a named pipe of this folder."""
    pipe = Path("pipe")
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    try:
        return score(run, pipe, *words)
    finally:
        writer.join(timeout=60)
        pipe.unlink()


def test_of_another_table_through_a_pipe_nothing_is_taken(run: Path, pairs: Path, monkeypatch) -> None:
    """Case 23: a break while a pipe is scored, then another table through a pipe to the same output."""
    monkeypatch.setattr(scoring, "CHUNK", 5)
    first = pairs.read_bytes()
    second = first.replace(b"part", b"wood")
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert through_a_pipe(run, first, "-o", "scored.csv") == 130
    sizes = stop_after(99, monkeypatch)
    assert through_a_pipe(run, second, "-o", "scored.csv") == 0
    assert sum(sizes) == 21
    Path("second.csv").write_bytes(second)
    assert score(run, "second.csv", "-o", "right.csv") == 0
    assert Path("scored.csv").read_bytes() == Path("right.csv").read_bytes()


def test_no_other_command_writes_the_same_output_meanwhile(run: Path, pairs: Path, monkeypatch, capsys) -> None:
    write = outputs.write_table

    def late(*values: object, **options: object) -> None:
        monkeypatch.setattr(outputs, "write_table", write)
        assert score(run, pairs, "-o", "scored.csv") == 2
        write(*values, **options)

    monkeypatch.setattr(outputs, "write_table", late)
    assert score(run, pairs, "-o", "scored.csv") == 0
    assert "scored.csv is being written by another process" in capsys.readouterr().err
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
        (["-o", "pairs.csv"], "pairs.csv: exists already; --overwrite replaces it"),
        (
            ["-o", "x.csv", "--columns", "id,scor"],
            "--columns: 'scor' is none of 'id, context, Anchor, target, note, prediction', score",
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


def test_a_folder_is_scored_but_for_its_bad_tables(run: Path, pairs: Path, monkeypatch, capsys) -> None:
    for name in ("b", "d"):
        shutil.copyfile(pairs, pairs.parent / f"{name}.csv")
    (pairs.parent / "a.csv").write_text("anchor,target\nx,y\n")
    (pairs.parent / "c.csv").write_text("anchor,target,context\n")
    (pairs.parent / "deep").mkdir()
    shutil.copyfile(pairs, pairs.parent / "deep" / "e.csv")
    load, loaded = Matcher.load, []
    monkeypatch.setattr(Matcher, "load", lambda path: loaded.append(path) or load(path))
    assert score(run, pairs.parent, "--unknown", "embedding", "-o", "new/scored") == 2
    assert sorted(path.name for path in Path("new/scored").glob("[a-z]*")) == ["b.csv", "d.csv", "pairs.csv"]
    assert loaded == [run]  # once for all
    error = capsys.readouterr().err
    assert "1 tables in subfolders are not read: deep/e.csv" in error
    first, second = [line for line in error.splitlines() if line.startswith("error")]
    assert "a.csv: column 'context' is missing" in first
    assert "--context H04 one class for all rows" in first
    assert "c.csv: has no row below its header" in second


def test_a_table_of_a_folder_that_changed_is_scored_anew(run: Path, pairs: Path, capsys) -> None:
    Path("in").mkdir()
    for name in ("a", "b", "c"):
        shutil.copyfile(pairs, f"in/{name}.csv")
    assert score(run, "in", "-o", "out") == 0
    before = {path: path.read_bytes() for path in Path("out").glob("*.csv")}
    Path("in/b.csv").write_text(pairs.read_text().replace("part 19", "part x"))
    status = Path("out/c.csv").stat()
    Path("out/c.csv").write_text("of my own")
    os.utime("out/c.csv", ns=(status.st_atime_ns, status.st_mtime_ns))
    capsys.readouterr()
    assert score(run, "in", "-o", "out") == 2
    out, err = capsys.readouterr()
    assert "out/a.csv: is there already and stays as it is" in out
    assert "out/b.csv: the table, the model or an option changed; it is scored anew" in out
    assert "error: out/c.csv: is there already, and is not what this command wrote" in err
    assert Path("out/a.csv").read_bytes() == before[Path("out/a.csv")]
    assert Path("out/c.csv").read_text() == "of my own"
    assert score(run, "in/b.csv", "-o", "fresh.csv") == 0
    assert Path("out/b.csv").read_bytes() == Path("fresh.csv").read_bytes()


@pytest.mark.parametrize("cut", range(8))
def test_a_killed_scoring_of_a_folder_ends_as_if_it_had_not_been_killed(
    run: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Cut off before its first, second ... writing or deletion."""
    Path("in").mkdir()
    Path("in/a.csv").write_text(pairs.read_text().replace("part 7", " "))
    command = ("in", "--on-error", "skip", "-o")
    assert score(run, *command, "whole") == 2
    steps = iter(range(99))

    def step(done):
        def either(*values: object, **options: object) -> object:
            if next(steps) == cut:
                raise KeyboardInterrupt
            return done(*values, **options)

        return either

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", step(storage.write))
        patch.setattr(shutil, "rmtree", step(shutil.rmtree))
        assert score(run, *command, "killed") == (2 if cut == 7 else 130)
    assert score(run, *command, "killed") in (0, 2)
    contents = [{path.name: path.read_bytes() for path in Path(name).iterdir()} for name in ("whole", "killed")]
    assert contents[0] == contents[1]


def test_bad_rows_can_be_skipped_with_a_file_of_reasons(run: Path, pairs: Path, capsys) -> None:
    text = pairs.read_text().replace("3,h01m 8/04,b 0,part 3", "3,Q99,b 0,part 3").replace("part 7", " ")
    pairs.write_text(text)
    assert score(run, pairs, "-o", "x.csv") == 2
    assert "row 5, column context: 'Q99' is no CPC class" in (error := capsys.readouterr().err)
    assert "(and 1 more row: 9); --on-error skip" in error
    assert score(run, pairs, "-o", "x.csv", "--on-error", "skip", "--status", "status.json") == 2
    assert "x.csv: 19 pairs, 2 rows without a score: x.errors.csv" in capsys.readouterr().out
    scored = pd.read_csv("x.csv")
    assert scored["id"][scored["prediction"].isna()].tolist() == [3, 7]
    reasons = pd.read_csv("x.errors.csv")
    assert reasons["row"].tolist() == [5, 9]
    assert reasons["reason"].tolist()[1] == "column target: ' ' is an empty phrase"
    status = json.loads(Path("status.json").read_text())
    assert status["done"] == status["total"] == 19
    assert status["last_error"].startswith("column context: 'Q99'")


def test_columns_of_other_names_one_class_and_an_explanation(run: Path, pairs: Path) -> None:
    Path("own.csv").write_text("Query,Candidate,x\nbolt,screw,1\nbolt,nut,2\n")
    names = ["--anchor-column", "query", "--target-column", "Candidate"]
    assert score(run, "own.csv", "-o", "x.csv", *names, "--context", "F16", "--explain") == 0
    scored = pd.read_csv("x.csv")
    assert scored.columns.tolist() == [
        *("Query", "Candidate", "x", "prediction", "answer", "p_0", "p_0.25", "p_0.5", "p_0.75", "p_1"),
        *("relation", "relation_probability"),
    ]
    expected = Matcher.load(run).explain(pd.DataFrame({"anchor": "bolt", "target": ["screw", "nut"], "context": "F16"}))
    np.testing.assert_allclose(scored[["prediction", "p_0.5"]], expected[["score", "0.5"]], atol=6e-5)
    assert set(scored["relation"]) <= set(RELATIONS)
    assert scored["answer"].to_list() == [in_words(score) for score in scored["prediction"]]


def test_a_pair_is_answered_in_words(run: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["ask", "bolt", "screw", "--context", "F16B 5/00", "--run", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = Matcher.load(run).score(pd.DataFrame({"anchor": ["bolt"], "target": ["screw"], "context": ["F16"]}))
    assert lines[0].startswith("'bolt' and 'screw' in F16 (")
    assert lines[1] == f"score {expected[0]:.4f}"
    assert sum(float(line.split()[1]) for line in lines[2:7]) == pytest.approx(1, abs=1e-3)
    assert lines[7].startswith("the second is most probably: ")
    assert {words.rsplit(" ", 1)[0] for words in lines[7].split(": ")[1].split(", ")} <= {*RELATION_WORDS.values()}
    assert cli.main(["ask", "asdf qwer", "screw", "--context", "F16", "--run", str(run)]) == 0
    assert capsys.readouterr().err.endswith("'asdf qwer': no word of it is known; a score of it means little\n")


def test_the_models_that_ship_are_listed_and_used_by_name(run: Path, pairs: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(models, "FOLDER", Path("models"))
    assert cli.main(["models"]) == 2
    assert cli.main(["score", "pairs.csv", "-o", "x.csv"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: no model ships with this copy of patsim")
    assert second.startswith("error: --model: no model 'small' ships with this copy of patsim")
    for name in ("small", "large"):
        shutil.copytree(run, f"models/{name}")
    figures = {"pearson": 0.79, "low": 0.75, "high": 0.82, "split": "validation", "seeds": 3}
    figures |= {"megabytes": 7.5, "pairs_per_second": 1500, "threads": 1}
    Path("models/small/figures.json").write_text(json.dumps(figures))
    assert cli.main(["models"]) == 0
    small, large = capsys.readouterr().out.splitlines()
    said = "Pearson 0.790 [0.750, 0.820] on validation, 3 seeds; 7.5 MB; 1,500 pairs a second on 1 thread"
    assert " ".join(small.split()) == f"small {said}"
    assert large.startswith("large ")
    for words in ([], ["--model", "large"]):
        assert cli.main(["score", "pairs.csv", "-o", "x.csv", "--overwrite", *words]) == 0
    assert score(run, "pairs.csv", "-o", "y.csv") == 0
    assert Path("x.csv").read_bytes() == Path("y.csv").read_bytes()


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
    assert capsys.readouterr().err.endswith("error: 1515 rows\n")


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


def test_a_teacher_is_a_model_that_ships_or_a_run(tmp_path: Path) -> None:
    from patsim_utils.tool.commands.studies import _teacher

    assert _teacher("large") == models.FOLDER / "large"
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="there is no model here"):
        _teacher(str(tmp_path))
    (tmp_path / "model" / models.NOTE).write_text("{}")
    assert _teacher(str(tmp_path)) == tmp_path / "model"
    with pytest.raises(InputError, match="cannot be read"):
        _teacher(str(tmp_path / "other"))


def test_phrases_that_are_not_in_latin_letters_get_a_warning(capsys) -> None:
    frame = pd.DataFrame({"anchor": ["pump", "насос", "α-olefin"], "target": "oil pump", "context": "F16"})
    pairs, faults = rows.checked(frame, [2, 3, 4], "pairs.csv", unknown="error", skip=False)
    assert (len(pairs), faults) == (3, {})
    said = "pairs.csv: 1 of 3 rows are not in Latin letters, such as row 3; the model has learned English"
    assert capsys.readouterr().err.startswith(said)
    rows.checked(frame.drop(index=1).reset_index(drop=True), [2, 4], "pairs.csv", unknown="error", skip=False)
    checks.say_other_letters("pump", "Ölpumpe")
    assert capsys.readouterr().err == ""
    checks.say_other_letters("pump", "ポンプ")
    assert capsys.readouterr().err.startswith("'ポンプ': is not in Latin letters; the model has learned English")


def test_an_answer_does_not_replace_what_came_while_it_was_sought(tmp_path: Path, monkeypatch, capsys) -> None:
    output = tmp_path / "answer.csv"

    class Found:
        matcher = SimpleNamespace(tokenizer=SimpleNamespace(get_vocab=lambda: {"steel": 0}))

        def __call__(self, *_: object, **options: object) -> pd.DataFrame:
            output.write_text("mine")
            return pd.DataFrame({"phrase": ["iron"]})

    monkeypatch.setattr("patsim_utils.search.search.Search.open", lambda *_, **options: Found())
    words = ["search", "steel", "--context", "E04", "--corpus", "sample", "-o", str(output)]
    assert cli.main(words) == 2
    assert output.read_text() == "mine"
    assert "answer.csv: exists already; --overwrite replaces it" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
    assert output.read_text() == "phrase\niron\n"
