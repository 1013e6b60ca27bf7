"""Studies on tiny fixture notebooks: parameters checked before anything runs, failures that lose nothing, stops."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from patsim_utils import storage
from patsim_utils.config import Parameters
from patsim_utils.errors import InputError
from patsim_utils.study import notebooks, parameters, progress
from patsim_utils.study.pages import record
from patsim_utils.tool import cli
from patsim_utils.training import runs

FIXTURES = Path(__file__).parents[1] / "notebooks"
BROKEN = {  # notebooks that do not come to their end, by the cell that they end in
    "raises": 'raise ValueError("several lines,\\nthe last of which says what is wrong")',
    "is_killed": "import os\nos.write(2, b'out of memory')\nos.kill(os.getpid(), 9)",
    "leaves_early": "import sys\nsys.exit(0)",
    "waits": "import os, pathlib, time\npathlib.Path('kernel.pid').write_text(str(os.getpid()))\ntime.sleep(600)",
}
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose three notebooks are fixtures and end well, with one preset `tiny`."""
    shutil.copytree(REPOSITORY / "reports" / "template", tmp_path / "reports" / "template")
    (tmp_path / "notebooks" / "presets").mkdir(parents=True)
    (tmp_path / "notebooks" / "presets" / "tiny.yaml").write_text("epochs: 2\nlearning_rate: 2e-5\nlora_rank: 4\n")
    for name, fixture in {"1_explore": "ends_well", "2_train": "trains", "3_errors": "ends_well"}.items():
        put(tmp_path, name, fixture)
    for module in (notebooks, parameters, runs, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "Matcher", lambda config: None)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of a few made-up pairs, training and validation, no anchor in both."""
    made = tmp_path / "made up"
    made.mkdir()
    for split, anchors in {"train": ("oil pump", "gear"), "validation": ("lamp", "hinge")}.items():
        with (made / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["anchor", "target", "rating", "score", "context"])
            for anchor in anchors:
                rows.writerow([anchor, f"{anchor} part", "1b", "0.25", "F16"])
                rows.writerow([anchor, anchor, "4", "1.0", "F16"])
    return made


def put(root: Path, name: str, fixture: str) -> None:
    notebook = nbformat.read(FIXTURES / "ends_well.ipynb" if fixture in BROKEN else FIXTURES / f"{fixture}.ipynb", 4)
    if fixture in BROKEN:
        cells = [nbformat.v4.new_code_cell(source) for source in (BROKEN[fixture], 'print("never reached")')]
        notebook.cells = [*notebook.cells[:2], *cells]  # title and parameters stay
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


def run(folder: Path, *more: str) -> int:
    return cli.main(["study", "--preset", "tiny", "--data", str(folder), "--name", "one", *more])


def written(root: Path) -> set[str]:
    """Files below runs/ and reports/ other than the template and locks."""
    found = [path for place in ("runs", "reports") for path in (root / place).rglob("*") if path.is_file()]
    return {str(p.relative_to(root)) for p in found if "template" not in p.parts and not p.name.endswith(".lock")}


def test_a_study_that_ends_well(
    root: Path, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATSIM_P", "-p epochs 5 -p leak false")
    other = root / "jupyter" / "kernels" / "python3"  # a kernel that is registered here, but not to be taken
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "Another", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(root / "jupyter"))
    assert cli.main(["study", "--preset", "tiny", "--data", ".", "--name", "one"]) == 0
    records = [f"{place}/one/{name}.json" for place in ("runs", "reports") for name in ("metrics", "config")]
    pages = [f"reports/one/{name}.html" for name in notebooks.NOTEBOOKS]
    assert written(root) == {"reports/index.html", *records, *pages}
    out, err = capfd.readouterr()
    assert re.search(r"one/1_explore: started\none/1_explore: done in [\d.]+ s\none/2_train: started\n", out)
    assert err == ""
    page = (root / "reports/one/1_explore.html").read_text()
    # Preset below -p, text as a number; the data, relative to another folder, as the kernels find it.
    assert "[&#34;./made up&#34;, &#34;one&#34;, 5, 2e-05, false]" in page.replace('"', "&#34;")
    assert f"interpreter {sys.executable} folder {root}" in page
    # A setting that the notebook does not declare is there all the same.
    assert "<pre>lora_rank 4" in (root / "reports/one/2_train.html").read_text()


def test_a_page_about_other_runs_has_no_headline_of_this_one(root: Path, tmp_path_factory, monkeypatch) -> None:
    tops, folders = {}, []
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(notebooks.summary, "summary", lambda run: {"verdict": run.name})
    monkeypatch.setattr(notebooks.page, "page", lambda path, *, summary, **_: str(tops.setdefault(path.stem, summary)))
    put(root, "4_speed", "ends_well")
    notebooks.study(
        Parameters(name="one"), notebooks=["1_explore", "4_speed"], before=lambda: folders.append(Path.cwd())
    )
    assert tops == {"1_explore": {"verdict": "one"}, "4_speed": None}
    assert folders == [root]  # where the paths of its parameters start


@pytest.mark.parametrize(
    ("fixture", "said"),
    [
        ("raises", "ValueError: the last of which says what is wrong"),
        ("is_killed", "DeadKernelError: "),
        ("leaves_early", "StudyError: a cell left the notebook before its end"),
    ],
)
def test_a_failed_run_loses_nothing(
    root: Path, folder: Path, capsys: pytest.CaptureFixture[str], fixture: str, said: str
) -> None:
    put(root, "3_errors", fixture)
    whole, index = fixture == "raises", root / "reports/index.html"
    (root / "reports" / "one").mkdir()
    for name in notebooks.NOTEBOOKS:
        (root / "reports" / "one" / f"{name}.html").write_text("an older page")
    assert run(folder, *([] if whole else ["--notebooks", "3_errors"])) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: 3_errors failed: {said}")
    copy = root / "runs/.one.failed/3_errors.ipynb"
    assert os.path.relpath(copy) in error
    assert copy.with_suffix(".log").read_text().endswith("out of memory" * (fixture == "is_killed"))
    assert "never reached" not in json.dumps([cell.get("outputs") for cell in json.loads(copy.read_text())["cells"]])
    assert {page.read_text() for page in (root / "reports" / "one").iterdir()} == {"an older page"}
    assert re.search(rf"last run failed on 20\d\d-\S+ \(3_errors: {said}.*\); pages are of 20\d\d-", index.read_text())
    if not whole:  # it is mended in the same way, whatever the failure
        return
    put(root, "3_errors", "ends_well")
    assert run(folder, "--notebooks", "3_errors") == 0
    assert "failed" not in index.read_text()
    assert not copy.exists()
    assert (root / "reports/one/2_train.html").read_text() == "an older page"
    assert "interpreter" in (root / "reports/one/3_errors.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "epoch", "3"], "-p: there is no parameter 'epoch'; did you mean epochs?"),
        (["-p", "epochs", "2.5"], "-p: parameter epochs: '2.5' is not a valid integer"),
        (["-p", "learning_rate", "nan"], "-p: parameter learning_rate: 'nan' is not a finite number"),
        (["-p", "leak", "maybe"], "-p: parameter leak: 'maybe' is not a valid boolean"),
        (["-p", "lora_rank", "-1"], "-p: parameter lora_rank: '-1' is not greater than or equal to 1"),
        (["-p", "show_pair", "true"], "-p: there is no parameter 'show_pair'; patsim_utils/config.py lists them all"),
        (["-p", "data", "x"], "-p: data is set with --data"),
        (["-p", "cpc_titles", "no.zip"], "no.zip: cannot be read as the CPC title list"),
        (["-p", "backbone", "./typo"], "/typo': no such folder"),
        (["-p", "layers", "99"], "parameter layers: 99 is more than the 6 of backbone 'minilm'"),
        (["--preset", "huge"], "--preset: 'huge' is none of tiny"),
        (["--notebooks", "4_more"], "--notebooks: '4_more' is no notebook"),
        (["--data", "nowhere"], "nowhere: cannot be read ('No such file"),
        (["--data", "x" * 300], "xxx: cannot be read ('File name too long"),
    ],
)
def test_bad_input_is_one_line_and_nothing_runs(
    root: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch, arguments: list[str], said: str
) -> None:
    monkeypatch.undo()  # with the real Matcher, which checks backbone and titles
    for module in (notebooks, parameters, runs, record):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.chdir(root)
    assert run(folder, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert len(error) < 500
    assert written(root) == set()


@pytest.mark.parametrize(
    "name", ["a/b", "", "-p", "a" * 65, "template", "index.html", "Recorded", "notes", ".a.work", "a\n", "ä"]
)
def test_names_that_no_study_can_have(root: Path, name: str) -> None:
    (root / "reports" / "notes").touch()
    with pytest.raises(InputError, match=r"^--name: .* is (no|the) name of"):
        parameters.check_study_name(name)


@pytest.mark.parametrize("name", ["a.old", "a.new", "a.work", "a.index.old"])
def test_names_of_older_copies_are_names_like_others(root: Path, name: str) -> None:
    parameters.check_study_name(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epocs: 3", "tiny.yaml: there is no parameter 'epocs'; did you mean epochs?"),
        ("epochs: true", "tiny.yaml: parameter epochs: True true and false are no values of it"),
        ("leak: [1]", "tiny.yaml: parameter leak: [1] is not a valid boolean"),
        ("backbone: 3", "tiny.yaml: parameter backbone: 3 is not a valid string"),
        ("- epochs", "tiny.yaml: a preset consists of lines `parameter: value`"),
        ("epochs: [1", "tiny.yaml: is no YAML ("),
        ("epochs: 1\nseed: 2\nepochs: 3", "tiny.yaml: is no YAML ('epochs stands twice')"),
        ("? [a]\n: 1", "tiny.yaml: is no YAML ("),
        ("1: 2", "tiny.yaml: there is no parameter 1"),
    ],
)
def test_a_bad_preset(root: Path, folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    (root / "notebooks/presets/tiny.yaml").write_text(text)
    assert run(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1


def test_a_notebook_that_cannot_be_read_is_one_line(root: Path, folder: Path, capsys) -> None:
    path = root / "notebooks" / "3_errors.ipynb"
    path.write_text(path.read_text()[:50])
    assert run(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 3_errors.ipynb: is no notebook that can be read (")
    assert error.count("\n") == 1


def test_a_path_is_one_of_the_caller_and_a_keyword_only_the_bare_word(root: Path, monkeypatch) -> None:
    (root / "else" / "org" / "model").mkdir(parents=True)
    (root / "else" / "sample").mkdir()
    monkeypatch.chdir(root / "else")
    data = {text: parameters.located("data", text) for text in ("sample", "./sample", "sample/", "kaggle/", "..")}
    expected = {"sample": "sample", "./sample": "./else/sample", "sample/": "./else/sample", "..": "./."}
    assert data == expected | {"kaggle/": str(root / "else" / "kaggle")}  # which is not there
    located = {text: parameters.located("backbone", text) for text in ("org/model", "org/other", "minilm", "./x")}
    expected = {"org/model": "./else/org/model", "org/other": "org/other", "minilm": "minilm"}
    assert located == expected | {"./x": str(root / "else" / "x")}
    assert parameters.located("corpus", "sample") == "./else/sample"
    put(root, "6_search", "ends_well")
    with pytest.raises(InputError, match="parameter retriever: '/no/such' is not there"):
        notebooks.check(Parameters(retriever="/no/such"), notebooks=["6_search"])


def test_data_without_ratings_leaves_their_task_out(
    root: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = parameters.parameters("tiny", data=str(folder), name="one", settings=[])
    assert notebooks.check(asked).rating_weight == 1.0
    for split in ("train", "validation"):
        path = folder / f"{split}.csv"
        path.write_text(re.sub(r"(?m)(?<=,)(rating|1b|4),", "", path.read_text()))
    checked = notebooks.check(asked)
    assert checked.config.rating_weight == 0.0
    assert checked.chosen["rating_weight"] == 0.0  # so that the notebooks are told
    out = capsys.readouterr().out
    assert out.count("rating_weight 0: the data has no column rating to learn from\n") == 1


def test_another_run_of_this_name_is_replaced_only_if_told(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = ["one-leak", "one"]

    def other(_config: object, _splits: object, place: Path) -> None:
        if place.name in taken:
            raise InputError(f"{place.name} is the name of a finished run")

    monkeypatch.setattr(notebooks.runs, "finished", other)
    assert run(folder) == 2
    assert capsys.readouterr().err == "error: one is the name of a finished run\n"
    assert taken.pop() == "one"
    with pytest.raises(InputError, match="one-leak is the name of a finished run"):
        notebooks.check(Parameters(name="one", leak=True), notebooks=["2_train"])
    assert run(folder, "--replace", "--notebooks", "2_train") == 0


def test_a_second_run_of_one_name_is_refused(root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with storage.lock(root / "reports" / ".one.lock", "it"):
        assert run(folder) == 2
    assert capsys.readouterr().err.startswith("error: study one is being written by another process")
    with storage.lock(root / "runs" / ".one.lock", "it"):
        assert run(folder) == 2
    assert capsys.readouterr().err.startswith("error: run one is being written by another process")


PROGRAM = """
import pathlib, sys
from patsim_utils.study import notebooks, parameters
from patsim_utils.study.pages import record
from patsim_utils.tool import cli
from patsim_utils.training import runs
for module in (notebooks, parameters, record, runs):
    module.ROOT = pathlib.Path(sys.argv[1])
notebooks.Matcher = lambda config: None
sys.exit(cli.main(["study", "--preset", "tiny", "--data", sys.argv[2], "--name", "one"]))
"""


def test_a_stopped_study_says_how_to_go_on(root: Path, folder: Path) -> None:
    """Without standard input, as under cron."""
    put(root, "2_train", "waits")
    command, pid = ["bash", "-c", 'exec 0<&-; exec "$@"', "bash", sys.executable, "-c", PROGRAM], root / "kernel.pid"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    with subprocess.Popen([*command, str(root), str(folder)], **pipes) as process:
        while process.poll() is None and not (pid.is_file() and pid.read_text()):
            time.sleep(0.1)
        process.terminate()
        _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (143, "stopped; give the same command again to go on\n")
    assert not Path(f"/proc/{pid.read_text()}/stat").exists()
    assert written(root) == set()


def test_progress_tells_the_step(root: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.02)
    for run, step in (("one-leak", 90), ("one", 1200)):
        work = root / "runs" / f".{run}.work"
        work.mkdir(parents=True)
        (work / "progress.json").write_text(json.dumps({"step": step, "steps": 4000, "seconds": 3.0 * step}))
        os.utime(work / "progress.json", (step, step))
    with progress.watched("work", "one"):
        time.sleep(0.3)
    assert "step 1,200 of 4,000, about 2.3 h of training left" in capsys.readouterr().out
    (work / "progress.json").write_text("{")  # while it is being replaced
    assert "step 90 of 4,000" in progress.training("one")
    assert progress.training("two") == ""


def test_a_study_says_what_it_does_and_what_to_open(root: Path, folder: Path, capsys) -> None:
    assert run(folder, "--notebooks", "2_train") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("study one: preset tiny, 4 training pairs of ")
    assert out[1] == "notebooks: 2_train"
    assert out[2].startswith("training: minilm, LoRA r=4")
    assert out[2].endswith("; about 2 steps of 32 pairs")
    assert out[-1].startswith("open ")
    assert "one/2_train.html; all studies: " in out[-1]
    assert run(folder, "--notebooks", "3_errors") == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("loaded: the finished run ")
