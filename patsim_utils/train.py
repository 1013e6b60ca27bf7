"""One training run: a configuration in, a run folder out (config, history, metrics, predictions, model).

The loop is Hugging Face's Trainer. What stands here is what it cannot know: the dual loss, batches of like length, two
learning rates, evaluation by the same code that scores, every step's terms, a stop at the first non-finite one, a
resumption that ends where the run would have ended without the interruption, and the loss of a batch that several
devices share: `torchrun --nproc-per-node 2 -m patsim_utils.train --preset described --name real`.
"""

import json
import math
import os
import shutil
import sys
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback

from patsim_utils import curriculum, devices, encoder, files, losses, runs
from patsim_utils.batching import LengthGrouped
from patsim_utils.config import Config
from patsim_utils.data import fingerprint
from patsim_utils.errors import InputError, clip
from patsim_utils.matcher import Matcher, Output

WARMUP, WEIGHT_DECAY, MAX_GRAD_NORM = 0.1, 0.01, 1.0
CHECKPOINT_SECONDS = 120.0  # at least, between two checkpoints within an epoch: one takes as long as several steps


def dual_loss(output: Output, batch: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The three terms of the loss, each times its weight, 0 where not in use; their sum is what is minimised."""
    c = config
    ordinal = losses.ordinal_loss(output.cumulative, batch["rank"], kind=c.loss, alpha=c.alpha, beta=c.beta)
    contrast = rating = output.cumulative.new_zeros(())
    if c.contrast_weight:
        contrast = losses.contrast_loss(output.anchor, output.target, batch, temperature=c.temperature)
    if output.ratings is not None:
        rating = F.cross_entropy(output.ratings.float(), batch["rating"])
    return {"ordinal": ordinal, "contrast": c.contrast_weight * contrast, "rating": c.rating_weight * rating}


def loader(sampler: LengthGrouped) -> DataLoader:
    """The sampler's batches; where there is a GPU, two processes lay them out, so that it need not wait for them."""
    options = {"pin_memory": True, "num_workers": 2} if torch.cuda.is_available() else {}
    return DataLoader(sampler.pairs, batch_sampler=sampler, collate_fn=sampler.pairs.collate, **options)


class DualLossTrainer(Trainer):
    """Trainer on the sum of the terms of `dual_loss`.

    The terms of each step and the seconds since the start go to the log history, from which `history.csv` is made.
    """

    def __init__(
        self, model: Matcher, *, sampler: LengthGrouped, validation: pd.DataFrame, work: Path, **kwargs
    ) -> None:
        super().__init__(model, eval_dataset=model.pairs(validation), **kwargs)
        self.sampler, self.validation, self.work = sampler, validation, work
        self.clock = time.perf_counter()
        self.add_callback(_Schedule(sampler))

    def get_train_dataloader(self) -> DataLoader:
        return loader(self.sampler)  # not prepared by accelerate, which would give each device batches of its own

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; the encoder (or its adapter) at `learning_rate`, all that is new at `head_learning_rate`."""
        config, decayed = self.model.settings, set(self.get_decay_parameter_names(self.model))
        groups: dict[tuple[float, float], list] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = config.learning_rate if name.startswith("backbone.") else config.head_learning_rate
                groups.setdefault((rate, WEIGHT_DECAY if name in decayed else 0.0), []).append(parameter)
        parts = [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
        self.optimizer = torch.optim.AdamW(parts, fused=True)
        return self.optimizer

    def compute_loss(self, model: Matcher, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        with encoder.autocast(self.model.settings.precision, self.model.device):
            output = model(inputs)
        several = self.accelerator.num_processes
        if several > 1:
            output, inputs = devices.joined(output, inputs, self.accelerator)
        terms = dual_loss(output, inputs, self.model.settings)
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
        result = runs.summary(self.validation, self.model.cumulative(self.eval_dataset), self.model.settings)
        if result["pearson"] > max(before, default=-math.inf):
            # what a kill leaves half-written is written anew: the checkpoint to resume from is older
            self.model.save(self.work / f"epoch-{round(self.state.epoch)}")
        return {f"eval_{name}": result[name] for name in ("loss", "pearson", "spearman")}

    def _save(self, output_dir: str, state_dict: dict | None = None) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        encoder.save_weights(self.model, Path(output_dir) / "model.safetensors")  # also where two names share memory


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


def check_ratings(splits: dict[str, pd.DataFrame], config: Config) -> None:
    """InputError where ratings are to be learned from data that has none."""
    if config.rating_weight and "rating" not in splits["train"]:
        raise InputError("parameter rating_weight: the training data has no column rating; 0 does without")


def fit(
    splits: dict[str, pd.DataFrame], config: Config, folder: Path, *, replace: bool = False, report_to: str = "none"
) -> dict[str, Any]:
    """Trains on `splits["train"]`, keeps the best epoch on `validation`, evaluates the other splits.

    A finished run of the same configuration and data in `folder` is not touched: its metrics are returned. A killed one
    goes on from its newest whole checkpoint. Writes config.json, history.csv, metrics.json, predictions.csv and model/,
    all at once when everything is there, and returns the metrics. `report_to`: experiment trackers that follow it.

    Raises:
        InputError: settings that cannot work with this backbone or data; another run in `folder` and not `replace`;
            another process is training under this name.
        FloatingPointError: a non-finite loss or gradient, with the step and the rows.
    """
    check_ratings(splits, config)
    names = trackers(report_to)
    if "tensorboard" in names:  # else its events would lie among the checkpoints, and go with them
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.parent / ".tensorboard" / folder.name))
    folder.parent.mkdir(parents=True, exist_ok=True)
    work, first = runs.work_folder(folder), devices.processes().is_main_process
    lock = files.lock(folder.with_name(f".{folder.name}.lock"), f"run {folder.name}")
    with lock if first else nullcontext():
        found = devices.shared(_begin(splits, config, folder, work, replace=replace) if first else None)
        if found:
            return found
        trainer = _train(splits, config, work, report_to=names)
        if first:
            found = runs.write(splits, config, trainer, work)
            files.swap(work / "run", folder)
            shutil.rmtree(work)
        return devices.shared(found)


def _begin(
    splits: dict[str, pd.DataFrame], config: Config, folder: Path, work: Path, *, replace: bool
) -> dict[str, Any] | None:
    """The metrics of a finished run, or None, with a work folder of this configuration and data in place."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise InputError(f"{folder}: is there and is no run; delete it, or choose another name")
    if not replace and (found := runs.finished(config, splits, folder)):
        shutil.rmtree(work, ignore_errors=True)  # a kill right after the swap leaves it
        return found
    identity = json.dumps({"config": config.model_dump(), "data": fingerprint(splits)})
    if not (work / "identity.json").is_file() or (work / "identity.json").read_text() != identity:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        files.write_text(work / "identity.json", identity)
    return None


def _train(splits: dict[str, pd.DataFrame], config: Config, work: Path, *, report_to: list[str]) -> DualLossTrainer:
    set_seed(config.seed)
    cuda, began, state = torch.cuda.is_available(), time.perf_counter(), devices.processes()
    with state.main_process_first():  # which may fetch the backbone
        model = Matcher(config)
    last = devices.shared(newest_checkpoint(work / "checkpoints") if state.is_main_process else None)
    pairs = model.pairs(splits["train"])
    pools = curriculum.pools(splits["train"], config) if config.curriculum != "none" else None
    share = (state.process_index, state.num_processes)
    sampler = LengthGrouped(pairs, batch_size=config.batch_size, seed=config.seed, pools=pools, share=share)
    arguments = TrainingArguments(
        output_dir=str(work / "checkpoints"),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(WARMUP * config.epochs * len(sampler)),
        max_grad_norm=MAX_GRAD_NORM,
        eval_strategy="epoch",
        save_strategy="epoch",  # after the evaluation; _Schedule says when else
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        use_cpu=not cuda,
        ddp_find_unused_parameters=False,
        report_to=report_to,
        seed=config.seed,
        disable_tqdm=not transformers.utils.is_in_notebook(),
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # the Trainer would split a batch over all GPUs that this process sees
    trainer = DualLossTrainer(model, sampler=sampler, validation=splits["validation"], work=work, args=arguments)
    trainer.remove_callback(PrinterCallback)
    trainer.clock = began
    if last:
        trainer.clock -= json.loads((last / "trainer_state.json").read_text())["log_history"][-1]["seconds"]
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    if state.process_index:
        torch.manual_seed(config.seed + state.process_index)  # its dropout is not that of the first device
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return trainer


if __name__ == "__main__":
    from patsim_utils import cli

    sys.exit(cli.main(["train", *sys.argv[1:]]))
