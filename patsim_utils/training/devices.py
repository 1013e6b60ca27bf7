"""One training in several processes, one a device, as torchrun starts them.

Each lays out its part of every batch and reads it; the outputs are gathered, so that each computes the loss of the
whole batch, whatever that loss compares. The first process evaluates and writes.
"""

import subprocess
import sys
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from patsim_utils.config import Config
from patsim_utils.method.model import Outputs
from patsim_utils.training.runs import Run


def processes() -> PartialState:
    """Which of the training's processes this is: one for each device, as torchrun started them, or the only one."""
    return PartialState(cpu=not torch.cuda.is_available())


def shared(value: Any) -> Any:
    """What the first of the processes has, in all of them, once it is there."""
    return broadcast_object_list([value])[0] if processes().num_processes > 1 else value


def lost(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone; gloo has no class of its own for it."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def joined(outputs: Outputs, batch: dict[str, Tensor], accelerator: Accelerator) -> tuple[Outputs, dict[str, Tensor]]:
    """Outputs and labels of the rows of all devices; those of this device keep their gradient."""
    n, rank = len(batch["rows"]), accelerator.process_index
    counts = accelerator.gather(torch.tensor([n], device=outputs.cumulative.device)).tolist()

    def gather(x: Tensor) -> Tensor:
        padded = torch.cat([x.detach(), x.new_zeros(max(counts) - n, *x.shape[1:])])
        parts = accelerator.gather(padded).split(max(counts))
        return torch.cat([x if i == rank else part[: counts[i]] for i, part in enumerate(parts)])

    labels = [name for name in ("rows", "rank", "rating", "anchor_text", "target_text", "teacher") if name in batch]
    joined_outputs = {name: value if value is None else gather(value) for name, value in vars(outputs).items()}
    return Outputs(**joined_outputs), {name: gather(batch[name]) for name in labels}


def launch(config: Config, name: str, *, devices: int, replace: bool = False, report_to: str = "none") -> Config:
    """Trains study `name` in one process a device, in the way of torchrun; `fit` then finds the finished run.

    Returns the run's configuration, whose paths start at the repository. The processes are started
    anew, since those that accelerate starts from a notebook need one that has not used a GPU yet. RuntimeError where
    one of them failed, once their output has been shown.
    """
    settings = config.model_dump() | {"report_to": report_to}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    command += ["-m", "patsim_utils", "train", "--preset=sample", f"--name={name}", f"--data={settings.pop('data')}"]
    command += ["--replace"] * replace + [word for key, value in settings.items() for word in ("-p", key, str(value))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"the training on {devices} devices failed (exit status {process.returncode})")
    return Run.open(name).config
