"""A finished run as others share models: a folder with its card, to and from the Hugging Face hub."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import huggingface_hub

from patsim_utils import storage
from patsim_utils.data.splits import GOOGLE
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method.matcher import Matcher
from patsim_utils.study import explore
from patsim_utils.study.pages import summary
from patsim_utils.training.runs import Run

EXAMPLE = """from patsim_utils.tool.hub import from_pretrained

matcher = from_pretrained("{place}")
print(matcher.rank("strong material", ["steel", "robust material", "paper"], context="E04"))
"""


def from_pretrained(name: str | Path, *, revision: str | None = None) -> Matcher:
    """The model in a folder, or in a repository of the hub such as "me/phrases"; runs no code that is there.

    InputError where neither is, or the hub cannot be reached.
    """
    if not Path(name).is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
            raise InputError(f"{clip(str(name))}: is no folder and no repository of the hub, such as me/phrases")
        patterns = ["*.json", "*.safetensors", "*.txt"]
        try:
            name = huggingface_hub.snapshot_download(str(name), revision=revision, allow_patterns=patterns)
        except Exception as error:  # no network, no such repository, no rights: the hub raises errors of many kinds
            raise InputError(f"{clip(str(name))}: cannot be had from the hub ({clip(error)})") from error
    return Matcher.load(name)


def save_pretrained(run: str | Path, folder: str | Path, *, place: str = "") -> None:
    """Copies a finished run's model into a new folder, with its card, whose example loads `place` (else the folder)."""
    run, folder = Path(run), Path(folder)
    text = card(run, place=place or str(folder))
    if folder.exists():
        raise InputError(f"{named(folder)}: exists already")
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(run / "model", fresh)
    storage.write_text(fresh / "README.md", text)
    fresh.rename(folder)


def push_to_hub(run: str | Path, repository: str, *, private: bool = True) -> str:
    """Uploads the model of a finished run with its card; returns the address of the commit.

    A repository that is there stays as public as it is, whatever `private` says.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_pretrained(run, folder, place=repository)
        huggingface_hub.create_repo(repository, private=private, exist_ok=True)
        return huggingface_hub.upload_folder(repo_id=repository, folder_path=folder).commit_url


def card(run: Path, *, place: str) -> str:
    """The model card of a run in Markdown: task, data, figures with split and interval, limits, an example."""
    finished = Run.open(run)
    config, metrics = finished.config, finished.metrics
    protocol, license, data = metrics["protocol"], {}, "a table that whoever shares this model describes"
    if config.data == "sample":
        license, data = {"license": "mit"}, "the sample that comes with patsim (CC0)"
    elif config.data == "kaggle" or metrics["data"]["train"] == GOOGLE:
        license, credit = {"license": "cc-by-4.0"}, "CC BY 4.0, Aslanyan and Wetherbee 2022, arXiv 2208.01171"
        data = f"Google's Patent Phrase Similarity data set ({credit})"
    head = {"language": "en", **license, "library_name": "patsim"}
    head |= {"pipeline_tag": "text-classification", "tags": ["patents", "phrase-similarity", "reranker"]}
    unseen = protocol == "anchor_disjoint"
    note = "no anchor of the held-out pairs is in training" if unseen else "held-out anchors are in training (leakage)"
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", "", f"# patsim: {run.name}"]
    lines += ["", "Anchor phrase, target phrase and CPC class in, a score from 0 to 1 out.", ""]
    lines += [f"- **Model**: {config.describe()}", f"- **Trained on**: {data}"]
    lines += [f"- {line}" for line in explore.summary(metrics).splitlines() if line]  # one for each split
    lines += [f"- **Split**: {protocol}: {note}", "- **Limits**:"]
    lines += [f"  - {sentence}" for sentence in summary.use(config, protocol)]
    made = metrics["environment"]
    lines += [
        f"- **Made** on {made['date']} by commit {made['commit']}; patsim is installed from a clone of its repository"
    ]
    return "\n".join([*lines, "", "```python", EXAMPLE.format(place=place).rstrip(), "```", ""])
