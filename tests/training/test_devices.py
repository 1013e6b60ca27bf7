"""Training on two devices, as two processes on the CPU: the batch, loss, gradients and metrics of one device."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import TrainingArguments

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.model import Outputs
from patsim_utils.method.weights import adapters
from patsim_utils.tool import cli
from patsim_utils.training import devices, runs
from patsim_utils.training.fit import fit
from patsim_utils.training.trainer import DualLossTrainer

CASES = [
    {"loss": "smooth_k2", "contrast_weight": 0.4, "rating_weight": 0.5},
    {"loss": "ordinal_logistic", "fusion": "attention"},
    {"loss": "bce", "layout": "packed", "fusion": "gate"},
    {"loss": "mse", "layout": "repeated", "fusion": "graph", "contrast_weight": 1.0},
    {"loss": "pearson", "fusion": "none", "adapter": "full"},
]


def first_steps(backbone: str, folder: Path, *, rank: int, devices: int) -> None:
    """Loss and gradients of the first batch and the rows of an epoch of each case, as rank<rank>.pt."""
    results = []
    frame = load("sample")["train"].head(40)
    for case in CASES:
        config = Config.parse({"backbone": backbone, "batch_size": 8, "contrast_layer": 1, "precision": "fp32"} | case)
        torch.manual_seed(0)
        matcher = Matcher(config)
        sampler = LengthGrouped(matcher.pairs(frame), batch_size=8, seed=0, share=(max(rank, 0), devices))
        arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[])
        trainer = DualLossTrainer(matcher, sampler=sampler, validation=frame, work=folder, args=arguments)
        wrapped = trainer.accelerator.prepare(matcher.network).eval()
        batches = list(sampler)
        loss = trainer.compute_loss(wrapped, sampler.pairs.collate([sampler.pairs[rows] for rows in batches[0]]))
        loss.backward()
        gradients = {name: p.grad for name, p in matcher.network.named_parameters() if p.requires_grad}
        results.append((loss.item(), gradients, [np.concatenate(batch).tolist() for batch in batches]))
    torch.save(results, folder / f"rank{rank}.pt")


TRAIN = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from accelerate import PartialState
    from patsim_utils.method.weights import adapters
    from patsim_utils.tool import cli
    from patsim_utils.training import runs, trainer
    from tests.training.test_devices import first_steps

    folder, backbone, what, *words = sys.argv[1:]
    if what == "first steps":
        first_steps(backbone, Path(folder), rank=int(os.environ["RANK"]), devices=2)
    for dropout in (torch.nn.Dropout, adapters.ByteDropout):
        dropout.forward = lambda self, x: x  # else the two devices draw other parts than one
    runs.run_folder = Path(folder).joinpath
    trainer.CHECKPOINT_SECONDS = 0
    plain = trainer.DualLossTrainer.compute_loss
    steps = []

    def compute_loss(*args, **kwargs):
        steps.append(1)
        if len(steps) == 24 and os.environ["RANK"] == "1" and what == "first steps":
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args, **kwargs)

    trainer.DualLossTrainer.compute_loss = compute_loss
    PartialState.destroy_process_group = lambda self: None  # the same processes give the command again
    if cli.main(words) or cli.main(words):
        sys.exit("the training failed")
    sys.exit(cli.main([*words, "-p", "epochs", "1"]))
"""


def torchrun(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command += [sys.executable, "-c", textwrap.dedent(TRAIN), *map(str, arguments)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small data set; beside it are `one`, `two` and `notebook`, runs on one device and on two."""
    parent = tmp_path_factory.mktemp("devices")
    sample = load("sample")
    (parent / "data").mkdir()
    for name, split in (("train", "validation"), ("validation", "test")):
        sample[split].head(200).to_csv(parent / "data" / f"{name}.csv", index=False)
    return parent


@pytest.fixture(scope="module")
def killed(folder: Path, tiny_backbone) -> subprocess.CompletedProcess:
    """Two devices that leave their first steps (see `first_steps`) and then train until one is killed."""
    return torchrun(folder, tiny_backbone("bert"), "first steps", *words(folder, tiny_backbone("bert"), "two"))


def words(folder: Path, backbone: str, name: str) -> list[str]:
    settings = {"backbone": backbone, "batch_size": 12, "learning_rate": 0.01, "epochs": 2, "contrast_layer": 1}
    options = [str(word) for key, value in settings.items() for word in ("-p", key, value)]
    return [
        "train",
        "--preset=sample",
        f"--data={folder / 'data'}",
        f"--name={name}",
        *options,
        "-p",
        "precision",
        "fp32",
    ]


def test_two_devices_have_the_loss_and_gradients_of_the_joined_batch(killed, folder: Path, tiny_backbone) -> None:
    first_steps(tiny_backbone("bert"), folder, rank=-1, devices=1)
    alone, left, right = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (-1, 0, 1))
    for case, a, b, c in zip(CASES, alone, left, right, strict=True):
        assert b[0] == pytest.approx(a[0], rel=1e-5), case
        assert max(value.abs().max() for value in a[1].values()) > 1e-3
        for name, gradient in a[1].items():
            near = 1e-5 * max(1, gradient.abs().max())  # the rounding of a large sum is in its small parts, too
            torch.testing.assert_close(b[1][name], gradient, rtol=1e-4, atol=near, msg=f"{case} {name}")
            torch.testing.assert_close(c[1][name], b[1][name], rtol=0, atol=0)
        for whole, mine, others in zip(a[2], b[2], c[2], strict=True):
            assert sorted(mine + others) == sorted(whole)
            assert mine
            assert others


def test_a_killed_device_ends_the_other_and_the_resumed_run_has_the_metrics_of_one_device(
    killed, folder: Path, tiny_backbone, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(runs, "run_folder", folder.joinpath)
    for dropout in (torch.nn.Dropout, adapters.ByteDropout):
        monkeypatch.setattr(dropout, "forward", lambda self, x: x)
    assert cli.main(words(folder, tiny_backbone("bert"), "one")) == 0
    assert "Pearson" in capsys.readouterr().out

    assert killed.returncode != 0
    messages = [line for line in killed.stderr.splitlines() if line.startswith(("error: ", "stopped"))]
    assert len(messages) == 1, killed.stderr
    assert not (folder / "two").exists()
    assert list((folder / ".two.work").glob("checkpoints/checkpoint-*"))
    resumed = torchrun(folder, tiny_backbone("bert"), "go on", *words(folder, tiny_backbone("bert"), "two"))
    assert "error: two is the name of a finished run that differs in epochs" in resumed.stderr
    assert resumed.returncode != 0
    assert resumed.stdout.count("Pearson") == 2
    assert resumed.stdout.count("epoch 2: ") == 1  # the finished run is taken as it is
    one, two = (json.loads((folder / name / "metrics.json").read_text()) for name in ("one", "two"))
    for name, value in one["validation"].items():  # sums over two devices are rounded otherwise, at every step
        assert two["validation"][name] == pytest.approx(value, abs=1e-4), name
    assert [epoch["epoch"] for epoch in two["epochs"]] == [1, 2]
    histories = [pd.read_csv(folder / name / "history.csv") for name in ("one", "two")]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-3)


def test_a_notebook_starts_a_process_a_device_and_finds_their_run(
    folder: Path, tiny_backbone, monkeypatch, capsys
) -> None:
    settings = {"backbone": tiny_backbone("bert"), "contrast_layer": 1, "epochs": 1, "batch_size": 64}
    config = Config.parse(settings | {"data": str(folder / "data")})

    @contextlib.contextmanager
    def popen(command: list[str], **_: object):  # torchrun's part, in this process
        start = command.index("patsim_utils")
        assert command[1:start] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
        yield SimpleNamespace(stdout=["epoch 1\n"], returncode=cli.main(command[start + 1 :]))

    with monkeypatch.context() as patch:
        patch.setattr(devices, "subprocess", SimpleNamespace(Popen=popen, PIPE=None, STDOUT=None))
        patch.setattr(runs, "run_folder", folder.joinpath)
        launched = devices.launch(config, "notebook", devices=2)
        assert capsys.readouterr().out.endswith("epoch 1\n")
        paths = {"backbone", "data"}  # which start at the repository
        assert launched.model_dump(exclude=paths) == config.model_dump(exclude=paths)
        assert fit(load(config.data), launched, folder / "notebook")["train"]["steps"] > 0  # nothing is trained
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"training on 2 devices failed \(exit status 1\)"):
        devices.launch(config, "notebook", devices=2)


class TwoDevices:
    """Two accelerators whose processes are threads; `gather` joins what both have."""

    def __init__(self) -> None:
        self.parts: list = [None, None]
        self.barrier = threading.Barrier(2, timeout=20)

    def accelerator(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(process_index=index, gather=partial(self.gather, index))

    def gather(self, index: int, part: torch.Tensor) -> torch.Tensor:
        self.parts[index] = part
        self.barrier.wait()
        both = torch.cat(self.parts)
        self.barrier.wait()
        return both


@pytest.mark.parametrize("with_ratings", [True, False])
def test_joined_outputs_are_of_all_rows_and_learn_from_their_own(with_ratings: bool) -> None:
    counts = (3, 5)
    outputs, batches = [], []
    for device, count in enumerate(counts):
        generator = torch.Generator().manual_seed(device)
        logits, anchor, target, ratings = (
            torch.randn(count, width, generator=generator, requires_grad=True) for width in (4, 6, 6, 10)
        )
        outputs.append(Outputs(logits, anchor, target, ratings if with_ratings else None))
        batch = {name: torch.randint(9, (count,), generator=generator) for name in devices.LABELS[:-1]}
        if with_ratings:
            batch["teacher"] = torch.rand(count, 14, generator=generator)
        batches.append(batch | {"input_ids": torch.zeros(1, count)})
    two = TwoDevices()
    with ThreadPoolExecutor(2) as pool:
        runs_of_both = [pool.submit(devices.joined, outputs[i], batches[i], two.accelerator(i)) for i in range(2)]
        results = [run.result() for run in runs_of_both]
    for device, (joined, labels) in enumerate(results):
        assert labels.keys() == set(devices.LABELS if with_ratings else devices.LABELS[:-1])
        for name, values in labels.items():
            torch.testing.assert_close(values, torch.cat([batch[name] for batch in batches]))
        for name in ("ordinal_logits", "contrast_anchor", "contrast_target", "rating_logits"):
            parts = [getattr(output, name) for output in outputs]
            if parts[0] is None:
                assert getattr(joined, name) is None
                continue
            torch.testing.assert_close(getattr(joined, name), torch.cat(parts))
            gradients = torch.autograd.grad(getattr(joined, name).sum(), parts, allow_unused=True)
            assert gradients[1 - device] is None
            assert (gradients[device] == 1).all()


@pytest.mark.parametrize("replace", [False, True])
def test_a_launch_gives_torchrun_every_setting(monkeypatch, capsys, replace: bool) -> None:
    calls = []

    @contextlib.contextmanager
    def popen(command: list[str], **options: object):
        calls.append((command, options))
        yield SimpleNamespace(stdout=["one\n", "two\n"], returncode=0)

    run = SimpleNamespace(open=lambda name: SimpleNamespace(config=f"settings of {name}"))
    monkeypatch.setattr(devices, "Run", run)
    monkeypatch.setattr(subprocess, "Popen", popen)
    config = Config(epochs=2, data="kaggle")
    options = {"replace": True, "report_to": "mlflow"} if replace else {}
    assert devices.launch(config, "real", devices=3, **options) == "settings of real"
    assert capsys.readouterr().out == "one\ntwo\n"
    ((command, streams),) = calls
    assert streams == {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    start += ["-m", "patsim_utils", "train", "--preset=sample", "--name=real", "--data=kaggle"]
    if replace:
        start.append("--replace")
    assert command[: len(start)] == start
    words_of_settings = command[len(start) :]
    assert set(words_of_settings[::3]) == {"-p"}
    settings = dict(zip(words_of_settings[1::3], words_of_settings[2::3], strict=True))
    expected = {name: str(value) for name, value in config.model_dump(exclude={"data"}).items()}
    assert settings == expected | {"report_to": "mlflow" if replace else "none"}


def test_a_lost_device_is_known_by_the_error_of_the_others() -> None:
    assert devices.lost(torch.distributed.DistBackendError("NCCL"))
    assert devices.lost(RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc] Connection closed"))
    assert devices.lost(RuntimeError("Gloo connectFullMesh failed"))
    assert not devices.lost(RuntimeError("size mismatch"))


def test_a_device_is_described_and_its_memory_measured() -> None:
    assert devices.describe() == f"cpu, {torch.get_num_threads()} threads"
    assert devices.peak_memory() == pytest.approx(devices.environment.peak_memory(), rel=0.1)
    assert devices.processes().num_processes == 1
    assert devices.shared({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(("rank", "said"), [("0", "error: another device's process ended"), ("1", "")])
def test_a_lost_process_is_said_by_the_first_one_alone(monkeypatch, capsys, rank: str, said: str) -> None:
    def lose(*_: object, **__: object) -> None:
        raise RuntimeError("[gloo/pair.cc] Connection closed by peer")

    monkeypatch.setattr("patsim_utils.training.fit.fit", lose)
    monkeypatch.setenv("RANK", rank)
    assert (
        cli.main(["train", "--preset", "sample", "--name", "lost", "-p", "layers", "1", "-p", "contrast_layer", "1"])
        == 1
    )
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert [line.startswith(said) for line in errors] == [True] * bool(said)
