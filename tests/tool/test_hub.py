"""A run as a folder with its card, whose example runs; the hub's errors in one line."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from patsim_utils.config import Config
from patsim_utils.data.splits import GOOGLE, load
from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.tool.web import hub
from patsim_utils.training.fit import fit


@pytest.fixture(scope="module")
def run(tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    sample = load("sample")
    splits = {"train": sample["train"].head(200), "validation": sample["validation"]}
    fit(splits, Config(backbone=tiny_backbone("bert"), epochs=1, contrast_layer=1), folder)
    return folder


def test_the_card_claims_no_data_and_no_licence_but_those_it_knows(run, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    for place, rows, license in (
        ("sample", "", "mit"),
        ("./mine", "", None),
        ("kaggle", "", "cc-by-4.0"),
        ("../somewhere", GOOGLE["train"], "cc-by-4.0"),
    ):
        for name, value in (("config.json", place), ("metrics.json", {"train": rows})):
            found = json.loads((other / name).read_text())
            (other / name).write_text(json.dumps(found | {"data": value}))
        _, head, body = hub.card(other, address="me/phrases").split("---\n", 2)
        assert yaml.safe_load(head).get("license") == license
        assert ("Google" in body) == (license == "cc-by-4.0")


def test_the_card_tells_the_run_and_its_example_runs(run, tmp_path, monkeypatch, capsys) -> None:
    folder = tmp_path / "shared"
    hub.save_pretrained(str(run), str(folder))  # as the README has it
    text = (folder / "README.md").read_text()
    head, body = re.fullmatch(r"---\n(.*?)---\n(.*)", text, flags=re.DOTALL).groups()
    assert yaml.safe_load(head)["tags"] == ["patents", "phrase-similarity", "reranker"]
    data = huggingface_hub.ModelCard.load(folder / "README.md").data
    assert data.pipeline_tag == "text-ranking"
    assert data.model_name == "one"
    metrics = json.loads((run / "metrics.json").read_text())
    for result in data.eval_results:
        assert result.metric_value == pytest.approx(metrics[result.dataset_split][result.metric_type], abs=1e-4)
    low, high = metrics["validation"]["pearson_ci"]
    assert data.eval_results[0].metric_name == f"Pearson [{low:.3f}, {high:.3f}] over anchors (anchor_disjoint)"
    assert re.search(r"Pearson -?0\.\d{3} \[-?0\.\d{3}, -?0\.\d{3}\] on validation \(312 pairs, anchors unseen", body)
    assert "no anchor of the held-out pairs is in training" in body
    code = re.search(r"```python\n(.*?)```", body, flags=re.DOTALL)[1]
    assert str(tmp_path) not in text
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    expected = Matcher.load(run).rank("strong material", ["steel", "robust material", "paper"], context="E04")
    assert capsys.readouterr().out.split() == str(expected).split()
    with pytest.raises(InputError, match="exists already"):
        hub.save_pretrained(run, folder)


def test_the_card_names_what_the_model_is_made_of(run, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text())
    metrics = json.loads((other / "metrics.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"data": "x", "backbone": "mpnet"}))
    (other / "metrics.json").write_text(json.dumps(metrics | {"data": {"train": GOOGLE["train"]}}))
    data = huggingface_hub.ModelCard(hub.card(other, address="me/phrases")).data
    assert data.base_model == "sentence-transformers/all-mpnet-base-v2"
    assert data.datasets == [hub.DATASET]
    assert data.eval_results[0].dataset_type == hub.DATASET


def test_a_shared_model_keeps_no_path_of_this_machine(run, tiny_backbone, tmp_path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    note = json.loads((other / "model" / "matcher.json").read_text())
    note["config"]["cpc_titles"] = str(tmp_path / "titles.zip")
    (other / "model" / "matcher.json").write_text(json.dumps(note))
    hub.save_pretrained(other, tmp_path / "shared")
    local = str(Path(tiny_backbone("bert")).parent)
    for path in (tmp_path / "shared").rglob("*"):
        if path.suffix in (".json", ".md"):
            text = path.read_text()
            assert str(tmp_path) not in text, path
            assert local not in text, path
    pair = [("strong material", "steel", "E04")]
    assert Matcher.load(tmp_path / "shared").predict(pair) == Matcher.load(run).predict(pair)


def test_a_link_to_nothing_and_an_unreachable_hub_are_one_line(run, tmp_path, monkeypatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="link: exists already"):
        hub.save_pretrained(run, tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr(hub.huggingface_hub, "create_repo", refuse)
    with pytest.raises(InputError, match=r"me/phrases: cannot be written on the hub \(no network at all\)"):
        hub.push_to_hub(run, "me/phrases")
    with pytest.raises(InputError, match="is no name of a repository"):
        hub.push_to_hub(run, "phrases")


def test_what_is_pushed_is_the_folder_with_a_card_that_names_the_repository(run, monkeypatch) -> None:
    pushed = {}

    def upload(repo_id: str, folder_path) -> object:
        pushed.update({path.name: path.read_bytes() for path in folder_path.iterdir() if path.is_file()}, to=repo_id)
        return type("Commit", (), {"commit_url": "an address"})

    monkeypatch.setattr(hub.huggingface_hub, "create_repo", lambda *_, **options: pushed.update(options))
    monkeypatch.setattr(hub.huggingface_hub, "upload_folder", upload)
    assert hub.push_to_hub(run, "me/phrases") == "an address"
    assert pushed["private"]
    assert pushed["to"] == "me/phrases"
    assert b'from_pretrained("me/phrases")' in pushed["README.md"]
    assert {"matcher.json", "model.safetensors"} <= set(pushed)


@pytest.mark.parametrize(("name", "said"), [("nowhere", "no folder and no repository"), ("me/nowhere", "from the hub")])
def test_what_is_not_there_is_one_line(name: str, said: str, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match=said) as caught:
        hub.from_pretrained(name)
    assert str(caught.value).isprintable()
