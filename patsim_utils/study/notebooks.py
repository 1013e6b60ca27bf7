"""Runs the notebooks as one study and publishes them as self-contained HTML.

Everything is checked before anything runs. The pages of a study, `reports/<name>/`, change all at
once when every notebook came to its end. A run that fails leaves them as they are, and a note
that the index shows.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import nbformat
import pandas as pd
import papermill
import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from patsim_utils import storage
from patsim_utils.config import Config, Parameters
from patsim_utils.data.splits import fingerprint, load
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.method.matcher import Matcher
from patsim_utils.study import progress
from patsim_utils.study.pages import page, summary
from patsim_utils.study.pages.index import write_index
from patsim_utils.study.pages.rows import RECORDS
from patsim_utils.study.parameters import KEYWORDS
from patsim_utils.training import runs
from patsim_utils.training.runs import Run
from patsim_utils.training.trainer import trackers

NOTEBOOKS = ("1_explore", "2_train", "3_errors")


class StudyError(RuntimeError):
    """A notebook did not come to its end; the message says which, why, and where its copy lies."""


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with the interpreter that runs now, whatever `python3` is registered.

    What a kernel's process itself writes, such as the message of a crash, goes to the file `stderr`.
    libzmq may report a failed assertion while a kernel shuts down, which means nothing here.
    """

    stderr: BinaryIO

    @default("kernel_spec_manager")
    def _native_kernel_only(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"  # unencrypted kernels warn on stderr

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        return await super()._async_pre_start_kernel(stderr=self.stderr, **options)


def check(parameters: Parameters, *, notebooks: Sequence[str] = NOTEBOOKS, preset: str = "") -> Parameters:
    """Tries all that a study needs: notebooks, data, titles, backbone, a free name.

    Says what the study, whose parameters are from `preset`, is about to do. Returns the parameters, with
    rating_weight 0 where the data has no ratings.
    """
    for stem in notebooks:
        _check_notebook(stem)
    with chdir(ROOT):
        splits = load(parameters.data, protocol=parameters.protocol, seed=parameters.seed)
        if parameters.rating_weight and "rating" not in splits["train"]:
            print("rating_weight 0: the data has no column rating to learn from", flush=True)
            parameters = parameters.model_copy(update={"rating_weight": 0.0})
        Matcher(parameters.config)
        if "6_search" in notebooks:
            for key in ("corpus", "retriever"):
                _check_path(key, getattr(parameters, key))
        trackers(parameters.report_to)
        trains = "2_train" in notebooks
        if trains or "1_explore" in notebooks:
            _check_free(parameters.name, parameters.config, splits, replace=parameters.replace)
        if trains and parameters.leak and parameters.protocol == "anchor_disjoint":
            leaked = parameters.config.model_copy(update={"protocol": "random"})
            rows = load(leaked.data, protocol="random", seed=leaked.seed)
            _check_free(f"{parameters.name}-leak", leaked, rows, replace=parameters.replace)
    if notebooks:  # `patsim train` has none
        progress.announce(parameters, len(splits["train"]), list(notebooks), preset=preset)
    return parameters


def _check_notebook(stem: str) -> None:
    """InputError where there is no notebook of that name, or none that can be read."""
    path = ROOT / "notebooks" / f"{stem}.ipynb"
    if not path.is_file():
        others = ", ".join(NOTEBOOKS)
        raise InputError(f"--notebooks: {clip(stem)} is no notebook of notebooks/, such as {others}")
    try:
        nbformat.read(path, as_version=4)
    except (ValueError, KeyError, nbformat.ValidationError) as error:
        raise InputError(f"{path.name}: is no notebook that can be read ({clip(error)})") from error


def _check_path(key: str, text: str) -> None:
    """InputError where a path among the parameters is not there."""
    if text and text not in KEYWORDS[key] and not Path(text).exists():
        raise InputError(f"parameter {key}: {clip(text)} is not there")


def _check_free(name: str, config: Config, splits: dict[str, pd.DataFrame], *, replace: bool) -> None:
    """InputError where another process, or another configuration, has the run `name`."""
    run = runs.run_folder(name)
    with storage.lock(run.with_name(f".{run.name}.lock"), f"run {run.name}"):
        if not replace:
            runs.finished(config, splits, run)


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any]) -> None:
    """Runs a copy of `notebook` at `output`, in the repository's root.

    What the kernel's process itself writes goes to `output` with the ending .log. Raises what stopped
    it: papermill's error of a cell, nbclient's of a dead kernel, or a StudyError after `sys.exit(0)`
    in a cell, which papermill takes for a good end.
    """
    # papermill warns of a parameter that the notebook does not declare, but the model has it; that
    # a kernel died is raised, and nothing to be logged as well
    for name in ("papermill", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with output.with_suffix(".log").open("wb") as log:
        executed = papermill.execute_notebook(
            str(notebook),
            str(output),
            dict(parameters),
            kernel_name="python3",
            kernel_manager_class=type("Kernel", (ThisInterpreter,), {"stderr": log}),
            coalesce_streams=True,
            progress_bar=False,
            cwd=ROOT,
        )
    if executed.metadata.papermill.exception:
        raise StudyError("a cell left the notebook before its end")


def study(parameters: Parameters, *, notebooks: Sequence[str], before: Callable = lambda: None) -> None:
    """Runs `before`, then the `notebooks`; publishes their pages when all came to their end.

    Raises:
        InputError: the same study is running already.
        StudyError: a notebook failed. Its copy, with the traceback in it, and what its process wrote
            lie in `runs/.<name>.failed/`.
    """
    name = parameters.name
    settings = {"form": False} | parameters.chosen  # a page has no form
    reports = ROOT / "reports"
    work = reports / f".{name}.work"
    with storage.lock(reports / f".{name}.lock", f"study {name}"):
        storage.recover(reports / name)
        storage.refuse_foreign(_failed_folder(name))
        storage.begin(work)
        try:
            with chdir(ROOT):
                before()
            for stem in notebooks:
                copy = work / f"{stem}.ipynb"
                try:
                    with progress.watched(f"{name}/{stem}", name):
                        execute(ROOT / "notebooks" / copy.name, copy, settings)
                except Exception as error:
                    raise StudyError(_failed(name, copy, error)) from error
            verdict = _publish(parameters, notebooks, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    progress.conclude(name, verdict, list(notebooks))


def _failed_folder(name: str) -> Path:
    """Where the copy of a notebook that failed lies."""
    return ROOT / "runs" / f".{name}.failed"


def _failed(name: str, copy: Path, error: Exception) -> str:
    """Keeps the notebook that failed and notes it for the index; returns what to tell."""
    kind = type(error).__name__
    text = str(error)
    if isinstance(error, papermill.PapermillExecutionError):
        kind = error.ename
        text = error.evalue
    last = (text.strip().splitlines() or [""])[-1][:300]
    reason = f"{kind}: {''.join(letter for letter in last if letter.isprintable())}"
    folder = _failed_folder(name)
    reports = ROOT / "reports"
    storage.begin(folder)
    for path in copy.parent.glob(f"{copy.stem}.*"):
        shutil.move(path, folder)
    note = {"date": datetime.now(UTC).date().isoformat(), "notebook": copy.stem, "reason": reason}
    storage.write_text(reports / f".{name}.failed.json", json.dumps(note))
    write_index(reports)
    return f"{copy.stem} failed: {reason} (see {os.path.relpath(folder / copy.name)})"


def _publish(parameters: Parameters, notebooks: Sequence[str], work: Path) -> str:
    """Renders the executed copies in `work` as pages at `reports/<name>`.

    Older pages of other notebooks stay. Returns the verdict on the run, if there is one.
    """
    name = parameters.name
    reports = ROOT / "reports"
    run = runs.run_folder(name)
    fresh = work / "pages"
    if (reports / name).is_dir():
        shutil.copytree(reports / name, fresh, symlinks=True)  # also a link to nothing
    fresh.mkdir(exist_ok=True)
    stems = sorted({*notebooks, *(path.stem for path in fresh.glob("*.html"))})
    titles = {stem: page.title(ROOT / "notebooks" / f"{stem}.ipynb") for stem in stems}
    top = summary.summary(run)
    credit = _credit(parameters, run)
    for stem in notebooks:
        about_run = None if stem in progress.OTHER_RUNS else top
        copy = work / f"{stem}.ipynb"
        about = {"titles": titles, "summary": about_run, "credit": credit}
        html = page.page(copy, name=name, reports=reports, **about)
        (fresh / f"{stem}.html").write_text(html, encoding="utf-8")
    for record in RECORDS:
        if (run / record).is_file():  # not after the first notebook alone
            shutil.copyfile(run / record, fresh / record)
    storage.swap(fresh, reports / name)
    (reports / f".{name}.failed.json").unlink(missing_ok=True)
    storage.remove(_failed_folder(name))
    write_index(reports)
    return top["verdict"] if top else ""


def _credit(parameters: Parameters, run: Path) -> str:
    """Whose phrases the pages show.

    Those of the finished run's data, else of the data in the parameters.
    """
    try:
        finished = Run.open(run)
    except InputError:
        with chdir(ROOT):
            rows = load(parameters.data, protocol=parameters.protocol, seed=parameters.seed)
        return summary.credit(parameters.data, fingerprint(rows))
    return summary.credit(finished.config.data, finished.metrics["data"])
