"""Training: the run folder, the losses' terms, resuming after kills, and stopping at what is not finite."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import adapters, losses
from patsim_utils.method.matcher import Matcher
from patsim_utils.training import runs, trainer
from patsim_utils.training.fit import fit
from patsim_utils.training.trainer import DualLossTrainer, newest_checkpoint


@pytest.fixture(scope="module")
def splits() -> dict[str, pd.DataFrame]:
    """The sample's small splits to train on and to validate, and some more pairs as `test`."""
    sample = load("sample")
    return {"train": sample["validation"], "validation": sample["test"], "test": sample["train"].head(150)}


def small(tiny_backbone, **options: object) -> Config:
    sizes = {"contrast_layer": 1, "epochs": 2, "batch_size": 16, "rating_weight": 0.0}
    return Config(**{"backbone": tiny_backbone("bert"), "precision": "fp32", **sizes, **options})


def files_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_what_the_contract_says_and_is_loaded_the_next_time(
    tiny_backbone, splits, tmp_path, monkeypatch
) -> None:
    config, run, told, saved = small(tiny_backbone), tmp_path / "run", [], []
    save = DualLossTrainer._save_checkpoint

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs: dict, **kwargs) -> None:
            told.append(logs)

    note = lambda self, *args: saved.append(self.state.global_step) or save(self, *args)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
        patch.setattr(DualLossTrainer, "_save_checkpoint", note)
        result = fit(splits, config, run, report_to="trackio, none")
    names = {"config.json", "metrics.json", "history.csv", "predictions.csv", "model"}
    assert {path.name for path in run.iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} <= {"run", ".run.lock"}
    assert json.loads((run / "metrics.json").read_text()) == json.loads(json.dumps(result))
    for split in ("validation", "test"):
        found = result[split]
        assert set(found) == {"n", "pearson", "pearson_ci", "spearman", "mae", "qwk", "loss"}
        assert found["pearson_ci"][0] <= found["pearson"] <= found["pearson_ci"][1]
    steps = 2 * -(-len(splits["train"]) // 16)
    assert result["train"]["steps"] == steps
    assert saved == [steps // 2, steps]  # a quick run writes none within an epoch
    assert len([logs for logs in told if {"loss", "ordinal", "contrast"} <= set(logs)]) == steps
    pearson = [one["pearson"] for one in result["epochs"]]
    assert [logs["eval_pearson"] for logs in told if "eval_pearson" in logs] == pearson
    assert [one["epoch"] for one in result["epochs"]] == [1, 2]
    assert 0 < result["train"]["evaluation_seconds"] < result["train"]["seconds"]
    assert max(pearson) == pytest.approx(result["validation"]["pearson"], abs=1e-5)  # LoRA is merged
    history = pd.read_csv(run / "history.csv")
    assert history["step"].tolist() == list(range(1, steps + 1))
    np.testing.assert_allclose(history["loss"], history["ordinal"] + history["contrast"], rtol=1e-4, atol=1e-6)
    assert (history["contrast"] > 0).any()
    assert history["learning_rate"].iloc[-1] < history["learning_rate"].max() / 10  # the cosine came down
    predictions = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    for split, rows in predictions.groupby("split"):
        np.testing.assert_allclose(Matcher.load(run).score(rows), rows["prediction"], atol=1e-6)
        assert len(rows) == len(splits[split])
    assert runs.Run.open(run).config == config

    before = files_of(run)
    assert fit(splits, config, run) == json.loads(json.dumps(result))
    with pytest.raises(InputError, match=r"differs in epochs, learning_rate: choose another name"):
        fit(splits, small(tiny_backbone, epochs=1, learning_rate=0.1), run)
    with pytest.raises(InputError, match="differs in the data's rows"):
        fit(splits | {"train": splits["test"]}, config, run)
    assert files_of(run) == before
    other = fit(splits, small(tiny_backbone, epochs=1), run, replace=True)
    assert [one["epoch"] for one in other["epochs"]] == [1]


def test_ratings_are_learned_beside_the_score(tiny_backbone, splits, tmp_path) -> None:
    config = small(tiny_backbone, rating_weight=0.5, contrast_weight=0, learning_rate=1e-2, adapter="full")
    fit(splits, config, tmp_path / "run")
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    np.testing.assert_allclose(history["loss"], history["ordinal"] + history["rating"], rtol=1e-4)
    assert history["rating"].iloc[0] == pytest.approx(np.log(10) / 2, abs=0.1)  # ten ratings, nothing known yet
    assert history["rating"].tail(10).mean() < history["rating"].iloc[0] - 0.05
    unrated = {name: frame.drop(columns="rating") for name, frame in splits.items()}
    with pytest.raises(InputError, match="no column rating"):
        fit(unrated, config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("name", "told"), [("nope", "nope is not supported"), ("clearml", "requires 'clearml'")])
def test_a_tracker_that_is_not_there_is_refused(tiny_backbone, splits, tmp_path, name: str, told: str) -> None:
    with pytest.raises(InputError, match=f"parameter report_to: '{name}' does not work here .*{told}"):
        fit(splits, small(tiny_backbone), tmp_path / "run", report_to=name)
    assert not list(tmp_path.iterdir())


def test_it_can_overfit_a_handful_of_pairs(pairs_frame, tmp_path) -> None:
    rates, weights = {"learning_rate": 5e-3, "head_learning_rate": 5e-3}, {"contrast_weight": 0, "rating_weight": 0}
    config = Config(layers=1, contrast_layer=1, epochs=20, batch_size=12, **rates, **weights)
    result = fit({"train": pairs_frame, "validation": pairs_frame}, config, tmp_path / "run")
    assert result["validation"]["pearson"] > 0.95


def test_a_layout_with_a_curriculum_takes_as_many_steps(tiny_backbone, splits, tmp_path) -> None:
    result = fit(splits, small(tiny_backbone, layout="repeated", curriculum="easy_first"), tmp_path / "run")
    assert result["train"]["steps"] == 2 * -(-len(splits["train"]) // 16)


def test_the_loss_falls(tiny_backbone, splits, tmp_path) -> None:
    config = small(tiny_backbone, loss="pearson", adapter="full", learning_rate=3e-3, contrast_weight=0, epochs=3)
    fit(splits, config, tmp_path / "run")
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["ordinal"].tail(8).mean() < 0.9 * history["ordinal"].head(8).mean()


# Where a run is killed: in or right after which call of what, and the ending of that call's last argument.
POINTS = {
    "in a checkpoint": (DualLossTrainer, "_save_optimizer_and_scheduler", 7, ""),
    "after the last checkpoint": (DualLossTrainer, "_save_checkpoint", 10, ""),
    "after an evaluation": (DualLossTrainer, "_evaluated", 1, ""),
    "in the last evaluation": (runs, "summary", 2, ""),
    "in the report": (runs, "baselines", 1, ""),
    "in the swap": (Path, "rename", 1, "/old"),
    "after the swap": (storage, "swap", 1, ""),
}


@pytest.fixture(scope="module")
def whole(tiny_backbone, splits, tmp_path_factory) -> tuple[Config, Path]:
    """Configuration and folder of a run in one go; beside it, by point, a copy of all that a kill there leaves."""
    config, place = small(tiny_backbone, learning_rate=0.01), tmp_path_factory.mktemp("whole")

    def copy_after(point: str) -> None:
        owner, name, when, ending = POINTS[point]
        plain, calls = getattr(owner, name), []

        def replaced(*args, **kwargs):
            result = plain(*args, **kwargs)
            calls.extend([1] * str(args[-1] if args else "").endswith(ending))
            if len(calls) == when and not (place / point).exists():
                shutil.copytree(place / "whole", place / point)
            return result

        patch.setattr(owner, name, replaced)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
        for point in POINTS:
            copy_after(point)
        (place / "whole" / "run").mkdir(parents=True)  # an older run, which is to be replaced
        fit(splits, config, place / "whole" / "run", replace=True)
    return config, place / "whole" / "run"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def checkpoints_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_as_if_it_had_not_been_killed(whole, splits, tmp_path, point: str) -> None:
    config, one = whole
    folder = shutil.copytree(one.parents[1] / point, tmp_path / "killed")
    assert (folder / "run").exists() or list(folder.glob(".run.*.swap/old"))
    assert not (folder / "run" / "model").exists() or point == "after the swap"
    if point == "after the last checkpoint":
        truncated(checkpoints_of(folder / ".run.work" / "checkpoints")[-1] / "model.safetensors")
    resumed = fit(splits, config, folder / "run", replace=point != "after the swap")
    expected = json.loads((one / "metrics.json").read_text())
    for name in ("pearson", "spearman", "loss"):
        assert resumed["validation"][name] == pytest.approx(expected["validation"][name], abs=1e-6)
    assert [row["epoch"] for row in resumed["epochs"]] == [1, 2]
    before, after = (pd.read_csv(run / "history.csv") for run in (one, folder / "run"))
    np.testing.assert_allclose(before["loss"], after["loss"], rtol=1e-5)
    assert (after["seconds"].diff().dropna() > 0).all()
    assert {path.name for path in folder.iterdir()} <= {"run", ".run.lock"}


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: truncated(folder / "trainer_state.json"),
        lambda folder: truncated(folder / "model.safetensors"),
        lambda folder: truncated(folder / "optimizer.pt"),
        lambda folder: (folder / "rng_state.pth").write_bytes(b""),
    ],
)
def test_the_newest_whole_checkpoint_is_taken(whole, tmp_path, damage) -> None:
    killed = whole[1].parents[1] / "after the last checkpoint" / ".run.work"
    checkpoints = shutil.copytree(killed / "checkpoints", tmp_path / "checkpoints")
    older, newest = checkpoints_of(checkpoints)
    assert newest.name == "checkpoint-40"
    assert newest_checkpoint(checkpoints) == newest
    damage(newest)
    assert newest_checkpoint(checkpoints) == older
    assert list(checkpoints.iterdir()) == [older]


def test_a_full_disk_stops_the_run_which_then_goes_on(whole, splits, tmp_path, monkeypatch) -> None:
    config, one = whole
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    plain, calls = adapters.save_weights, []

    def full(module: torch.nn.Module, path: Path) -> None:
        calls.append(1)
        if len(calls) == 9:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        plain(module, path)

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "save_weights", full)
        with pytest.raises(OSError, match="No space left"):
            fit(splits, config, tmp_path / "run")
    resumed, expected = fit(splits, config, tmp_path / "run"), json.loads((one / "metrics.json").read_text())
    assert resumed["validation"]["loss"] == pytest.approx(expected["validation"]["loss"], abs=1e-6)


def test_another_configuration_does_not_take_over_a_checkpoint(tiny_backbone, splits, tmp_path) -> None:
    (tmp_path / ".run.work" / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / ".run.work" / "identity.json").write_text("{}")
    result = fit(splits, small(tiny_backbone, epochs=1), tmp_path / "run")
    assert result["train"]["steps"] == -(-len(splits["train"]) // 16)


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tiny_backbone, splits, tmp_path, replace: bool) -> None:
    (tmp_path / "runs" / "other-run").mkdir(parents=True)
    with pytest.raises(InputError, match="is there and is no run"):
        fit(splits, small(tiny_backbone, epochs=1), tmp_path / "runs", replace=replace)
    assert (tmp_path / "runs" / "other-run").is_dir()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(
    tiny_backbone, splits, tmp_path, monkeypatch
) -> None:
    real, calls = losses.ordinal_loss, []

    def broken(cumulative: torch.Tensor, rank: torch.Tensor, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        return real(cumulative, rank, **kwargs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(losses, "ordinal_loss", broken)
    with pytest.raises(FloatingPointError, match=r"step 3: the ordinal loss is nan; rows .*: \d+, \d+"):
        fit(splits, small(tiny_backbone), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_official_titles_are_kept_with_the_model(tiny_backbone, tmp_path, cpc_zip: Path) -> None:
    Matcher(small(tiny_backbone, cpc_titles=str(cpc_zip))).save(tmp_path / "model")
    assert Matcher.load(tmp_path).titles == cpc.titles(cpc_zip)
