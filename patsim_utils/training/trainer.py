"""training.trainer: to be written."""

import json
import math
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from patsim_utils.errors import InputError, clip
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method import adapters, encoder
from patsim_utils.method.matcher import Matcher
from patsim_utils.training import devices, runs
from patsim_utils.training.objective import objective

WARMUP, WEIGHT_DECAY, MAX_GRAD_NORM = 0.1, 0.01, 1.0
CHECKPOINT_SECONDS = 120.0  # at least, between two checkpoints within an epoch: one takes as long as several steps


def loader(sampler: LengthGrouped) -> DataLoader:
    """The sampler's batches; where there is a GPU, two processes lay them out, so that it need not wait for them."""
    options = {"pin_memory": True, "num_workers": 2} if torch.cuda.is_available() else {}
    return DataLoader(sampler.pairs, batch_sampler=sampler, collate_fn=sampler.pairs.collate, **options)


class DualLossTrainer(Trainer):
    """Trainer on the sum of the terms of `objective`.

    The terms of each step and the seconds since the start go to the log history, from which `history.csv` is made.
    """

    def __init__(
        self, matcher: Matcher, *, sampler: LengthGrouped, validation: pd.DataFrame, work: Path, **kwargs
    ) -> None:
        super().__init__(matcher.network, eval_dataset=matcher.pairs(validation), **kwargs)
        self.matcher = matcher
        self.sampler, self.validation, self.work = sampler, validation, work
        self.clock = time.perf_counter()
        self.add_callback(_Schedule(sampler))

    def get_train_dataloader(self) -> DataLoader:
        return loader(self.sampler)  # not prepared by accelerate, which would give each device batches of its own

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; the encoder (or its adapter) at `learning_rate`, all that is new at `head_learning_rate`."""
        config, decayed = self.matcher.config, set(self.get_decay_parameter_names(self.model))
        groups: dict[tuple[float, float], list] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = config.learning_rate if name.startswith("backbone.") else config.head_learning_rate
                groups.setdefault((rate, WEIGHT_DECAY if name in decayed else 0.0), []).append(parameter)
        parts = [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
        self.optimizer = torch.optim.AdamW(parts, fused=True)
        return self.optimizer

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        with encoder.autocast(self.matcher.config.precision, self.model.device):
            outputs = model(inputs)
        several = self.accelerator.num_processes
        if several > 1:
            outputs, inputs = devices.joined(outputs, inputs, self.accelerator)
        terms = objective(outputs, inputs, self.matcher.config)
        values = torch.stack(list(terms.values())).tolist()  # one wait for the device
        self.terms = dict(zip(terms, values, strict=True))
        for name, value in self.terms.items():
            if not math.isfinite(value):
                rows = ", ".join(map(str, inputs["rows"].tolist()))
                what = f"step {self.state.global_step + 1}: the {name} loss is {value}"
                raise FloatingPointError(f"{what}; rows of the training split in this batch: {rows}")
        loss = sum(terms.values())
        # each device has the gradient of its own rows, and DistributedDataParallel takes the mean over devices
        return loss if several == 1 else loss.detach() + several * (loss - loss.detach())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self.terms}
            if not math.isfinite(logs["grad_norm"]):
                raise FloatingPointError(f"step {self.state.global_step}: the gradient's norm is {logs['grad_norm']}")
        super().log({**logs, "seconds": round(time.perf_counter() - self.clock, 3)}, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation by the code that scores; a model that is the best so far is put aside as `epoch-<n>`."""
        began = time.perf_counter()
        found = devices.shared(self._evaluated() if self.accelerator.is_main_process else None)
        self.log(found | {"eval_runtime": time.perf_counter() - began})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, dict(found))
        if self.args.disable_tqdm and self.accelerator.is_main_process:  # else the notebook's table shows it
            figures = ", ".join(f"{name[5:]} {value:.4f}" for name, value in found.items())
            print(f"epoch {round(self.state.epoch)}: validation {figures}", flush=True)
        return found

    def _evaluated(self) -> dict[str, float]:
        before = [row["eval_pearson"] for row in self.state.log_history if "eval_pearson" in row]
        result = runs.summary(self.validation, self.matcher.run(self.eval_dataset).logits, self.matcher.config)
        if result["pearson"] > max(before, default=-math.inf):
            # what a kill leaves half-written is written anew: the checkpoint to resume from is older
            self.matcher.save(self.work / f"epoch-{round(self.state.epoch)}")
        return {f"eval_{name}": result[name] for name in ("loss", "pearson", "spearman")}

    def _save(self, output_dir: str, state_dict: dict | None = None) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        adapters.save_weights(self.model, Path(output_dir) / "model.safetensors")  # also where two names share memory


class _Schedule(TrainerCallback):
    """Tells the sampler its epoch, on a resumed run, too; and when to save within an epoch: now and then.

    A checkpoint of its last step that was written before the evaluation would make a resumed run leave that out.
    """

    def __init__(self, sampler: LengthGrouped) -> None:
        self.sampler, self.saved = sampler, time.perf_counter()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(math.floor((state.epoch or 0) + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = max(1, min(20, state.max_steps // 10))
        if state.global_step % every == 0 and state.global_step % len(self.sampler) > 0:
            # one clock decides for all devices, which write a checkpoint together
            control.should_save |= devices.shared(time.perf_counter() - self.saved >= CHECKPOINT_SECONDS)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.perf_counter()


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; one that a kill or a full disk left incomplete is deleted."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())
            load_file(path / "model.safetensors")
            states = sorted(path.glob("rng_state*.pth")) or [path / "rng_state.pth"]  # one of each device
            for file in (path / "optimizer.pt", path / "scheduler.pt", *states):  # the Trainer unpickles tensors only
                if damaged := zipfile.ZipFile(file).testzip():
                    raise ValueError(f"{file.name}: {damaged} is damaged")
        except Exception as error:  # whatever is wrong with it, an older one is as good
            print(f"{path.name} is incomplete and left out ({clip(error)})", flush=True)
            shutil.rmtree(path)
        else:
            return path
    return None


def trackers(report_to: str) -> list[str]:
    """Names of experiment trackers, as the Trainer's `report_to` has them: "tensorboard, mlflow"; "none" for none.

    InputError where transformers does not know one, or its package is not installed.
    """
    names = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    try:
        for callback in get_reporting_integration_callbacks(names):
            callback()
    except (ImportError, RuntimeError, ValueError) as error:
        raise InputError(f"parameter report_to: {clip(report_to)} does not work here ({clip(error)})") from error
    return names
