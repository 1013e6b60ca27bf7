"""One training in several processes, one a device, as torchrun starts them.

Each lays out its part of every batch and reads it; the outputs are gathered, so that each
computes the loss of the whole batch, whatever that loss compares. The first process evaluates and
writes.
"""

import subprocess
import sys
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from patsim_utils import environment
from patsim_utils.config import Config
from patsim_utils.method.model import Outputs
from patsim_utils.training.runs import Run

LABELS = (
    "rows",
    "rank",
    "rating",
    "anchor_text",
    "target_text",
    "teacher",
)  # what losses read of a batch's rows


def processes() -> PartialState:
    """Which of the training's processes this is: torchrun starts one for each device."""
    return PartialState(cpu=not torch.cuda.is_available())


def shared(value: Any) -> Any:
    """What the first of the processes has, in all of them; each waits for it."""
    if processes().num_processes == 1:
        return value
    return broadcast_object_list([value])[0]


def lost(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone; gloo has no class of its own for it."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def describe() -> str:
    """The device of this process in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"


def peak_memory() -> float:
    """Largest memory so far in MiB: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return environment.peak_memory()


def joined(outputs: Outputs, batch: dict[str, Tensor], accelerator: Accelerator) -> tuple[Outputs, dict[str, Tensor]]:
    """Outputs and labels of the rows of all devices, in the order of the devices.

    Those of this device keep their gradient.
    """
    rows = len(batch["rows"])
    counts = accelerator.gather(torch.tensor([rows], device=outputs.ordinal_logits.device)).tolist()
    most = max(counts)

    def gather(own: Tensor) -> Tensor:
        padding = own.new_zeros(most - rows, *own.shape[1:])
        gathered = accelerator.gather(torch.cat([own.detach(), padding]))
        parts = [part[:count] for part, count in zip(gathered.split(most), counts, strict=True)]
        parts[accelerator.process_index] = own
        return torch.cat(parts)

    values = {}
    for name, value in vars(outputs).items():
        values[name] = None if value is None else gather(value)
    return Outputs(**values), {name: gather(batch[name]) for name in LABELS if name in batch}


def launch(config: Config, name: str, *, devices: int, replace: bool = False, report_to: str = "none") -> Config:
    """Trains study `name` in one process a device, as torchrun does; `fit` then finds the run.

    Returns the run's configuration, whose paths start at the repository. The processes are
    started anew, since those that accelerate starts from a notebook need one that has not used a
    GPU yet.

    Raises:
        RuntimeError: one of them failed; their output has been shown.
    """
    settings = config.model_dump() | {"report_to": report_to}
    data = settings.pop("data")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={devices}",
    ]
    command += [
        "-m",
        "patsim_utils",
        "train",
        "--preset=sample",
        f"--name={name}",
        f"--data={data}",
    ]
    if replace:
        command.append("--replace")
    for key, value in settings.items():
        command += ["-p", key, str(value)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **pipes) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        fault = f"the training on {devices} devices failed"
        raise RuntimeError(f"{fault} (exit status {process.returncode})")
    return Run.open(name).config
