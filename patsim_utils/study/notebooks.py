"""Run the notebooks as one study and publish them: checked parameters, strict papermill, self-contained HTML.

Everything is checked before anything runs. The pages of a study, `reports/<name>/`, change all at once when every
notebook came to its end; a run that fails leaves them as they are, and a note that the index shows.
"""

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import papermill
import yaml
import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from traitlets import default

from patsim_utils import storage
from patsim_utils.config import Config, check_name, pack, read_yaml, unpack
from patsim_utils.data.splits import load
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.method.matcher import Matcher
from patsim_utils.study import page, summary
from patsim_utils.study.index import RECORDS, write_index
from patsim_utils.training import runs
from patsim_utils.training.trainer import trackers

NOTEBOOKS = ("1_explore", "2_train", "3_errors")
OTHER_RUNS = ("4_speed", "5_ablation")  # notebooks that are not about the run of the study's name
TAKEN = ("template", "recorded", "index.html", "results.csv", "trials.md")  # in reports/, by something else
PROGRESS_SECONDS = 30.0
TYPES = {"int": int, "float": FiniteFloat, "str": str, "bool": bool}
# Parameters that are paths, and the words among them that are none
BARE = {"data": ("sample", "kaggle"), "backbone": ("minilm", "mpnet"), "cpc_titles": ()}
BARE |= {"corpus": (), "retriever": ("auto", "minilm", "mpnet")}

Value = int | float | str | bool


class StudyError(RuntimeError):
    """A notebook did not come to its end; the message says which, why, and where its copy lies."""


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with the interpreter that runs now, whatever `python3` kernels are registered here.

    What a kernel's process itself writes, such as the message of a crash, goes to the file `stderr`. libzmq may report
    a failed assertion while a kernel shuts down, which means nothing for the notebook.
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


def check_study_name(name: str) -> None:
    """InputError where `name` can be no folder of a study."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name.lower().endswith((".old", ".new", ".work")):
        rule = "1 to 64 letters, digits, '.', '_', '-', and none of .old, .new, .work at the end"
        raise InputError(f"--name: {clip(name)} is no name of a study: {rule}")
    if name.lower() in TAKEN or (ROOT / "reports" / name).is_file():
        raise InputError(f"--name: {clip(name)} is the name of something else in reports/")


def declared(*notebooks: Path) -> dict[str, str]:
    """Name -> annotated type (a key of TYPES) of every parameter that the notebooks declare."""
    entries = []
    for notebook in notebooks:
        try:
            entries += papermill.inspect_notebook(str(notebook)).values()
        except ValueError as error:  # no JSON, no kernel
            raise InputError(f"{notebook.name}: is no notebook that can be read ({clip(error)})") from error
    return {entry["name"]: entry["inferred_type_name"] for entry in entries}


def typed(name: str, value: object, kind: str, *, source: str) -> Value:
    """`value` as the `kind` declared for parameter `name`; text may stand for a number, or for true and false."""
    try:
        if kind not in TYPES:
            raise InputError(
                f"{source}: parameter {name}: the notebook declares none of {', '.join(TYPES)} as its type"
            )
        if isinstance(value, bool) and kind != "bool":
            raise InputError(f"{source}: parameter {name}: {value} is no {kind}")
        return TypeAdapter(TYPES[kind]).validate_python(value)
    except ValidationError as error:
        complaint = error.errors()[0]["msg"].replace("Input should be", "is not")
        raise InputError(f"{source}: parameter {name}: {clip(value)} {complaint}") from error


def preset(name: str) -> dict[str, object]:
    """The mapping in `notebooks/presets/<name>.yaml`, not checked yet."""
    known = {path.stem: path for path in sorted((ROOT / "notebooks" / "presets").glob("*.yaml"))}
    if name not in known:
        told = f"none of {', '.join(known)}" if known else "not there: studies need a clone of the repository"
        raise InputError(f"--preset: {clip(name)} is {told}")
    try:
        found = read_yaml(known[name].read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name}.yaml: is no YAML ({clip(' '.join(str(error).split()))})") from error
    if not isinstance(found, dict):
        raise InputError(f"{name}.yaml: a preset consists of lines `parameter: value`")
    return found


def located(key: str, text: str) -> str:
    """A path of the caller's folder as the kernels find it, who run in ROOT; a bare word or a hub's name as it is."""
    if not text or text in BARE[key]:
        return text
    try:
        there = bool(os.stat(text))
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except OSError as error:
        raise InputError(f"parameter {key}: {clip(text)} cannot be read ({error.strerror})") from error
    if not there:  # a hub's name; else it is told as a whole what was looked for
        return text if key == "backbone" and not text.startswith((".", "/")) else os.path.abspath(text)
    path = os.path.relpath(os.path.realpath(text), ROOT)
    return path if path.startswith("..") else f"./{path}"


def parameters(preset_name: str, *, data: str | None, name: str, given: Sequence[Sequence[str]]) -> dict[str, Value]:
    """All parameters of a study, of their types: the preset's, over them the `given` [key, value] pairs, data and name.

    Settings that a notebook does not declare are among them; `execute` puts them into its `more`.
    """
    check_study_name(name)
    if reserved := [key for key, _ in given if key in ("data", "name", "replace")]:
        raise InputError(f"-p: {reserved[0]} is set with --{reserved[0]}")
    types = declared(*sorted((ROOT / "notebooks").glob("*.ipynb")))
    last = {"name": name} if data is None else {"name": name, "data": data}
    found: dict[str, Value] = {}
    for source, part in ((f"{preset_name}.yaml", preset(preset_name)), ("-p", dict(given)), ("study", last)):
        for key in part:
            check_name(key, [*Config.model_fields, *types], start=f"{source}: ")
        own = {key: typed(key, part[key], types[key], source=source) for key in part if key not in Config.model_fields}
        settings = {key: part[key] for key in part if key in Config.model_fields} | unpack(own.pop("more", ""))
        config = Config.parse(settings, source=source)
        found |= own | {key: getattr(config, key) for key in settings}
    return found | {key: located(key, found[key]) for key in BARE if key in found}


def check(given: dict[str, Value], *, notebooks: Sequence[str] = NOTEBOOKS) -> tuple[dict[str, Value], Config]:
    """Tries all that a run needs: notebooks, data, titles, backbone, a name under which no other run is.

    Returns the parameters, without ratings where the data has none, and their configuration.
    """
    if unknown := [stem for stem in notebooks if not (ROOT / "notebooks" / f"{stem}.ipynb").is_file()]:
        raise InputError(
            f"--notebooks: {clip(unknown[0])} is no notebook of notebooks/, such as {', '.join(NOTEBOOKS)}"
        )
    config = Config.parse({key: value for key, value in given.items() if key in Config.model_fields})
    with chdir(ROOT):
        splits = load(config.data, protocol=config.protocol, seed=config.seed)
        if config.rating_weight and "rating" not in splits["train"]:
            print("rating_weight 0: the data has no column rating to learn from", flush=True)
            given, config = given | {"rating_weight": 0.0}, config.model_copy(update={"rating_weight": 0.0})
        Matcher(config)
        for key in ("corpus", "retriever") if "6_search" in notebooks else ():
            asked = str(given.get(key, ""))
            if asked not in ("", *BARE[key]) and not Path(asked).exists():
                raise InputError(f"parameter {key}: {clip(asked)} is not there")
        trackers(str(given.get("report_to", "none")))
        trained = [(str(given["name"]), config, splits)] if {"1_explore", "2_train"} & {*notebooks} else []
        if "2_train" in notebooks and given.get("leak") and config.protocol == "anchor_disjoint":
            leaked = config.model_copy(update={"protocol": "random"})
            rows = load(config.data, protocol="random", seed=config.seed)
            trained.append((f"{given['name']}-leak", leaked, rows))
        for name, one, rows in trained:
            run = runs.run_folder(name)
            with storage.lock(run.with_name(f".{run.name}.lock"), f"run {run.name}"):
                if not given.get("replace"):
                    runs.finished(one, rows, run)
    return given, config


@contextmanager
def told(label: str, name: str) -> Iterator[None]:
    """Says on stdout when `label` starts and ends and, now and then, how far the training of study `name` has come."""
    began, done = time.time(), threading.Event()

    def watch() -> None:
        while not done.wait(PROGRESS_SECONDS):
            line = f"{label}: {time.time() - began:.0f} s"
            works = [runs.work_folder(runs.run_folder(one)) for one in (f"{name}-leak", name)]
            saved = [path for work in works for path in work.glob("checkpoints/*/trainer_state.json")]
            try:
                state = json.loads(max(saved, key=lambda path: path.stat().st_mtime).read_text(encoding="utf-8"))
                step, steps, seconds = state["global_step"], state["max_steps"], state["log_history"][-1]["seconds"]
                left = round(seconds * (steps - step) / step / 60)
                line += f", past step {step} of {steps}" + f", about {left} min of training left" * (left > 0)
            except (OSError, ValueError):  # no checkpoint yet, or one that is being written or replaced
                pass
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

    What the kernel's process itself writes goes to `output` with the ending .log. Raises what stopped it: papermill's
    error of a cell, nbclient's of a dead kernel, or a StudyError after `sys.exit(0)` in a cell, which papermill takes
    for a good end.
    """
    own = declared(notebook)
    more = {"more": pack({key: given[key] for key in given if key in Config.model_fields and key not in own})}
    with output.with_suffix(".log").open("wb") as log:
        executed = papermill.execute_notebook(
            str(notebook),
            str(output),
            {key: value for key, value in ({"form": False} | given | more).items() if key in own},  # a page has no form
            kernel_name="python3",
            kernel_manager_class=type("Kernel", (ThisInterpreter,), {"stderr": log}),
            coalesce_streams=True,
            progress_bar=False,
            cwd=ROOT,
        )
    if executed.metadata.papermill.exception:
        raise StudyError("a cell left the notebook before its end")


def study(name: str, given: dict[str, Value], *, notebooks: Sequence[str], before: Callable = lambda: None) -> None:
    """Runs `before`, then the `notebooks` in order, and publishes their pages when all came to their end.

    Raises:
        InputError: the same study is running already.
        StudyError: a notebook failed; its copy, with the traceback in it, lies in `runs/.<name>.failed/`, and beside
            it what its process wrote.
    """
    reports = ROOT / "reports"
    work = reports / f".{name}.work"
    with storage.lock(reports / f".{name}.lock", f"study {name}"):
        storage.recover(reports / name)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            with chdir(ROOT):
                before()
            for stem in notebooks:
                try:
                    with told(f"{name}/{stem}", name):
                        execute(ROOT / "notebooks" / f"{stem}.ipynb", work / f"{stem}.ipynb", given)
                except Exception as error:
                    raise StudyError(_failed(name, work / f"{stem}.ipynb", error)) from error
            _publish(name, notebooks, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _failed(name: str, copy: Path, error: Exception) -> str:
    """Keeps the notebook that failed and notes it for the index; returns what to tell."""
    kind, text = type(error).__name__, str(error)
    if isinstance(error, papermill.PapermillExecutionError):
        kind, text = error.ename, error.evalue
    last = (text.strip().splitlines() or [""])[-1][:300]
    reason = f"{kind}: {''.join(letter for letter in last if letter.isprintable())}"
    folder, reports = ROOT / "runs" / f".{name}.failed", ROOT / "reports"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in copy.parent.glob(f"{copy.stem}.*"):
        shutil.move(path, folder)
    note = {"date": datetime.now(UTC).date().isoformat(), "notebook": copy.stem, "reason": reason}
    storage.write_text(reports / f".{name}.failed.json", json.dumps(note))
    write_index(reports)
    return f"{copy.stem} failed: {reason} (see {os.path.relpath(folder / copy.name)})"


def _publish(name: str, notebooks: Sequence[str], work: Path) -> None:
    """Renders the executed copies in `work` and puts them, with older pages of other notebooks, at `reports/<name>`."""
    reports, run, fresh = ROOT / "reports", runs.run_folder(name), work / "pages"
    if (reports / name).is_dir():
        shutil.copytree(reports / name, fresh)
    fresh.mkdir(exist_ok=True)
    stems = sorted({*notebooks, *(one.stem for one in fresh.glob("*.html"))})
    titles = {stem: page.title(ROOT / "notebooks" / f"{stem}.ipynb") for stem in stems}
    told = summary.summary(run)
    for stem in notebooks:
        top = None if stem in OTHER_RUNS else told
        html = page.page(work / f"{stem}.ipynb", name=name, titles=titles, reports=reports, summary=top)
        (fresh / f"{stem}.html").write_text(html, encoding="utf-8")
        print(f"{os.path.relpath(reports / name / stem)}.html: {len(html.encode()) / 1e6:.2f} MB")
    for record in RECORDS:
        if (run / record).is_file():  # not after the first notebook alone
            shutil.copyfile(run / record, fresh / record)
    storage.swap(fresh, reports / name)
    (reports / f".{name}.failed.json").unlink(missing_ok=True)
    shutil.rmtree(ROOT / "runs" / f".{name}.failed", ignore_errors=True)
    write_index(reports)
    print(os.path.relpath(reports / "index.html"))
