"""The training loop: Hugging Face's Trainer with the method's loss and two learning rates."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from patsim_utils import storage
from patsim_utils.errors import InputError, clip
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method import encoder
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights import files
from patsim_utils.training import devices, results
from patsim_utils.training.objective import objective

WARMUP = 0.1  # share of the steps in which the learning rates rise
WEIGHT_DECAY = 0.01  # of weight matrices; biases and norms have none
MAX_GRAD_NORM = 1.0
# At least so long after the last checkpoint comes one within an epoch: it takes as long as several steps.
CHECKPOINT_SECONDS = 120.0
PROGRESS_SECONDS = 5.0  # at least, between two notes of the progress


def loader(sampler: LengthGrouped) -> DataLoader:
    """The sampler's batches; two processes lay them out where a GPU would have to wait for them."""
    options = {}
    if torch.cuda.is_available():
        options = {"pin_memory": True, "num_workers": 2}
    pairs = sampler.pairs
    return DataLoader(pairs, batch_sampler=sampler, collate_fn=pairs.collate, **options)


class DualLossTrainer(Trainer):
    """Trainer on the sum of the terms of `objective`.

    The terms of each step and the seconds since the start go to the log history, from which
    `history.csv` is made. An evaluation saves the model to `work / "epoch-<n>"` where it is the
    best so far.
    """

    def __init__(
        self,
        matcher: Matcher,
        *,
        sampler: LengthGrouped,
        validation: pd.DataFrame,
        work: Path,
        **kwargs: Any,
    ) -> None:
        super().__init__(matcher.network, eval_dataset=matcher.pairs(validation), **kwargs)
        self.matcher = matcher
        self.sampler = sampler
        self.validation = validation
        self.work = work
        # When the training began; of a resumed one earlier, by the time that the killed processes took.
        self.clock = time.perf_counter()
        self.terms: dict[str, float] = {}  # of the last step's loss
        self.add_callback(Schedule(sampler))
        self.add_callback(Progress(work / "progress.json", seconds=self.seconds))

    def seconds(self) -> float:
        """Of the training so far."""
        return round(time.perf_counter() - self.clock, 3)

    def get_train_dataloader(self) -> DataLoader:
        """Not prepared by accelerate, which would give each device batches of its own."""
        return loader(self.sampler)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW: the encoder (or its adapter) at `learning_rate`, what is new at `head_learning_rate`."""
        config = self.matcher.config
        decayed = set(self.get_decay_parameter_names(self.model))
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            rate = config.head_learning_rate
            if name.startswith("backbone."):
                rate = config.learning_rate
            decay = WEIGHT_DECAY if name in decayed else 0.0
            empty_group = {"params": [], "lr": rate, "weight_decay": decay}
            group = groups.setdefault((rate, decay), empty_group)
            group["params"].append(parameter)
        self.optimizer = torch.optim.AdamW(list(groups.values()), fused=True)
        return self.optimizer

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """The loss of a batch, with several devices of the whole batch that they share.

        Raises:
            FloatingPointError: a term is not finite; the message names the step and the rows.
        """
        config = self.matcher.config
        with encoder.autocast(config.precision, self.model.device):
            outputs = model(inputs)
        processes = self.accelerator.num_processes
        if processes > 1:
            outputs, inputs = devices.joined(outputs, inputs, self.accelerator)
        terms = objective(outputs, inputs, config)
        values = torch.stack(list(terms.values())).tolist()  # one wait for the device
        self.terms = dict(zip(terms, values, strict=True))
        self._refuse_not_finite(inputs["rows"])
        loss = sum(terms.values())
        if processes == 1:
            return loss
        # Each device has the gradient of its own rows; DistributedDataParallel takes the mean of them.
        return loss.detach() + processes * (loss - loss.detach())

    def _refuse_not_finite(self, rows: Tensor) -> None:
        for name, value in self.terms.items():
            if not math.isfinite(value):
                fault = f"step {self.state.global_step + 1}: the {name} loss is {value}"
                numbers = ", ".join(str(row) for row in rows.tolist())
                message = f"{fault}; rows of the training split in this batch: {numbers}"
                raise FloatingPointError(message)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the loss's terms and the seconds; FloatingPointError where a gradient is not finite."""
        if "loss" in logs:
            logs = logs | self.terms
            norm = logs["grad_norm"]
            if not math.isfinite(norm):
                raise FloatingPointError(f"step {self.state.global_step}: the gradient's norm is {norm}")
        super().log(logs | {"seconds": self.seconds()}, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss, Pearson and Spearman on validation, on the first device, by the code that scores."""
        began = time.perf_counter()
        figures = None
        if self.accelerator.is_main_process:
            figures = self._validate()
        figures = devices.shared(figures)
        logs = {f"eval_{name}": value for name, value in figures.items()}
        self.log(logs | {"eval_runtime": time.perf_counter() - began})
        handler = self.callback_handler
        self.control = handler.on_evaluate(self.args, self.state, self.control, dict(logs))
        shown_in_notebook = not self.args.disable_tqdm
        if self.accelerator.is_main_process and not shown_in_notebook:
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            print(f"epoch {round(self.state.epoch)}: validation {text}", flush=True)
        return logs

    def _validate(self) -> dict[str, float]:
        earlier = [row["eval_pearson"] for row in self.state.log_history if "eval_pearson" in row]
        predictions = self.matcher.run(self.eval_dataset)
        figures = results.figures(self.validation, predictions.logits, self.matcher.config)
        if figures["pearson"] > max(earlier, default=-math.inf):
            # A kill in between does no harm: the checkpoint to resume from is older.
            self.matcher.save(self.work / f"epoch-{round(self.state.epoch)}")
        return {name: figures[name] for name in ("loss", "pearson", "spearman")}

    def _save(self, output_dir: str, state_dict: dict[str, Tensor] | None = None) -> None:
        """The weights of a checkpoint; each process of a torchrun calls this, and the first one writes."""
        if not self.args.should_save:
            return
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        files.save_weights(self.model, folder / "model.safetensors")


class Schedule(TrainerCallback):
    """Tells the sampler its epoch, and asks for a checkpoint within an epoch now and then.

    None is asked for at the last step of an epoch: written before the evaluation, it would make a
    resumed run leave that out.
    """

    def __init__(self, sampler: LengthGrouped) -> None:
        self.sampler = sampler
        self.saved = time.perf_counter()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        epochs_done = state.epoch or 0
        self.sampler.set_epoch(math.floor(epochs_done + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = max(1, min(20, state.max_steps // 10))
        if state.global_step % every or state.global_step % len(self.sampler) == 0:
            return
        due = time.perf_counter() - self.saved >= CHECKPOINT_SECONDS
        # One clock decides for all devices, which write a checkpoint together.
        if devices.shared(due):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.perf_counter()


class Progress(TrainerCallback):
    """Notes in `<work>/progress.json` how far a training is, first at once, then every PROGRESS_SECONDS.

    The file holds one JSON object and is replaced as a whole: {"step": 20, "steps": 120,
    "seconds": 31.5}. `step` is the number of steps that are done, `steps` of the whole training,
    `seconds` the time that they took, also in processes that were killed. The work folder of the
    run in `folder` is `runs.work_folder(folder)`; it goes when the run is finished.
    """

    def __init__(self, path: Path, *, seconds: Callable[[], float]) -> None:
        self.path = path
        self.seconds = seconds
        self.written = -math.inf

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        if not state.is_world_process_zero or now - self.written < PROGRESS_SECONDS:
            return
        note = {"step": state.global_step, "steps": state.max_steps, "seconds": self.seconds()}
        storage.write_text(self.path, json.dumps(note))
        self.written = now


def trackers(report_to: str) -> list[str]:
    """Names of experiment trackers in a text such as "tensorboard, mlflow"; "none" for none.

    InputError where transformers does not know one, or its package is not installed.
    """
    words = [word.strip() for word in report_to.split(",")]
    names = [word for word in words if word not in ("", "none")]
    try:
        for callback in get_reporting_integration_callbacks(names):
            callback()
    except (ImportError, RuntimeError, ValueError) as error:
        fault = f"parameter report_to: {clip(report_to)} does not work here"
        raise InputError(f"{fault} ({clip(error)})") from error
    return names
