"""What a training is told: the Trainer's settings, the sampler's, when it saves, and what its faults are called."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from patsim_utils.config import Config
from patsim_utils.training import fit as fit_module
from patsim_utils.training import trainer
from patsim_utils.training.trainer import Schedule


def test_the_trainer_has_the_settings_of_the_recipe(tmp_path: Path) -> None:
    config = Config(epochs=4, batch_size=9, seed=7)
    arguments = fit_module._arguments(config, steps=41, folder=tmp_path / "checkpoints", report_to=[])
    expected = {
        "output_dir": str(tmp_path / "checkpoints"),
        "num_train_epochs": 4,
        "per_device_train_batch_size": 9,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 5,
        "max_grad_norm": 1.0,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "use_cpu": True,
        "ddp_find_unused_parameters": False,
        "report_to": [],
        "seed": 7,
        "disable_tqdm": True,
        "n_gpu": 0,
    }
    assert {name: getattr(arguments, name) for name in expected} == expected


def test_the_sampler_has_the_settings_and_the_share_of_its_process(monkeypatch) -> None:
    config = Config(batch_size=9, seed=7)
    frame = pd.DataFrame({"anchor": ["a"]})
    state = SimpleNamespace(process_index=1, num_processes=3)
    matcher = SimpleNamespace(config=config, pairs=lambda rows: ("pairs of", rows))
    sampler = fit_module._sampler(matcher, frame, state)
    assert sampler.pairs == ("pairs of", frame)
    assert (sampler.batch_size, sampler.seed, sampler.pools) == (9, 7, None)
    assert (sampler.device, sampler.devices) == (1, 3)
    matcher.config = config.model_copy(update={"curriculum": "random"})
    monkeypatch.setattr(fit_module.curriculum, "pools", lambda train, settings: [train, settings])
    assert fit_module._sampler(matcher, frame, state).pools == [frame, matcher.config]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), os.strerror(errno.ENOSPC)),
        (OSError(errno.EACCES, "denied"), os.strerror(errno.EACCES)),
        (Exception("cannot write (os error 28)"), os.strerror(28)),
        (RuntimeError("[enforce fail at inline_container.cc:778] unexpected pos"), "a checkpoint is incomplete"),
        (OSError(errno.ENOENT, "no such file"), None),
        (ValueError("of another kind (error 28)"), None),
    ],
)
def test_a_fault_of_the_disk_is_known_by_its_number_or_words(error: Exception, reason: str | None) -> None:
    assert fit_module.disk_fault(error) == reason


def test_faults_of_the_disk_and_no_others_are_one_line(monkeypatch, tmp_path: Path) -> None:
    errors = [OSError(errno.ENOSPC, "full"), ValueError("another")]

    def broken(*_: object, **__: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(fit_module, "_fit", broken)
    config = Config(rating_weight=0)
    message = (
        f"{tmp_path}/runs/a: the run cannot be written ({os.strerror(errno.ENOSPC)}); make room and start it again"
    )
    with pytest.raises(OSError, match="make room") as error:
        fit_module.fit({}, config, tmp_path / "runs" / "a")
    assert str(error.value) == message
    assert (tmp_path / "runs").is_dir()
    with pytest.raises(ValueError, match="^another$"):
        fit_module.fit({}, config, tmp_path / "runs" / "a")


def test_events_of_tensorboard_lie_beside_the_run(monkeypatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(fit_module, "_fit", lambda *arguments, **options: calls.append((arguments, options)))
    monkeypatch.setattr(fit_module, "trackers", lambda report_to: report_to.split())
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # so that the test's own value goes with it
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    config = Config(rating_weight=0)
    fit_module.fit({}, config, tmp_path / "a", report_to="wandb")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    fit_module.fit({}, config, tmp_path / "a", report_to="tensorboard", replace=True)
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / ".tensorboard" / "a")
    whole = ({}, config, tmp_path / "a")
    assert calls == [
        (whole, {"replace": False, "report_to": ["wandb"]}),
        (whole, {"replace": True, "report_to": ["tensorboard"]}),
    ]


def test_ratings_need_a_column_of_them() -> None:
    rated = {"train": pd.DataFrame({"rating": ["4"]})}
    unrated = {"train": pd.DataFrame({"score": [1.0]})}
    fit_module.check_ratings(rated, Config())
    fit_module.check_ratings(unrated, Config(rating_weight=0))
    message = "^parameter rating_weight: the training data has no column rating; 0 does without$"
    with pytest.raises(fit_module.InputError, match=message):
        fit_module.check_ratings(unrated, Config())


class Sampler:
    """Thirty batches an epoch; keeps the epochs that it is told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return 30

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def steps_with_a_checkpoint(schedule: Schedule, steps: int) -> list[int]:
    saved = []
    for step in range(1, steps + 1):
        control = SimpleNamespace(should_save=False)
        schedule.on_step_end(None, SimpleNamespace(max_steps=steps, global_step=step), control)
        if control.should_save:
            saved.append(step)
    return saved


def test_checkpoints_within_an_epoch_come_when_they_are_due(monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: now)
    schedule = Schedule(Sampler())
    now += 119.9
    assert steps_with_a_checkpoint(schedule, 90) == []
    now += 0.1
    assert steps_with_a_checkpoint(schedule, 90) == [9, 18, 27, 36, 45, 54, 63, 72, 81]  # 90 ends an epoch
    assert steps_with_a_checkpoint(schedule, 300) == [step for step in range(20, 300, 20) if step % 30]
    assert steps_with_a_checkpoint(schedule, 5) == [1, 2, 3, 4, 5]
    schedule.on_save(None, None, None)
    assert steps_with_a_checkpoint(schedule, 90) == []


def test_the_sampler_is_told_its_epoch() -> None:
    sampler = Sampler()
    schedule = Schedule(sampler)
    for epoch in (None, 0.5, 0.9999999, 1.0, 2.2):
        schedule.on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
    assert sampler.epochs == [0, 0, 1, 1, 2]


def test_trackers_are_named_by_words_between_commas(monkeypatch) -> None:
    asked = []

    def callbacks(names: list[str]) -> list:
        asked.append(names)
        return []

    monkeypatch.setattr(trainer, "get_reporting_integration_callbacks", callbacks)
    assert trainer.trackers("tensorboard, mlflow,none, ") == ["tensorboard", "mlflow"]
    assert trainer.trackers("none") == []
    assert asked == [["tensorboard", "mlflow"], []]
