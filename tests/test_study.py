"""Studies on tiny fixture notebooks: strict parameters, exit statuses, dead kernels, pages, index, table."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from patsim_utils import report, study
from patsim_utils.ablation import ArmsError, read_arms
from patsim_utils.errors import InputError
from patsim_utils.train import Settings

FIXTURES = Path(__file__).parent / "notebooks"
TEMPLATE = study.ROOT / "reports" / "template"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose three notebooks are fixtures and end well, with one preset `tiny`."""
    shutil.copytree(TEMPLATE, tmp_path / "reports" / "template")
    (tmp_path / "notebooks" / "presets").mkdir(parents=True)
    (tmp_path / "notebooks" / "presets" / "tiny.yaml").write_text("epochs: 2\nlearning_rate: 2e-5\n")
    for name, fixture in {"1_explore": "ends_well", "2_train": "trains", "3_errors": "ends_well"}.items():
        put(tmp_path, name, fixture)
    monkeypatch.setattr(study, "ROOT", tmp_path)
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
    shutil.copyfile(FIXTURES / f"{fixture}.ipynb", root / "notebooks" / f"{name}.ipynb")


def run(folder: Path, *more: str) -> int:
    return study.main(["--preset", "tiny", "--data", str(folder), "--name", "one", *more])


def written(root: Path) -> set[str]:
    """Files below runs/ and reports/ other than the template."""
    found = [path for place in ("runs", "reports") for path in (root / place).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)) for path in found if "template" not in path.parts}


def test_a_study_that_ends_well(root: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "-p", "epochs", "5", "-p", "show_pairs", "false") == 0
    assert written(root) == {
        "runs/one/metrics.json",
        "runs/one/config.json",
        "reports/index.html",
        *(f"reports/one/{name}" for name in ("metrics.json", "config.json")),
        *(f"reports/one/{name}.html" for name in study.NOTEBOOKS),
    }
    out, err = capfd.readouterr()
    assert re.search(r"one/1_explore: started\none/1_explore: done in \d+ s\none/2_train: started\n", out)
    assert err == ""
    page = (root / "reports/one/1_explore.html").read_text()
    # Preset below -p, text as a number, the data relative to the working folder, which is the root.
    assert "[&#34;made up&#34;, &#34;one&#34;, 5, 2e-05, false]" in page.replace('"', "&#34;")
    assert f"interpreter {sys.executable} folder {root}" in page
    assert (root / "reports/one/metrics.json").read_text() == (root / "runs/one/metrics.json").read_text()


def test_kernels_run_this_interpreter(
    root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "Another", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert run(folder, "--notebooks", "2_train") == 0


@pytest.mark.parametrize(
    ("fixture", "said"),
    [
        ("raises", "3_errors failed: ValueError: the last of which says what is wrong"),
        ("is_killed", "3_errors failed: DeadKernelError: "),
        ("leaves_early", "3_errors failed: StudyError: a cell left the notebook before its end"),
    ],
)
def test_a_failed_notebook_withdraws_the_study(
    root: Path, folder: Path, capsys: pytest.CaptureFixture[str], fixture: str, said: str
) -> None:
    put(root, "3_errors", fixture)
    stale = root / "reports" / "one"
    stale.mkdir()
    for name in study.NOTEBOOKS:
        (stale / f"{name}.html").write_text("an older page")
    assert run(folder) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1
    copy = root / "runs/one/failed/3_errors.ipynb"
    assert os.path.relpath(copy) in error
    assert "never reached" not in json.dumps([cell.get("outputs") for cell in json.loads(copy.read_text())["cells"]])
    assert not stale.exists()
    assert "No study has been recorded" in (root / "reports/index.html").read_text()


def test_a_part_of_the_study_again(root: Path, folder: Path) -> None:
    assert run(folder) == 0
    before = (root / "reports/one/2_train.html").read_bytes()
    assert run(folder, "--notebooks", "3_errors", "-p", "epochs", "9") == 0
    assert "9, 2e-05" in (root / "reports/one/3_errors.html").read_text()
    assert (root / "reports/one/2_train.html").read_bytes() == before
    put(root, "3_errors", "raises")
    assert run(folder, "--notebooks", "3_errors") == 1
    assert sorted(path.stem for path in (root / "reports/one").glob("*.html")) == ["1_explore", "2_train"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "epoch", "3"], "-p: no notebook has a parameter epoch; did you mean epochs?"),
        (["-p", "zzz", "3"], "-p: no notebook has a parameter zzz; known are data, epochs, learning_rate,"),
        (["-p", "epochs", "2.5"], "-p: parameter epochs: '2.5' is not a whole number (int)"),
        (["-p", "learning_rate", "fast"], "-p: parameter learning_rate: 'fast' is not a number (float)"),
        (["-p", "learning_rate", "nan"], "-p: parameter learning_rate: 'nan' is not a number (float)"),
        (["-p", "show_pairs", "1"], "-p: parameter show_pairs: '1' is not true or false (bool)"),
        (["-p", "epochs", "0"], "parameter epochs: 0 is not greater than 0"),
        (["-p", "data", "x"], "-p: data is set with --data"),
        (["--preset", "huge"], "--preset: 'huge' is none of tiny"),
        (["--name", "a/b"], "--name: 'a/b' is no name for a folder"),
        (["--name", "template"], "--name: 'template' is no name for a folder"),
        (["--notebooks", "4_more"], "--notebooks: there is no notebooks/4_more.ipynb"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(
    root: Path, folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(folder, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert written(root) == set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epocs: 3", "tiny.yaml: no notebook has a parameter epocs; did you mean epochs?"),
        ("epochs: 3.0", "tiny.yaml: parameter epochs: 3.0 is not a whole number"),
        ("epochs: true", "tiny.yaml: parameter epochs: True is not a whole number"),
        ("show_pairs: 1", "tiny.yaml: parameter show_pairs: 1 is not true or false"),
        ("learning_rate: [1]", "tiny.yaml: parameter learning_rate: [1] is not a number"),
        ("- epochs", "tiny.yaml: a preset consists of lines `parameter: value`"),
    ],
)
def test_a_bad_preset(root: Path, folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    (root / "notebooks/presets/tiny.yaml").write_text(text)
    assert run(folder) == 2
    assert f"error: {said}" in capsys.readouterr().err
    assert written(root) == set()


def test_bad_data_is_found_before_anything_is_written(
    root: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "train.csv"
    file.write_text(file.read_text().replace("gear part,1b,0.25", "gear part,1b,0.3"))
    assert run(folder) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in ("train.csv", "4", "score", "0.3"))
    assert written(root) == set()


def test_data_without_ratings_leaves_their_task_out(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(
        study, "declared", lambda *_: dict.fromkeys(("data", "name"), "str") | {"rating_weight": "float"}
    )
    monkeypatch.setattr(study, "study", lambda name, given, **_: asked.append(given["rating_weight"]))
    (root / "notebooks" / "presets" / "tiny.yaml").write_text("rating_weight: 1.0\n")
    assert run(folder) == 0
    for split in ("train", "validation"):
        path = folder / f"{split}.csv"
        path.write_text(re.sub(r"(?m)(?<=,)(rating|1b|4),", "", path.read_text()))
    assert run(folder) == 0
    assert asked == [1.0, 0.0]
    assert capsys.readouterr().out == "rating_weight 0: the data has no column rating to learn from\n"


def test_text_is_never_made_of_a_number() -> None:
    with pytest.raises(InputError, match=r"^p: parameter backbone: 3 is not text \(str\)$"):
        study.typed("backbone", 3, "str", source="p")


def test_the_command_without_arguments_gives_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        study.main([])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m patsim_utils.study")


def test_a_study_with_stdin_closed(root: Path, folder: Path) -> None:
    program = (
        "import pathlib, sys; from patsim_utils import study; study.ROOT = pathlib.Path(sys.argv[1]); "
        "sys.exit(study.main(['--preset', 'tiny', '--data', sys.argv[2], '--notebooks', '2_train']))"
    )
    command = ["bash", "-c", 'exec 0<&-; exec "$@"', "bash", sys.executable, "-c", program, root, folder]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_progress_tells_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "PROGRESS_SECONDS", 0.02)
    for step in (90, 1200):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = {"global_step": step, "max_steps": 4000}
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    with study.told("work", tmp_path):
        time.sleep(0.3)
    assert "past step 1200 of 4000" in capsys.readouterr().out


def test_progress_tells_what_there_is_of_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "PROGRESS_SECONDS", 0.02)
    (tmp_path / "judge-0").mkdir()
    (tmp_path / "reader-0.safetensors").touch()
    with study.told("work", tmp_path):
        time.sleep(0.3)
    assert "work: 0 s, judge-0, reader-0 done or begun\n" in capsys.readouterr().out


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the fixture notebook that shows each kind of output."""
    copy = tmp_path_factory.mktemp("page") / "ends_well.ipynb"
    study.execute(FIXTURES / "ends_well.ipynb", copy, {"name": "a & b"})
    titles = {"ends_well": "It ends <well>", "other": "Another: with more"}
    return report.page(copy, name="a & b", titles=titles, reports=study.ROOT / "reports")


def external(html: str) -> list[str]:
    """What a page would load from elsewhere: scripts, styles, fonts, images, frames."""
    tags = re.findall(r"<(?:script|link|img|iframe|source|video|audio|object|embed|use|image)\b[^>]*>", html)
    loaded = [tag for tag in tags if re.search(r"""(?:src|srcset|href|data)\s*=\s*["']?(?!data:|#)[^"'\s>]""", tag)]
    return [*loaded, *re.findall(r"(?:url\(|@import)\s*[\"']?(?!data:|#)[^)\s]+", html)]


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://example.org/a.js"></script>',
        "<link rel=stylesheet href=//example.org/a.css>",
        "<img alt='' src='figure.png'>",
        "<style>@import 'a.css'</style>",
        "<style>a { background: url(https://example.org/a.png) }</style>",
    ],
)
def test_external_finds_what_is_loaded(html: str) -> None:
    assert external(html)


def test_a_page_loads_nothing(page: str) -> None:
    assert external(page) == []
    assert "<script" not in page


def test_code_and_messages_are_folded_not_gone(page: str) -> None:
    folds = re.compile(r'<details class="folded.*?</details>', flags=re.DOTALL)
    folded, shown = "".join(folds.findall(page)), folds.sub("", page)
    for text in ("# Parameters", "learning_rate", "a warning that belongs behind a fold", "not bold"):
        assert text in folded
        assert text not in shown
    assert page.count("<summary>Messages</summary>") == 1
    assert "<b>not bold" not in page
    assert "<details open" not in page


def test_a_page_says_where_it_comes_from(page: str) -> None:
    assert "<title>It ends &lt;well&gt; · a &amp; b</title>" in page
    assert 'href="../index.html"' in page
    assert '<a href="other.html">Another</a>' in page
    assert re.search(r"\d{4}-\d\d-\d\d · commit \S+", page)


def test_a_page_names_no_folder_of_the_machine(page: str) -> None:
    assert f"interpreter {sys.executable.removeprefix(f'{study.ROOT}/')} folder" in page
    assert f"{study.ROOT}/" not in page


def test_a_page_shows_every_kind_of_output(page: str) -> None:
    for text in ("cell 11 of a wide table", "<strong>0.001</strong>", '<img alt="one pixel"', "<pre>6</pre>"):
        assert text in page


def test_the_committed_pages_load_nothing_and_are_small() -> None:
    pages = sorted((study.ROOT / "reports").rglob("*.html"))
    for html in pages:
        assert external(html.read_text(encoding="utf-8")) == [], html
        assert html.stat().st_size < 2e6, html
    studies = {path.parent.name for path in (study.ROOT / "reports").glob("*/*.html")}
    shown = (study.ROOT / "reports/index.html").read_text(encoding="utf-8") if pages else ""
    assert studies == set(re.findall(r"<h2>(.*?)</h2>", shown))


def record(root: Path, folder: Path, name: str, seed: int) -> None:
    arguments = ["--preset", "tiny", "--data", str(folder), "--name", name, "-p", "seed", str(seed)]
    assert study.main([*arguments, "--notebooks", "2_train"]) == 0


def test_the_index_and_the_table_show_every_recorded_study(root: Path, folder: Path) -> None:
    record(root, folder, "one", 0)
    record(root, folder, "one-seed3", 3)
    other = root / "reports" / "random"
    shutil.copytree(root / "reports" / "one", other)
    metrics = json.loads((other / "metrics.json").read_text())
    metrics |= {"protocol": "random", "test": metrics["validation"] | {"n": 1234, "mae": 0.125}}
    metrics["leak"] = {"validation": metrics["validation"] | {"pearson": 0.8, "pearson_ci": [0.78, 0.82]}}
    (other / "metrics.json").write_text(json.dumps(metrics))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layout": "list", "target_sep": False}))
    report.write_index(root / "reports")
    index = (root / "reports/index.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", index) == ["one", "one-seed3", "random"]
    assert "0.730 [0.650, 0.750]" in index
    assert "minilm, LoRA r=8, context title, fusion add, loss smooth_k2 + 0.4 ntxent, pair layout, 3 epochs" in index
    assert index.count("so the figure flatters") == index.count("A track of its own") == 1
    assert '<a href="one/2_train.html">A notebook that leaves a run</a>' in index
    assert external(index) == []
    assert index.count("list layout without target [SEP]") == 1
    assert report.in_company(config | {"evidence": "group"})
    assert "fusion add, evidence all with a stack of 2, loss" in report.method(config | {"evidence": "all", "stack": 2})

    rows = [line for line in report.results_table(root / "reports").splitlines() if line.startswith("| `")]
    mean = "mean of 2 seeds: **0.715**<br>seed 0: 0.700 [0.650, 0.750]<br>seed 3: 0.730 [0.650, 0.750]"
    assert rows[0] == f"| `one` | validation, anchors unseen | 200 | {mean} | 0.680 | 0.150 | 0.715 | 0.715 |"
    assert rows[1].startswith("| `random` | validation, in company, random, anchors leak | 200 | seed 0: 0.700")
    assert rows[2].startswith(
        "| `random` | test, in company, random, anchors leak | 1,234 | seed 0: 0.700 [0.650, 0.750] |"
    )
    assert rows[2].endswith("| 0.680 | 0.125 |  |  |")
    assert "seed 0: 0.800 [0.780, 0.820] | 0.680 | 0.150 |  |  |" in rows[3]


def test_the_readme_is_written_between_its_marks(root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = root / "README.md"
    readme.write_text("before\n<!-- results:start -->\nold\n<!-- results:end -->\nafter\n")
    assert study.main(["--write-readme"]) == 0
    assert "old" not in readme.read_text()
    record(root, folder, "one", 0)
    capsys.readouterr()
    assert study.main(["--table"]) == 0
    table = capsys.readouterr().out
    assert "seed 0: 0.700" in table
    assert study.main(["--write-readme"]) == 0
    assert readme.read_text() == f"before\n<!-- results:start -->\n{table}<!-- results:end -->\nafter\n"
    readme.write_text("no marks")
    assert study.main(["--write-readme"]) == 2
    assert readme.read_text() == "no marks"


def test_the_readme_shows_the_recorded_results() -> None:
    command = ["git", "status", "--porcelain", "reports"]
    if subprocess.run(command, cwd=study.ROOT, capture_output=True, text=True, check=False).stdout:
        pytest.skip("studies have run here since the last commit; `make readme` if they are to be recorded")
    readme = (study.ROOT / "README.md").read_text(encoding="utf-8")
    assert report.with_results(readme, report.results_table(study.ROOT / "reports")) == readme, "run: make readme"


def test_the_ablation_runs_its_arms_and_then_its_notebook(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put(root, "5_ablation", "ends_well")
    asked = []
    monkeypatch.setattr(study, "run_arms", lambda arms, runs, **options: asked.append((len(arms), runs, options)))
    command = ["ablation", "--preset", "tiny", "--data", str(folder), "--name", "one", "--processes", "3"]
    assert study.main(command) == 0
    [(arms, runs, options)] = asked
    assert arms == len(read_arms("ablation", Settings()))
    assert runs == root / "runs" / "one" / "ablation"
    assert options == {"share": study.SHARE, "processes": 3}
    assert (root / "reports" / "one" / "5_ablation.html").is_file()

    def fail(*_: object, **__: object) -> None:
        raise ArmsError("mse-seed0: FloatingPointError: step 3")

    monkeypatch.setattr(study, "run_arms", fail)
    assert study.main(command) == 1
    assert capfd.readouterr().err == "error: mse-seed0: FloatingPointError: step 3\n"


def test_a_failed_ablation_takes_its_recorded_effects_back(root: Path, folder: Path, monkeypatch) -> None:
    put(root, "5_ablation", "raises")
    monkeypatch.setattr(study, "run_arms", lambda *_, **__: None)
    (root / "reports" / "one").mkdir()
    for name in ("1_explore.html", "5_ablation.html", "effects.csv"):
        (root / "reports" / "one" / name).write_text("older")
    assert study.main(["ablation", "--preset", "tiny", "--data", str(folder), "--name", "one"]) == 1
    assert [path.name for path in (root / "reports" / "one").iterdir()] == ["1_explore.html"]


def test_the_settings_in_one_line_say_how_many_layers_are_kept() -> None:
    for layers, said in ((0, "minilm, LoRA r=8"), (3, "minilm, lowest 3 layers, LoRA r=8")):
        assert report.method(asdict(Settings(layers=layers))).startswith(said)
