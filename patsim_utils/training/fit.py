"""One training run: a configuration in, a run folder out.

The loop is Hugging Face's Trainer. What stands in this room is what it cannot know: the dual
loss, batches of like length, two learning rates, evaluation by the same code that scores, every
step's terms, a stop at the first one that is not finite, a resumption that ends where the run
would have ended without the interruption, and the loss of a batch that several devices share:
`torchrun --nproc-per-node 2 -m patsim_utils train --preset described --name real`.
"""

import errno
import json
import math
import os
import re
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from accelerate import PartialState
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.errors import InputError, named
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method.matcher import Matcher
from patsim_utils.training import curriculum, devices, results, runs
from patsim_utils.training.checkpoints import newest_checkpoint, seconds_of
from patsim_utils.training.trainer import MAX_GRAD_NORM, WARMUP, DualLossTrainer, trackers

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
Splits = dict[str, pd.DataFrame]
Metrics = dict[str, Any]


def check_ratings(splits: Splits, config: Config) -> None:
    """InputError where ratings are to be learned from data that has none."""
    if config.rating_weight and "rating" not in splits["train"]:
        fault = "the training data has no column rating; 0 does without"
        raise InputError(f"parameter rating_weight: {fault}")


def fit(splits: Splits, config: Config, folder: Path, *, replace: bool = False, report_to: str = "none") -> Metrics:
    """Trains on `splits["train"]`, keeps the best epoch on `validation`, evaluates the other splits.

    A finished run of the same configuration, data and files in `folder` is not touched: its
    metrics are returned. A killed one goes on from its newest whole checkpoint. Writes
    config.json, history.csv, metrics.json, predictions.csv and model/, all at once when
    everything is there, and returns the metrics. `report_to`: experiment trackers that follow it.

    Raises:
        InputError: settings that cannot work with this backbone or data; another run in `folder`
            and not `replace`; another process is training under this name.
        FloatingPointError: a non-finite loss or gradient, with the step and the rows.
        OSError: the disk is full, or may not be written. The next call goes on from the newest
            whole checkpoint.
    """
    check_ratings(splits, config)
    names = trackers(report_to)
    if "tensorboard" in names:  # else its events would lie among the checkpoints, and go with them
        events = folder.parent / ".tensorboard" / folder.name
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(events))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _fit(splits, config, folder, replace=replace, report_to=names)
    except InputError:
        raise
    except Exception as error:  # each library has a class of its own for a full disk
        reason = disk_fault(error)
        if reason is None:
            raise
        fault = f"{named(folder)}: the run cannot be written ({reason})"
        raise OSError(f"{fault}; make room and start it again") from error


def disk_fault(error: Exception) -> str | None:
    """Why a file could not be written, where an error is about that, in a few words; else None."""
    number = getattr(error, "errno", None)
    in_text = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors and tokenizers have it
    if in_text:
        number = int(in_text[1])
    if number in DISK_FAULTS:
        return os.strerror(number)
    # The name of torch's writer is all that its error says.
    if "inline_container" in str(error):
        return "a checkpoint is incomplete"
    return None


def _fit(splits: Splits, config: Config, folder: Path, *, replace: bool, report_to: list[str]) -> Metrics:
    work = runs.work_folder(folder)
    is_main = devices.processes().is_main_process
    lock = nullcontext()
    if is_main:
        lock = storage.lock(folder.with_name(f".{folder.name}.lock"), f"run {folder.name}")
    with lock:
        metrics = None
        if is_main:
            metrics = _begin(splits, config, folder, work, replace=replace)
        metrics = devices.shared(metrics)
        if metrics:
            return metrics
        trainer = _train(splits, config, work, report_to=report_to)
        if is_main:
            identity = json.loads((work / "identity.json").read_text())
            metrics = results.write(splits, trainer, work, identity)
            storage.swap(work / "run", folder)
            shutil.rmtree(work)
        return devices.shared(metrics)


def _begin(splits: Splits, config: Config, folder: Path, work: Path, *, replace: bool) -> Metrics | None:
    """The metrics of a finished run, or None with a work folder of this very run in place."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise InputError(f"{folder}: is there and is no run; delete it, or choose another name")
    if replace:
        runs.refuse_foreign(folder)
    else:
        metrics = runs.finished(config, splits, folder)
        if metrics:
            if (work / "identity.json").is_file():
                shutil.rmtree(work)  # a kill right after the swap leaves it
            return metrics
    identity = json.dumps(runs.identity(config, splits))
    note = work / "identity.json"
    if not note.is_file() or note.read_text() != identity:
        runs.refuse_foreign_work(work)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        storage.write_text(note, identity)
    return None


def _train(splits: Splits, config: Config, work: Path, *, report_to: list[str]) -> DualLossTrainer:
    """The trainer at the end of the training, which begins at the newest checkpoint in `work`."""
    began = time.perf_counter()
    set_seed(config.seed)
    state = devices.processes()
    with state.main_process_first():  # which may fetch the backbone
        matcher = Matcher(config)
    checkpoint = None
    if state.is_main_process:
        checkpoint = newest_checkpoint(work / "checkpoints")
    checkpoint = devices.shared(checkpoint)
    sampler = _sampler(matcher, splits["train"], state)
    steps = config.epochs * len(sampler)
    trainer = DualLossTrainer(
        matcher,
        sampler=sampler,
        validation=splits["validation"],
        work=work,
        args=_arguments(config, steps=steps, folder=work / "checkpoints", report_to=report_to),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.clock = began
    if checkpoint:
        trainer.clock -= seconds_of(checkpoint)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if state.process_index:  # so that its dropout is not that of the first device
        torch.manual_seed(config.seed + state.process_index)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def _sampler(matcher: Matcher, train: pd.DataFrame, state: PartialState) -> LengthGrouped:
    """The batches of this process."""
    config = matcher.config
    pools = None
    if config.curriculum != "none":
        pools = curriculum.pools(train, config)
    return LengthGrouped(
        matcher.pairs(train),
        batch_size=config.batch_size,
        seed=config.seed,
        pools=pools,
        share=(state.process_index, state.num_processes),
    )


def _arguments(config: Config, *, steps: int, folder: Path, report_to: list[str]) -> TrainingArguments:
    """The Trainer's own settings: cosine schedule, evaluation and checkpoint after each epoch."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(WARMUP * steps),
        max_grad_norm=MAX_GRAD_NORM,
        eval_strategy="epoch",
        save_strategy="epoch",  # after the evaluation; trainer.Schedule says when else
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        report_to=report_to,
        seed=config.seed,
        disable_tqdm=not transformers.utils.is_in_notebook(),
    )
    # The Trainer would split a batch over all GPUs that this process sees.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
