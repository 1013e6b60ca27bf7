"""Training: the run folder, the recipe's effect, resuming after kills, and stopping at what is not finite."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.integrations import integration_utils

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import losses
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights import files
from patsim_utils.training import curriculum, results, trainer
from patsim_utils.training.checkpoints import newest_checkpoint
from patsim_utils.training.fit import fit
from patsim_utils.training.runs import Run
from patsim_utils.training.trainer import MAX_GRAD_NORM, DualLossTrainer

Splits = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def splits() -> Splits:
    """The sample's small splits to train on and to validate, and some more pairs as `test`."""
    sample = load("sample")
    return {"train": sample["validation"], "validation": sample["test"], "test": sample["train"].head(150)}


def small(tiny_backbone, **options: object) -> Config:
    sizes = {"contrast_layer": 1, "epochs": 2, "batch_size": 16, "rating_weight": 0.0}
    return Config(**{"backbone": tiny_backbone("bert"), "precision": "fp32", **sizes, **options})


def steps_of(splits: Splits, epochs: int) -> int:
    return epochs * -(-len(splits["train"]) // 16)


def files_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


class Tracker(TrainerCallback):
    """An experiment tracker that keeps what it is told, and the gradient's norm behind the clipping."""

    logs: list[dict]
    norms: list[float]

    def on_log(self, args, state, control, logs: dict, **kwargs) -> None:
        self.logs.append(logs)

    def on_pre_optimizer_step(self, args, state, control, model: torch.nn.Module, **kwargs) -> None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        self.norms.append(torch.nn.utils.get_total_norm(gradients).item())


@pytest.fixture(scope="module")
def finished(tiny_backbone, splits, tmp_path_factory) -> dict:
    """A run of two epochs: its `config`, `folder` and `metrics`, the steps with a checkpoint (`saved`), its tracker."""
    config = small(tiny_backbone, alpha=100.0)  # a loss whose gradient is to be clipped
    folder = tmp_path_factory.mktemp("finished") / "run"
    saved = []
    save = DualLossTrainer._save_checkpoint

    def note(self: DualLossTrainer, *arguments: object) -> None:
        saved.append(self.state.global_step)
        save(self, *arguments)

    Tracker.logs = []
    Tracker.norms = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
        patch.setattr(DualLossTrainer, "_save_checkpoint", note)
        metrics = fit(splits, config, folder, report_to="trackio, none")
    return {"config": config, "folder": folder, "metrics": metrics, "saved": saved, "tracker": Tracker}


def test_a_run_leaves_what_the_contract_says(finished, splits) -> None:
    folder = finished["folder"]
    metrics = finished["metrics"]
    names = {"config.json", "metrics.json", "history.csv", "predictions.csv", "model"}
    assert {path.name for path in folder.iterdir()} == names
    assert {path.name for path in folder.parent.iterdir()} <= {"run", ".run.lock"}
    run = Run.open(folder)
    assert run.config == finished["config"]
    assert run.metrics == json.loads(json.dumps(metrics))
    for split in ("validation", "test"):
        entry = metrics[split]
        assert set(entry) == {"n", "pearson", "pearson_ci", "spearman", "mae", "qwk", "loss"}
        assert entry["pearson_ci"][0] <= entry["pearson"] <= entry["pearson_ci"][1]
    assert metrics["train"]["steps"] == steps_of(splits, 2)
    assert 0 < metrics["train"]["evaluation_seconds"] < metrics["train"]["seconds"]
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    best = max(epoch["pearson"] for epoch in metrics["epochs"])
    assert best == pytest.approx(metrics["validation"]["pearson"], abs=1e-5)  # LoRA is merged
    matcher = Matcher.load(folder)
    for split, rows in run.predictions.groupby("split"):
        np.testing.assert_allclose(matcher.score(rows), rows["prediction"], atol=1e-6)
        assert len(rows) == len(splits[split])


def test_every_step_is_in_the_history_and_told_to_the_tracker(finished, splits) -> None:
    steps = steps_of(splits, 2)
    history = Run.open(finished["folder"]).history
    assert history["step"].tolist() == list(range(1, steps + 1))
    np.testing.assert_allclose(history["loss"], history["ordinal"] + history["contrast"], rtol=1e-4, atol=1e-6)
    assert (history["contrast"] > 0).any()
    rate = history["learning_rate"]
    assert rate.iloc[0] < rate.max() / 2  # it rises
    assert rate.iloc[-1] < rate.max() / 10  # and the cosine comes down
    logs = finished["tracker"].logs
    assert len([log for log in logs if {"loss", "ordinal", "contrast"} <= set(log)]) == steps
    pearson = [epoch["pearson"] for epoch in finished["metrics"]["epochs"]]
    assert [log["eval_pearson"] for log in logs if "eval_pearson" in log] == pearson
    assert finished["saved"] == [steps // 2, steps]  # a quick run writes no checkpoint within an epoch


def test_gradients_are_clipped(finished) -> None:
    before = Run.open(finished["folder"]).history["grad_norm"].to_numpy()
    after = np.array(finished["tracker"].norms)
    assert (before > 2 * MAX_GRAD_NORM).any()
    np.testing.assert_allclose(after, before.clip(max=MAX_GRAD_NORM), rtol=1e-3)


def test_a_finished_run_is_taken_as_it_is_unless_told_to_replace_it(finished, tiny_backbone, splits, tmp_path) -> None:
    folder = shutil.copytree(finished["folder"], tmp_path / "run")
    before = files_of(folder)
    assert fit(splits, finished["config"], folder) == json.loads(json.dumps(finished["metrics"]))
    with pytest.raises(InputError, match=r"differs in epochs: choose another name"):
        fit(splits, finished["config"].model_copy(update={"epochs": 1}), folder)
    assert files_of(folder) == before
    other = fit(splits, small(tiny_backbone, epochs=1), folder, replace=True)
    assert [epoch["epoch"] for epoch in other["epochs"]] == [1]


def test_ratings_are_learned_beside_the_score_and_both_losses_fall(tiny_backbone, splits, tmp_path) -> None:
    config = small(tiny_backbone, rating_weight=0.5, contrast_weight=0, learning_rate=1e-2, adapter="full")
    fit(splits, config, tmp_path / "run")
    history = Run.open(tmp_path / "run").history
    np.testing.assert_allclose(history["loss"], history["ordinal"] + history["rating"], rtol=1e-4)
    assert history["rating"].iloc[0] == pytest.approx(np.log(10) / 2, abs=0.1)  # ten ratings, nothing known yet
    assert history["rating"].tail(10).mean() < history["rating"].iloc[0] - 0.05
    assert history["ordinal"].tail(10).mean() < 0.9 * history["ordinal"].head(5).mean()
    unrated = {name: frame.drop(columns="rating") for name, frame in splits.items()}
    with pytest.raises(InputError, match="no column rating"):
        fit(unrated, config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("name", "fault"), [("nope", "nope is not supported"), ("clearml", "requires 'clearml'")])
def test_a_tracker_that_is_not_there_is_refused(tiny_backbone, splits, tmp_path, name: str, fault: str) -> None:
    with pytest.raises(InputError, match=f"parameter report_to: '{name}' does not work here .*{fault}"):
        fit(splits, small(tiny_backbone), tmp_path / "run", report_to=name)
    assert not list(tmp_path.iterdir())


def test_it_can_overfit_a_handful_of_pairs(tiny_backbone, pairs_frame, tmp_path) -> None:
    config = small(
        tiny_backbone,
        adapter="full",
        epochs=20,
        learning_rate=5e-3,
        head_learning_rate=5e-3,
        contrast_weight=0,
    )
    metrics = fit({"train": pairs_frame, "validation": pairs_frame}, config, tmp_path / "run")
    assert metrics["validation"]["pearson"] > 0.95


def test_a_curriculum_decides_what_an_epoch_draws_on(tiny_backbone, splits, tmp_path, monkeypatch) -> None:
    train = splits["train"]
    anchors = train["anchor"].unique()
    easy = anchors[: len(anchors) // 2]
    difficulty = pd.Series(range(len(anchors)), index=anchors)
    monkeypatch.setattr(curriculum, "difficulty", lambda *_, **__: difficulty)
    drawn = []
    compute_loss = DualLossTrainer.compute_loss

    def noted(self: DualLossTrainer, model: torch.nn.Module, inputs: dict, *rest: object, **options: object):
        drawn.append(inputs["rows"].tolist())
        return compute_loss(self, model, inputs, *rest, **options)

    monkeypatch.setattr(DualLossTrainer, "compute_loss", noted)
    config = small(tiny_backbone, layout="packed", curriculum="easy_first")
    metrics = fit(splits, config, tmp_path / "run")
    assert metrics["train"]["steps"] == len(drawn) == steps_of(splits, 2)
    first = sum(drawn[: len(drawn) // 2], [])
    second = sum(drawn[len(drawn) // 2 :], [])
    assert set(train["anchor"].iloc[first]) == set(easy)
    assert sorted(second) == list(range(len(train)))


# Where a run is killed: in or right after which call of what, and the ending of that call's last argument.
POINTS = {
    "in a checkpoint": (DualLossTrainer, "_save_optimizer_and_scheduler", 7, ""),
    "after the last checkpoint": (DualLossTrainer, "_save_checkpoint", 10, ""),
    "after an evaluation": (DualLossTrainer, "_validate", 1, ""),
    "in the last evaluation": (results, "figures", 2, ""),
    "in the report": (results, "baselines", 1, ""),
    "in the swap": (Path, "rename", 1, "old"),
    "after the swap": (storage, "swap", 1, ""),
}


@pytest.fixture(scope="module")
def whole(tiny_backbone, splits, tmp_path_factory) -> tuple[Config, Path]:
    """Configuration and folder of a run in one go; beside it, by point, a copy of all that a kill there leaves."""
    config = small(tiny_backbone, learning_rate=0.01)
    parent = tmp_path_factory.mktemp("whole")

    def copy_after(point: str) -> None:
        owner, name, when, ending = POINTS[point]
        plain = getattr(owner, name)
        calls = []

        def replaced(*args, **kwargs):
            value = plain(*args, **kwargs)
            if str(args[-1] if args else "").endswith(ending):
                calls.append(1)
            if len(calls) == when and not (parent / point).exists():
                shutil.copytree(parent / "whole", parent / point)
            return value

        patch.setattr(owner, name, replaced)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
        for point in POINTS:
            copy_after(point)
        (parent / "whole" / "run").mkdir(parents=True)  # an older run, which is to be replaced
        fit(splits, config, parent / "whole" / "run", replace=True)
    return config, parent / "whole" / "run"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def checkpoints_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_as_if_it_had_not_been_killed(whole, splits, tmp_path, point: str) -> None:
    config, run = whole
    folder = shutil.copytree(run.parents[1] / point, tmp_path / "killed")
    assert not (folder / "run" / "model").exists() or point == "after the swap"
    progress = json.loads((folder / ".run.work" / "progress.json").read_text())
    assert progress["steps"] == steps_of(splits, 2)
    if point == "after the last checkpoint":
        truncated(checkpoints_of(folder / ".run.work" / "checkpoints")[-1] / "model.safetensors")
    resumed = fit(splits, config, folder / "run", replace=point != "after the swap")
    expected = json.loads((run / "metrics.json").read_text())
    for name in ("pearson", "spearman", "loss"):
        assert resumed["validation"][name] == pytest.approx(expected["validation"][name], abs=1e-6)
    assert [row["epoch"] for row in resumed["epochs"]] == [1, 2]
    before = Run.open(run).history
    after = Run.open(folder / "run").history
    np.testing.assert_allclose(before["loss"], after["loss"], rtol=1e-5)
    assert (after["seconds"].diff().dropna() > 0).all()
    assert {path.name for path in folder.iterdir()} <= {"run", ".run.lock"}


def test_another_run_does_not_go_on_from_a_checkpoint(whole, splits, tmp_path) -> None:
    config, run = whole
    folder = shutil.copytree(run.parents[1] / "after an evaluation", tmp_path / "killed")
    steeper = config.model_copy(update={"learning_rate": 0.02, "epochs": 1})
    fit(splits, steeper, folder / "run", replace=True)
    history = Run.open(folder / "run").history
    assert len(history) == steps_of(splits, 1)
    assert history["learning_rate"].max() == pytest.approx(0.02, rel=0.1)


def test_the_newest_whole_checkpoint_of_a_real_run_is_taken(whole, tmp_path) -> None:
    killed = whole[1].parents[1] / "after the last checkpoint" / ".run.work"
    checkpoints = shutil.copytree(killed / "checkpoints", tmp_path / "checkpoints")
    older, newest = checkpoints_of(checkpoints)
    assert newest.name == "checkpoint-40"
    assert newest_checkpoint(checkpoints) == newest
    truncated(newest / "optimizer.pt")
    assert newest_checkpoint(checkpoints) == older
    assert list(checkpoints.iterdir()) == [older]


# Which writing fails on a full disk: whose method, which of its calls, bytes that still find room.
WRITINGS = {
    "torch": (DualLossTrainer, "_save_optimizer_and_scheduler", 3, 10),
    "safetensors": (files, "save_weights", 1, 10),
    "tokenizers": (PreTrainedTokenizerBase, "save_pretrained", 1, 100_000),
    "Python": (storage, "write_text", 2, 10),
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(
    whole, splits, tmp_path, monkeypatch, writing: str
) -> None:
    config, run = whole
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    owner, name, call, room = WRITINGS[writing]
    plain = getattr(owner, name)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    calls = []

    def full(*args: object, **options: object) -> None:
        """In that call no file may grow, which fails as a full disk does."""
        calls.append(1)
        if len(calls) == call:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited))
        try:
            plain(*args, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(OSError, match=r"/run: the run cannot be written \(.+\); make room and start it again$"):
            fit(splits, config, tmp_path / "run")
    if writing == "torch":
        resumed = fit(splits, config, tmp_path / "run")
        expected = json.loads((run / "metrics.json").read_text())
        assert resumed["validation"]["loss"] == pytest.approx(expected["validation"]["loss"], abs=1e-6)


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tiny_backbone, splits, tmp_path, replace: bool) -> None:
    (tmp_path / "runs" / "other-run").mkdir(parents=True)
    with pytest.raises(InputError, match="is there and is no run"):
        fit(splits, small(tiny_backbone, epochs=1), tmp_path / "runs", replace=replace)
    assert (tmp_path / "runs" / "other-run").is_dir()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(
    tiny_backbone, splits, tmp_path, monkeypatch
) -> None:
    plain = losses.ordinal_loss
    calls = []

    def broken(cumulative: torch.Tensor, rank: torch.Tensor, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        loss = plain(cumulative, rank, **kwargs)
        return loss * float("nan") if len(calls) == 3 else loss

    monkeypatch.setattr(losses, "ordinal_loss", broken)
    with pytest.raises(FloatingPointError, match=r"step 3: the ordinal loss is nan; rows .*: \d+, \d+"):
        fit(splits, small(tiny_backbone), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_official_titles_are_kept_with_the_model(tiny_backbone, tmp_path, cpc_zip: Path) -> None:
    Matcher(small(tiny_backbone, cpc_titles=str(cpc_zip))).save(tmp_path / "model")
    assert Matcher.load(tmp_path).titles == cpc.titles(cpc_zip)
