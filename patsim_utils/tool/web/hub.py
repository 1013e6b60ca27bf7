"""A finished run as others share models: a folder with its card, on the Hugging Face hub."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import EvalResult, ModelCardData

from patsim_utils import storage
from patsim_utils.data.splits import is_google
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method.matcher import Matcher
from patsim_utils.study import explore
from patsim_utils.study.pages import summary
from patsim_utils.training.runs import Run

EXAMPLE = """from patsim_utils.tool.web.hub import from_pretrained

matcher = from_pretrained("{address}")
print(matcher.rank("strong material", ["steel", "robust material", "paper"], context="E04"))
"""
BASE_MODELS = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
}
# Names of data on Kaggle; the second is of the competition's form of the same pairs
DATASET = "google/google-patent-phrase-similarity-dataset"
CREDIT = "CC BY 4.0, Aslanyan and Wetherbee 2022, arXiv 2208.01171"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # of the hub


def from_pretrained(name: str | Path, *, revision: str | None = None) -> Matcher:
    """The model in a folder, or in a repository of the hub such as "me/phrases"; runs no code of it.

    InputError where neither is, or the hub cannot be reached.
    """
    if not Path(name).is_dir():
        if not REPOSITORY.fullmatch(str(name)):
            reason = "is no folder and no repository of the hub, such as me/phrases"
            raise InputError(f"{clip(str(name))}: {reason}")
        patterns = ["*.json", "*.safetensors", "*.txt"]
        try:
            name = huggingface_hub.snapshot_download(str(name), revision=revision, allow_patterns=patterns)
        except Exception as error:  # no network, no such repository, no rights: of many kinds
            raise InputError(f"{clip(str(name))}: cannot be had from the hub ({clip(error)})") from error
    return Matcher.load(name)


def save_pretrained(run: str | Path, folder: str | Path, *, address: str = "") -> None:
    """Copies a finished run's model into a new folder, with its card, whose example loads `address`.

    The default address is the name of the folder. Paths of this machine do not go with it.
    InputError: there is no finished run, or something is at `folder` already.
    """
    run = Path(run)
    folder = Path(folder)
    text = card(run, address=address or folder.name)
    if os.path.lexists(folder):  # also a link to nothing
        raise InputError(f"{named(folder)}: exists already")
    fresh = storage.temporary(folder)
    try:
        shutil.copytree(run / "model", fresh)
        _forget_paths(fresh)
        storage.write_text(fresh / "README.md", text)
        fresh.rename(folder)
    except OSError as error:
        raise InputError(f"{named(folder)}: cannot be written ({error.strerror or clip(error)})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _forget_paths(model: Path) -> None:
    """Takes paths of this machine out of a model folder, also those that transformers writes."""
    note_path = model / "matcher.json"
    note = json.loads(note_path.read_text("utf-8"))
    note["config"]["cpc_titles"] = ""  # the titles themselves are in the note
    backbone = note["config"]["backbone"]
    note["config"]["backbone"] = _public_name(backbone)
    if note.get("form") == "adapter" and backbone != _public_name(backbone):
        raise InputError(f"backbone {clip(backbone)}: is a folder of this machine, without which the model is none")
    for name in ("encoder/config.json", "tokenizer/tokenizer_config.json"):
        path = model / name
        if not path.is_file():  # the model is what was added to a pretrained one
            continue
        settings = json.loads(path.read_text("utf-8"))
        paths = [key for key in ("_name_or_path", "name_or_path") if key in settings]
        for key in paths:
            settings[key] = _public_name(str(settings[key]))
        if paths:
            path.write_text(json.dumps(settings, indent=2))
            note["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    note_path.write_text(json.dumps(note, indent=1))


def _public_name(backbone: str) -> str:
    """A backbone's name without the folders above it, unless it is a name of the hub.

    >>> _public_name("/home/me/encoder"), _public_name("sentence-transformers/all-mpnet-base-v2")
    ('encoder', 'sentence-transformers/all-mpnet-base-v2')
    """
    if REPOSITORY.fullmatch(backbone) and backbone[0] not in "./~" and not Path(backbone).exists():
        return backbone
    return Path(backbone).name or backbone


def push_to_hub(run: str | Path, repository: str, *, private: bool = True) -> str:
    """Uploads the model of a finished run with its card; returns the address of the commit.

    A repository that is there stays as public as it is, whatever `private` says. InputError: the
    hub cannot be reached, or does not allow it.
    """
    if not REPOSITORY.fullmatch(repository):
        reason = "is no name of a repository of the hub, such as me/phrases"
        raise InputError(f"{clip(repository)}: {reason}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_pretrained(run, folder, address=repository)
        try:
            huggingface_hub.create_repo(repository, private=private, exist_ok=True)
            return huggingface_hub.upload_folder(repo_id=repository, folder_path=folder).commit_url
        except Exception as error:  # offline, no account, no rights: of many kinds
            raise InputError(f"{repository}: cannot be written on the hub ({clip(error)})") from error


def card(run: Path, *, address: str) -> str:
    """The model card of a run: task, data, figures with split and interval, limits, an example."""
    finished = Run.open(run)
    config = finished.config
    metrics = finished.metrics
    made = metrics["environment"]
    protocol = metrics["protocol"]
    _, _, data = _data(finished)
    note = "held-out anchors are in training (leakage)"
    if protocol == "anchor_disjoint":
        note = "no anchor of the held-out pairs is in training"
    lines = ["---", _head(finished, name=run.name).to_yaml(), "---", "", f"# patsim: {run.name}", ""]
    lines += ["Anchor phrase, target phrase and CPC class in, a score from 0 to 1 out.", ""]
    lines += [f"- **Model**: {config.describe()}", f"- **Trained on**: {data}"]
    lines += [f"- {line}" for line in explore.summary(metrics).splitlines() if line]  # one for each split
    lines += [f"- **Split**: {protocol}: {note}", "- **Limits**:"]
    lines += [f"  - {sentence}" for sentence in summary.use(config, protocol)]
    commit = f"{made['date']} by commit {made['commit']}"
    lines.append(f"- **Made** on {commit}; patsim is installed from a clone of its repository")
    lines += ["", "```python", EXAMPLE.format(address=address).rstrip(), "```", ""]
    return "\n".join(lines)


def _data(run: Run) -> tuple[str | None, str | None, str]:
    """Licence, name and description of the data of a run, as far as they are known."""
    if run.config.data == "sample":
        return "mit", None, "the sample that comes with patsim (CC0)"
    if run.config.data == "kaggle" or is_google(run.metrics["data"]):
        return "cc-by-4.0", DATASET, f"Google's Patent Phrase Similarity data set ({CREDIT})"
    return None, None, "a table that whoever shares this model describes"


def _head(run: Run, *, name: str) -> ModelCardData:
    """What the hub reads of a card."""
    license, dataset, _ = _data(run)
    backbone = BASE_MODELS.get(run.config.backbone, run.config.backbone)
    public = REPOSITORY.fullmatch(backbone) and backbone == _public_name(backbone)
    return ModelCardData(
        language="en",
        license=license,
        library_name="patsim",
        pipeline_tag="text-ranking",
        tags=["patents", "phrase-similarity", "reranker"],
        base_model=backbone if public else None,
        datasets=[dataset] if dataset else None,
        model_name=name,
        eval_results=_figures(run, dataset=dataset or "sample"),
    )


def _figures(run: Run, *, dataset: str) -> list[EvalResult]:
    """Pearson's and Spearman's correlation on each split that the run was evaluated on."""
    results = []
    for split in ("validation", "test"):
        figures: dict[str, Any] | None = run.metrics.get(split)
        if figures is None:
            continue
        low, high = figures["pearson_ci"]
        names = {
            "pearson": f"Pearson [{low:.3f}, {high:.3f}] over anchors ({run.metrics['protocol']})",
            "spearman": f"Spearman ({run.metrics['protocol']})",
        }
        for metric, metric_name in names.items():
            results.append(
                EvalResult(
                    task_type="text-ranking",
                    dataset_type=dataset,
                    dataset_name=f"patent phrase pairs, {split}",
                    dataset_split=split,
                    metric_type=metric,
                    metric_name=metric_name,
                    metric_value=round(figures[metric], 4),
                )
            )
    return results
