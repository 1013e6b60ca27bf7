"""One training run: a configuration in, a run folder out (config, history, metrics, predictions, model).

The loop is Hugging Face's Trainer. What stands here is what it cannot know: the dual loss, batches of like length, two
learning rates, evaluation by the same code that scores, every step's terms, a stop at the first non-finite one, a
resumption that ends where the run would have ended without the interruption, and the loss of a batch that several
devices share: `torchrun --nproc-per-node 2 -m patsim_utils train --preset described --name real`.
"""

import json
import math
import os
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data.splits import fingerprint
from patsim_utils.errors import InputError
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method.matcher import Matcher
from patsim_utils.training import curriculum, devices, runs
from patsim_utils.training.trainer import MAX_GRAD_NORM, WARMUP, DualLossTrainer, newest_checkpoint, trackers


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
    lock = storage.lock(folder.with_name(f".{folder.name}.lock"), f"run {folder.name}")
    with lock if first else nullcontext():
        found = devices.shared(_begin(splits, config, folder, work, replace=replace) if first else None)
        if found:
            return found
        trainer = _train(splits, config, work, report_to=names)
        if first:
            found = runs.write(splits, config, trainer, work)
            storage.swap(work / "run", folder)
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
        storage.write_text(work / "identity.json", identity)
    return None


def _train(splits: dict[str, pd.DataFrame], config: Config, work: Path, *, report_to: list[str]) -> DualLossTrainer:
    set_seed(config.seed)
    cuda, began, state = torch.cuda.is_available(), time.perf_counter(), devices.processes()
    with state.main_process_first():  # which may fetch the backbone
        matcher = Matcher(config)
    last = devices.shared(newest_checkpoint(work / "checkpoints") if state.is_main_process else None)
    pairs = matcher.pairs(splits["train"])
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
    trainer = DualLossTrainer(matcher, sampler=sampler, validation=splits["validation"], work=work, args=arguments)
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
