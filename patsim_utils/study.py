"""Run the notebooks as one study and publish them: strict papermill, then self-contained HTML.

`python -m patsim_utils.study --preset P --data D --name N [-p key value ...]` checks every parameter and
every row of the data, runs copies of the notebooks one after the other, and only when all of them came to
their end writes `reports/N/*.html`, `metrics.json` and `config.json` beside them, and `reports/index.html`.
Exit status: 0 for that, 1 when a notebook failed, 2 when the input was wrong (one line, nothing written).

`python -m patsim_utils.study ablation --preset P --data D --name N [--processes k]` runs the arms of the ablation that
are not done yet, then the notebook that compares them.
"""

import argparse
import difflib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import papermill
import yaml
import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from patsim_utils import data as pairs
from patsim_utils import report
from patsim_utils.ablation import ArmsError, read_arms, run_arms
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError
from patsim_utils.train import Settings

NOTEBOOKS = ("1_explore", "2_train", "3_errors")
RECORDS = ("metrics.json", "config.json", "effects.csv")  # what notebooks leave in the run folder for the reports
SHARE = 0.25  # of the training anchors, in an ablation
PROGRESS_SECONDS = 30.0
TYPES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}

Value = int | float | str | bool


class StudyError(RuntimeError):
    """A notebook did not come to its end; the message says which, why, and where its copy lies."""


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with the interpreter that runs now, whatever `python3` kernels are registered here."""

    @default("kernel_spec_manager")
    def _native_kernel_only(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"  # unencrypted kernels warn on stderr


def run_folder(name: str) -> Path:
    """Folder of what the training of study `name` leaves (git-ignored): model, metrics, history."""
    return ROOT / "runs" / name


def report_folder(name: str) -> Path:
    """Folder of the pages of study `name`."""
    return ROOT / "reports" / name


def declared(*notebooks: Path) -> dict[str, str]:
    """Name -> annotated type (a key of TYPES) of every parameter that the notebooks declare."""
    found: dict[str, str] = {}
    for notebook in notebooks:
        entries = papermill.inspect_notebook(notebook)
        found |= {name: entry["inferred_type_name"] for name, entry in entries.items()}
    return found


def typed(name: str, value: object, kind: str, *, source: str) -> Value:
    """`value` as the `kind` declared for parameter `name`, else an InputError that names `source`.

    Text may stand for a finite number, or for true and false: YAML takes `2e-5` for text, and a command line
    knows nothing else. The other way round, a number is never taken for text.
    """
    text = str(value).strip()
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in ("int", "float") and not isinstance(value, bool):
        try:
            number = int(text) if kind == "int" else float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    raise InputError(f"{source}: parameter {name}: {value!r} is not {TYPES[kind]} ({kind})")


def checked(given: dict[str, object], types: dict[str, str], *, source: str) -> dict[str, Value]:
    """`given` with every name among `types` and every value of its type, else an InputError."""
    for name in given:
        if name not in types:
            near = difflib.get_close_matches(str(name), types, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(types))}"
            raise InputError(f"{source}: no notebook has a parameter {name}; {hint}")
    return {name: typed(name, value, types[name], source=source) for name, value in given.items()}


def preset(name: str) -> dict[str, object]:
    """The mapping in `notebooks/presets/<name>.yaml`, not checked yet."""
    folder = ROOT / "notebooks" / "presets"
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise InputError(f"--preset: {name!r} is none of {', '.join(known)}")
    found = yaml.safe_load(known[name].read_text(encoding="utf-8")) or {}
    if not isinstance(found, dict):
        raise InputError(f"{name}.yaml: a preset consists of lines `parameter: value`")
    return found


def parameters(preset_name: str, *, data: str, name: str, given: list[list[str]]) -> dict[str, Value]:
    """All parameters of a study: the preset's, over them the `given` [key, value] pairs, data and name.

    A data folder is put relative to the repository's root, which is where the notebooks run.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == "template":
        raise InputError(f"--name: {name!r} is no name for a folder (letters, digits, '.', '_', '-'; not 'template')")
    for key, _ in given:
        if key in ("data", "name"):
            raise InputError(f"-p: {key} is set with --{key}")
    types = declared(*sorted((ROOT / "notebooks").glob("*.ipynb")))
    folder = data if data in ("sample", "kaggle") else os.path.relpath(Path(data).resolve(), ROOT)
    return {
        **checked(preset(preset_name), types, source=f"{preset_name}.yaml"),
        **checked(dict(given), types, source="-p"),
        **checked({"data": folder, "name": name}, types, source="study"),
    }


@contextmanager
def told(label: str, checkpoints: Path) -> Iterator[None]:
    """Says on stdout when `label` starts and ends and, now and then, how far its training has come."""
    began = time.time()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PROGRESS_SECONDS):
            saved = sorted(checkpoints.glob("*/trainer_state.json"), key=lambda path: int(path.parent.name[11:]))
            line = f"{label}: {time.time() - began:.0f} s"
            try:
                state = json.loads(saved[-1].read_text(encoding="utf-8"))
                line += f", past step {state['global_step']} of {state['max_steps']}"
            except (IndexError, FileNotFoundError, json.JSONDecodeError):
                # no checkpoint yet, or one that is being written or replaced: say what there is of a stack, if any
                stack = sorted(
                    path.stem for path in checkpoints.glob("*-*") if path.stem.startswith(("reader", "judge"))
                )
                line += f", {', '.join(stack)} done or begun" if stack else ""
            print(line, flush=True)

    print(f"{label}: started", flush=True)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    print(f"{label}: done in {time.time() - began:.0f} s", flush=True)


def execute(notebook: Path, output: Path, given: dict[str, Value]) -> None:
    """Runs a copy of `notebook` at `output`, in the repository's root, with what it declares of `given`.

    Raises what stopped it: papermill's error of a cell, nbclient's of a dead kernel, or a StudyError after
    `sys.exit(0)` in a cell, which papermill takes for a good end.
    """
    own = declared(notebook)
    executed = papermill.execute_notebook(
        notebook,
        output,
        {name: value for name, value in given.items() if name in own},
        kernel_name="python3",
        kernel_manager_class=ThisInterpreter,
        extra_arguments=["--log-level=CRITICAL"],  # else a kernel may report its own shutdown as an error
        coalesce_streams=True,
        progress_bar=False,
        cwd=ROOT,
    )
    if executed.metadata.papermill.exception:
        raise StudyError("a cell left the notebook before its end")


def last_line(error: Exception) -> str:
    """What stopped a notebook, as the last line of its traceback says it."""
    kind, text = type(error).__name__, str(error)
    if isinstance(error, papermill.PapermillExecutionError):
        kind, text = error.ename, error.evalue
    return f"{kind}: {(text.strip().splitlines() or [''])[-1]}"


def withdraw(name: str, notebooks: tuple[str, ...]) -> None:
    """Takes back the older pages of `notebooks` in study `name`, and with its last page the records."""
    folder = report_folder(name)
    for stem in notebooks:
        (folder / f"{stem}.html").unlink(missing_ok=True)
    if "5_ablation" in notebooks:
        (folder / "effects.csv").unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.glob("*.html")):
        shutil.rmtree(folder)
    report.write_index(folder.parent)


def study(name: str, given: dict[str, Value], *, notebooks: tuple[str, ...] = NOTEBOOKS) -> None:
    """Runs `notebooks` in order and publishes their pages; when one fails, withdraws the older ones.

    Raises:
        StudyError: a notebook failed; its copy, with the traceback in it, lies in `runs/<name>/failed/`.
    """
    run, folder, source = run_folder(name), report_folder(name), ROOT / "notebooks"
    failed = run / "failed"
    shutil.rmtree(failed, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        copies = {stem: Path(temporary) / f"{stem}.ipynb" for stem in notebooks}
        for stem, copy in copies.items():
            try:
                with told(f"{name}/{stem}", run / "checkpoints"):
                    execute(source / copy.name, copy, given)
            except Exception as error:
                failed.mkdir(parents=True)
                shutil.move(copy, failed)
                withdraw(name, notebooks)
                where = os.path.relpath(failed / copy.name)
                raise StudyError(f"{stem} failed: {last_line(error)} (see {where})") from error
        stems = sorted({*notebooks, *(page.stem for page in folder.glob("*.html"))})
        titles = {stem: report.title(source / f"{stem}.ipynb") for stem in stems}
        pages = {
            stem: report.page(copy, name=name, titles=titles, reports=folder.parent) for stem, copy in copies.items()
        }
    folder.mkdir(parents=True, exist_ok=True)
    for stem, html in pages.items():
        (folder / f"{stem}.html").write_text(html, encoding="utf-8")
        print(f"{os.path.relpath(folder / stem)}.html: {len(html.encode()) / 1e6:.2f} MB")
    for records in RECORDS:
        if (run / records).is_file():  # not after the first notebook alone
            shutil.copyfile(run / records, folder / records)
    report.write_index(folder.parent)
    print(os.path.relpath(folder.parent / "index.html"))


def main(arguments: list[str] | None = None) -> int:
    """The command of this module; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m patsim_utils.study", description="Run a study, or tell what was recorded."
    )
    parser.add_argument("task", nargs="?", choices=["ablation"], help="run the arms of the ablation, too")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--preset", help="run a study: a file of notebooks/presets, without .yaml")
    action.add_argument("--table", action="store_true", help="print the recorded results as a Markdown table")
    action.add_argument("--write-readme", action="store_true", help="write that table into README.md")
    parser.add_argument("--data", default="sample", help="sample, kaggle, or a folder that holds train.csv")
    parser.add_argument("--name", help="name of the study and its folders in runs/ and reports/ (the preset's)")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a parameter")
    parser.add_argument("--notebooks", nargs="+", default=NOTEBOOKS, help="run only these, such as 3_errors")
    parser.add_argument("--processes", type=int, default=1, help="arms that train at the same time")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.preset is None:
            table = report.results_table(ROOT / "reports")
            if chosen.table:
                print(table)
            else:
                readme = ROOT / "README.md"
                text = report.with_results(readme.read_text(encoding="utf-8"), table)
                readme.write_text(text, encoding="utf-8")
        else:
            name = chosen.preset if chosen.name is None else chosen.name
            for stem in chosen.notebooks:
                if not (ROOT / "notebooks" / f"{stem}.ipynb").is_file():
                    raise InputError(f"--notebooks: there is no notebooks/{stem}.ipynb")
            given = parameters(chosen.preset, data=chosen.data, name=name, given=chosen.p)
            settings = Settings.pick(given)  # refuses a value that no run could have
            splits = pairs.load(chosen.data, protocol=settings.protocol, seed=settings.seed)
            if settings.rating_weight and "rating" not in splits["train"]:
                print("rating_weight 0: the data has no column rating to learn from", flush=True)
                given["rating_weight"], settings = 0.0, replace(settings, rating_weight=0.0)
            notebooks = tuple(chosen.notebooks)
            if chosen.task == "ablation":
                notebooks = ("5_ablation",)
                arms = str(given.setdefault("arms", "ablation"))
                share = given.setdefault("share", SHARE)
                folder = run_folder(name) / arms
                run_arms(read_arms(arms, settings), folder, share=share, processes=chosen.processes)
            study(name, given, notebooks=notebooks)
    except (InputError, StudyError, ArmsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
