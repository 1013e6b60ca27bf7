"""Measures training and scoring on this machine's GPU (with --dry: a tiny shape on the CPU) and prints one table."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from patsim_utils.config import Config
from patsim_utils.data.splits import load, subset
from patsim_utils.layouts.sampler import LengthGrouped

# `patsim_utils.benchmark`, which also measures rates, needs packages that a bare GPU machine lacks
from patsim_utils.method import encoder, losses
from patsim_utils.method.matcher import Matcher
from patsim_utils.training.fit import fit
from patsim_utils.training.trainer import loader

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def tell(what: str, result: object) -> None:
    """A row of the table, shown at once."""
    print(f"| {what} | {result} |", flush=True)


def seconds_of(work: Callable[[], object], *, calls: int) -> float:
    """Mean seconds of a call, after two to warm up."""
    for _ in range(2):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return (time.perf_counter() - began) / calls


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def product_rate(size: int) -> float:
    """TFLOP/s of a square bfloat16 product."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, calls=10) / 1e12


@contextmanager
def random_backbone(tokenizer_of: str, shape: dict[str, int]) -> Iterator[str]:
    """Folder of a BERT of this shape with random weights and another backbone's tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = encoder.load_tokenizer(tokenizer_of)
        config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), **shape)
        AutoModel.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield folder


def same_step(frame: pd.DataFrame, backbone: str) -> None:
    """Loss and gradient of one step on a few rows, in float32 on the CPU and in bfloat16 on the device."""
    config = Config(backbone=backbone, adapter="full", layout="packed", precision="fp32", lora_dropout=0.0)
    results = {}
    for device, precision in ((torch.device("cpu"), "fp32"), (DEVICE, "bf16")):
        torch.manual_seed(0)
        matcher = Matcher(config.model_copy(update={"precision": precision}))
        network = matcher.network.to(device)
        pairs = matcher.pairs(frame)
        batch = {
            name: x.to(device) for name, x in pairs.collate([pairs[r] for r in pairs.sequences(largest=32)]).items()
        }
        with encoder.autocast(precision, device):
            outputs = network(batch)
        loss = sum(losses.dual_loss(outputs, batch, config).values())
        loss.backward()
        grads = torch.cat([p.grad.flatten().float().cpu() for p in network.parameters() if p.grad is not None])
        results[precision] = loss.item(), grads
    (loss_cpu, a), (loss_device, b) = results.values()
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0).item()
    tell(
        "one step, CPU fp32 and device bf16",
        f"loss {loss_cpu:.4f} and {loss_device:.4f}, cosine of the gradients {cosine:.4f}",
    )
    if abs(loss_cpu - loss_device) > 0.03 * abs(loss_cpu) or cosine < 0.98:
        raise SystemExit("the device computes something else than the CPU")


def steps(splits: dict[str, pd.DataFrame], config: Config, *, peak: float, count: int, waits: bool = True) -> None:
    """Time, memory and rate of training steps, and the share of the time in which a step waits for its batch.

    `waits`: read the loss's terms in every step, as training does, for which the host waits for the device.
    """
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    matcher = Matcher(config)
    network = matcher.network.to(DEVICE).train()
    sampler = LengthGrouped(matcher.pairs(splits["train"]), batch_size=config.batch_size, seed=0)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5, fused=True)
    batches, waited = (batch for _ in repeat(None) for batch in loader(sampler)), []

    def step() -> None:
        began = time.perf_counter()
        batch = {name: x.to(DEVICE, non_blocking=True) for name, x in next(batches).items()}
        waited.append(time.perf_counter() - began)
        with encoder.autocast(config.precision, DEVICE):
            outputs = network(batch)
        terms = losses.dual_loss(outputs, batch, config)
        if waits:
            torch.stack(list(terms.values())).tolist()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    each = seconds_of(step, calls=count)
    with FlopCounterMode(display=False) as counter:
        step()
    rate = counter.get_total_flops() / each / 1e12
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else float("nan")
    name = f"{config.adapter}, {config.layout}, {config.batch_size} pairs a step"
    text = f"{1000 * each:.1f} ms a step, three epochs {3 * len(sampler) * each:.0f} s, {rate:.1f} TFLOP/s"
    text += (
        f" ({100 * rate / peak:.0f} % of the product's), waiting for batches {100 * np.mean(waited[2:]) / each:.0f} %"
    )
    tell(name + ", no wait for the terms" * (not waits), text + (f", {memory:.1f} GiB" if memory == memory else ""))


def whole_run(what: str, splits: dict[str, pd.DataFrame], config: Config, folder: Path) -> None:
    """A run by the Trainer, with its checkpoints and evaluations."""
    began = time.perf_counter()
    metrics = fit(splits, config, folder)
    whole = time.perf_counter() - began
    seconds = f"{metrics['train']['seconds']:.1f} s of training, {whole:.1f} s with loading and evaluation"
    tell(
        f"{what}, {config.batch_size} pairs a step, all epochs",
        f"{seconds}, Pearson {metrics['validation']['pearson']:.4f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="sample", help="folder of the real data, or sample")
    parser.add_argument("--backbone", default="minilm", help="folder of MiniLM, or minilm")
    parser.add_argument("--dry", action="store_true", help="a tiny shape, a few steps")
    arguments = parser.parse_args()
    splits = load(arguments.data)
    if arguments.dry:
        splits = subset(splits, 0.1, protocol="anchor_disjoint", seed=0)
    print("| what | result |\n|---|---|")
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    tell("device", f"{name}, torch {torch.__version__}")
    peak = product_rate(512 if arguments.dry else 8192)
    tell("bf16 product", f"{peak:.2f} TFLOP/s")
    same_step(splits["train"].head(16 if arguments.dry else 64), arguments.backbone)
    common = {"fusion": "none", "contrast_weight": 0.0, "rating_weight": 0.0}
    common["precision"] = "fp32" if arguments.dry else "bf16"  # in which most CPUs are slow
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            backbone=arguments.backbone,
            adapter="full",
            layout="packed",
            batch_size=96,
            epochs=1 if arguments.dry else 3,
            learning_rate=1.5e-4,
            head_learning_rate=1.5e-4,
            layers=1 if arguments.dry else 0,
            **common,
        )
        whole_run("MiniLM, packed", splits, config, Path(folder) / "run")
        model = Matcher.load(Path(folder) / "run")
        for count in (100,) if arguments.dry else (100, 1000):
            rows = pd.DataFrame(
                {"anchor": "strong material", "target": [f"thing {i}" for i in range(count)], "context": "E04"}
            )
            tell(f"scoring 1 x {count:,}", f"{1000 * seconds_of(lambda rows=rows: model.score(rows), calls=5):.1f} ms")
    with random_backbone(arguments.backbone, TINY if arguments.dry else LARGE) as large:
        count = 3 if arguments.dry else 30
        small, big = (32, 64) if arguments.dry else (128, 1024)
        for change in (
            {"adapter": "full", "layout": "packed", "batch_size": small},
            {"adapter": "full", "layout": "packed", "batch_size": big},
            {"adapter": "full", "layout": "pair", "batch_size": small // 2},
            {"adapter": "full", "layout": "pair", "batch_size": big},
            {"adapter": "lora_all", "layout": "packed", "batch_size": small},
            {"adapter": "lora_all", "layout": "pair", "batch_size": small // 2},
            {"adapter": "lora_all", "layout": "pair", "batch_size": big},
        ):
            steps(splits, Config(backbone=large, **{**common, **change}), peak=peak, count=count)
        config = Config(backbone=large, adapter="full", layout="packed", batch_size=small, **common)
        steps(splits, config, peak=peak, count=count, waits=False)
        config = config.model_copy(update={"layout": "pair", "batch_size": big, "epochs": 1 if arguments.dry else 3})
        with tempfile.TemporaryDirectory() as folder:
            whole_run("large shape, all weights, pair", splits, config, Path(folder) / "run")


if __name__ == "__main__":
    main()
