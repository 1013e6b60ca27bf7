"""How fast: this package beside what people would otherwise run, on the same pairs, texts, backbone and threads.

Four systems, each measured by `measure` in a process of its own, one after the other:

- `ours`: a Matcher with any settings;
- `cross_encoder`: sentence-transformers' CrossEncoder with its own trainer;
- `plain`: transformers' Trainer with sequence classification, every text padded to 128 tokens;
- `bi_encoder`: cosine of the untouched backbone, which trains nothing.

Besides that: how a Matcher's time and memory grow, where a training step's time goes, and how far it is from the
machine's own rate of matrix products.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from patsim_utils import cpc, data, encoder, metrics
from patsim_utils.environment import ROOT
from patsim_utils.matcher import Architecture, Matcher
from patsim_utils.packing import LengthGrouped, Pairs
from patsim_utils.train import Settings, train

SYSTEMS = ("ours", "cross_encoder", "plain", "bi_encoder")
CANDIDATES = (10, 100, 1000)
PADDED_TO = 128  # tokens, in the source's program
LONGEST_TEXT = 128  # tokens that the CrossEncoder reads of a text, as many as the padded one

PACKED = {"layout": "packed", "target_sep": False}  # as fast as it gets
ALL_PACKED = PACKED | {"adapter": "full"}
SETUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours: packed, LoRA": ("ours", PACKED | {"adapter": "lora"}),
    "ours: packed, all weights": ("ours", ALL_PACKED),
    "ours: packed, all weights, 3 layers": ("ours", ALL_PACKED | {"layers": 3}),
    "ours: packed, all weights, 2 layers": ("ours", ALL_PACKED | {"layers": 2, "contrast_layer": 2}),
    "ours: packed, all weights, 1 layer": ("ours", ALL_PACKED | {"layers": 1, "contrast_layer": 1}),
    "ours: list, LoRA": ("ours", {"layout": "list", "adapter": "lora"}),
    "ours: list, all weights": ("ours", {"layout": "list", "adapter": "full"}),
    "ours: pair, LoRA": ("ours", {"layout": "pair", "adapter": "lora"}),
    "ours: pair, all weights": ("ours", {"layout": "pair", "adapter": "full"}),
    "CrossEncoder": ("cross_encoder", {"adapter": "full"}),
    "plain Trainer, padded": ("plain", {"adapter": "full"}),
    "bi-encoder, untrained": ("bi_encoder", {}),
}
REFERENCE = "CrossEncoder"
LARGE = {  # the shape of anferico/bert-for-patents
    "vocab_size": 39859,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

Scorer = Callable[[pd.DataFrame], np.ndarray]


def query(frame: pd.DataFrame, candidates: int, *, seed: int = 0) -> pd.DataFrame:
    """One anchor in one context against distinct targets of the frame, repeated only where there are too few."""
    targets = frame["target"].drop_duplicates()
    drawn = targets.sample(n=candidates, replace=candidates > len(targets), random_state=seed)
    first = frame.iloc[0]
    return pd.DataFrame({"anchor": first["anchor"], "target": drawn.to_numpy(), "context": first["context"]})


def class_texts(settings: Settings) -> dict[str, str]:
    """What the `pair` layout reads of each class: its text without punctuation, cut to `context_tokens`."""
    tokenizer, codes = encoder.load_tokenizer(settings.backbone), cpc.CODES[1:]
    titles = cpc.titles(settings.cpc_titles or None)
    every = pd.DataFrame({"anchor": "a", "target": "a", "context": codes})
    pairs = Pairs(every, tokenizer, titles=titles, context_tokens=settings.context_tokens)
    return {code: tokenizer.decode(pairs.tokens[i]) for code, i in zip(codes, pairs.context, strict=True)}


def texts(frame: pd.DataFrame, classes: dict[str, str], separator: str) -> list[tuple[str, str]]:
    """(anchor, target [SEP] class text) of each row: the very words that the `pair` layout reads."""
    rows = zip(frame["anchor"], frame["target"], frame["context"].map(classes), strict=True)
    return [(anchor, f"{target} {separator} {text}") for anchor, target, text in rows]


# ------------------------------------------------------------------------------------------------------- the systems


def _ours(splits: dict[str, pd.DataFrame], settings: Settings, run: Path) -> tuple[Scorer, float]:
    found = train(splits, settings, run=run, resumable=False)["train"]
    return Matcher.load(run).score, found["seconds"] - found["evaluation_seconds"]


def _arguments(settings: Settings, run: Path) -> dict[str, Any]:
    """What both of the other trainers are told: the same epochs, batch, schedule and precision as ours."""
    return {
        "output_dir": str(run),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": settings.seed,
    }


def _cross_encoder(splits: dict[str, pd.DataFrame], settings: Settings, run: Path) -> tuple[Scorer, float]:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    model = CrossEncoder(encoder.backbone_path(settings.backbone), num_labels=1, max_length=LONGEST_TEXT)
    classes, separator = class_texts(settings), model.tokenizer.sep_token
    began = time.perf_counter()
    anchor, target = zip(*texts(splits["train"], classes, separator), strict=True)
    rows = {"anchor": anchor, "target": target, "label": splits["train"]["score"].astype(float)}
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(**_arguments(settings, run)),
        train_dataset=Dataset.from_dict(rows),
        loss=BinaryCrossEntropyLoss(model),
    )
    trainer.train()
    seconds = time.perf_counter() - began
    return lambda frame: model.predict(texts(frame, classes, separator), show_progress_bar=False), seconds


def _plain(splits: dict[str, pd.DataFrame], settings: Settings, run: Path) -> tuple[Scorer, float]:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

    tokenizer, classes = encoder.load_tokenizer(settings.backbone), class_texts(settings)
    model = AutoModelForSequenceClassification.from_pretrained(encoder.backbone_path(settings.backbone), num_labels=1)

    def tokenised(frame: pd.DataFrame, **columns: list) -> Dataset:
        pairs = [list(side) for side in zip(*texts(frame, classes, tokenizer.sep_token), strict=True)]
        ids = tokenizer(*pairs, padding="max_length", truncation=True, max_length=PADDED_TO)
        return Dataset.from_dict({**ids, **columns})

    began = time.perf_counter()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**_arguments(settings, run), per_device_eval_batch_size=settings.batch_size),
        train_dataset=tokenised(splits["train"], labels=splits["train"]["score"].tolist()),
    )
    trainer.train()
    seconds = time.perf_counter() - began
    return lambda frame: trainer.predict(tokenised(frame)).predictions[:, 0], seconds


def _bi_encoder(splits: dict[str, pd.DataFrame], settings: Settings, run: Path) -> tuple[Scorer, float]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(encoder.backbone_path(settings.backbone))

    def score(frame: pd.DataFrame) -> np.ndarray:
        ids, phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
        vectors = model.encode(list(phrases), normalize_embeddings=True, show_progress_bar=False)
        return (vectors[ids[: len(frame)]] * vectors[ids[len(frame) :]]).sum(-1)

    return score, 0.0


# ----------------------------------------------------------------------------------------------------- the measuring


def peak_memory() -> float:
    """Largest memory of this process since `forget_peak`, in MiB (GPU memory where there is one)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def forget_peak() -> None:
    """Starts `peak_memory` anew; where the system cannot, the peak stays that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak falls to what is in use now


def seconds_of(work: Callable[[], object], *, least: float = 1.0, repeats: int = 3) -> float:
    """Median seconds of one call after one call to warm up: at least `repeats` calls and `least` seconds.

    Slow work is not repeated for more than ten times `least`.
    """
    work()
    times: list[float] = []
    while sum(times) < least or (len(times) < repeats and sum(times) < 10 * least):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _measure_here(system: str, settings: Settings, share: float, run: Path) -> dict[str, Any]:
    splits = data.load(settings.data, protocol=settings.protocol, seed=settings.seed)
    splits = {"train": data.subset(splits["train"], share, seed=settings.seed), "validation": splits["validation"]}
    forget_peak()
    systems = {"ours": _ours, "cross_encoder": _cross_encoder, "plain": _plain, "bi_encoder": _bi_encoder}
    score, seconds = systems[system](splits, settings, run)
    result: dict[str, Any] = {"system": system, "peak_memory_mb": peak_memory(), "train_seconds": seconds}
    if seconds:
        result["pairs_per_second"] = settings.epochs * len(splits["train"]) / seconds
    frame = splits["validation"]
    result["scored_per_second"] = {}
    for n in CANDIDATES:
        asked = query(frame, n)
        result["scored_per_second"][n] = n / seconds_of(lambda asked=asked: score(asked))
    prediction = np.asarray(score(frame), dtype=np.float64)
    result["pearson"] = metrics.pearson(frame["score"].to_numpy(), prediction)
    frame.assign(prediction=prediction).to_csv(run / "scored.csv", index=False)
    return result


def measure(system: str, settings: Settings, *, share: float, threads: int, run: Path) -> dict[str, Any]:
    """Trains and times one system in a process of its own, on `share` of the training anchors.

    Times include tokenising and collating, and no evaluation or checkpoint. A measurement that is already in `run` for
    the same settings is read, not repeated.

    Returns:
        `system`, `train_seconds`, `pairs_per_second` (training; absent where nothing is trained),
        `scored_per_second` {candidates: pairs a second} for one query, `peak_memory_mb` of training, `pearson` on
        validation and `validation`: its frame with a column `prediction`.

    Raises:
        RuntimeError: the process failed; the message is the last line it wrote.
    """
    run.mkdir(parents=True, exist_ok=True)
    request = {"system": system, "settings": asdict(settings), "share": share, "threads": threads}
    known, result = run / "request.json", run / "result.json"
    if not (result.is_file() and known.is_file() and json.loads(known.read_text()) == request):
        result.unlink(missing_ok=True)
        known.write_text(json.dumps(request))
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [sys.executable, "-m", "patsim_utils.speed", str(run)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{system}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found = json.loads(result.read_text())
    found["scored_per_second"] = {int(n): rate for n, rate in found["scored_per_second"].items()}
    return found | {"validation": pd.read_csv(run / "scored.csv", keep_default_na=False)}


def compare(
    settings: Settings,
    *,
    full_learning_rate: float,
    packed_batch_size: int,
    padded: bool = True,
    share: float,
    threads: int,
    run: Path,
) -> dict[str, dict[str, Any]]:
    """`measure` for every one of SETUPS, one after the other, with a line of progress each.

    Without `padded`, the plain Trainer is left out, which takes longer than all the others together.

    `settings` are those of the `pair` layout with LoRA; where all weights are trained, `full_learning_rate` holds for
    encoder and head. `packed_batch_size` pairs make a step of the grouped layouts, whose learning rates grow with the
    square root of that (the rule for Adam: Malladi et al. 2022, arXiv 2205.10287), since they take fewer steps.
    """
    results = {}
    setups = {label: setup for label, setup in SETUPS.items() if padded or setup[0] != "plain"}
    for number, (label, (system, choice)) in enumerate(setups.items(), 1):
        if choice.get("adapter") == "full":
            choice = {**choice, "learning_rate": full_learning_rate, "head_learning_rate": full_learning_rate}
        if choice.get("layout", "pair") != "pair":
            choice = {**choice, "batch_size": packed_batch_size}
        chosen = replace(settings, **choice)
        growth_of_rate = (chosen.batch_size / settings.batch_size) ** 0.5
        chosen = replace(
            chosen,
            learning_rate=chosen.learning_rate * growth_of_rate,
            head_learning_rate=chosen.head_learning_rate * growth_of_rate,
        )
        own = run / re.sub(r"\W+", "_", label)
        print(f"{number} of {len(setups)}: {label}", end="", flush=True)
        results[label] = measure(system, chosen, share=share, threads=threads, run=own)
        print(f", {results[label]['train_seconds']:,.0f} s of training", flush=True)
    return results


def rates(results: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Pairs a second of each system and how many times the CrossEncoder's that is.

    Columns `system`, `what` ("training", "scoring 1 x n"), `rate` (pairs a second), `times`.
    """
    rows = []
    for label, found in results.items():
        known = {"training": found["pairs_per_second"]} if found["train_seconds"] else {}
        known |= {f"scoring 1 x {n}": rate for n, rate in found["scored_per_second"].items()}
        rows += [{"system": label, "what": what, "rate": rate} for what, rate in known.items()]
    table = pd.DataFrame(rows)
    return table.assign(
        times=table["rate"] / table["what"].map(table[table["system"] == REFERENCE].set_index("what")["rate"])
    )


def accuracy(results: dict[str, dict[str, Any]], *, seed: int = 0) -> pd.DataFrame:
    """Validation Pearson of each system, with its interval, and the paired difference to the CrossEncoder.

    Columns `system`, `pearson`, `low`, `high`, `difference`, `difference_low`, `difference_high`, `seconds` and
    `memory_mb` of training.
    """
    reference = results[REFERENCE]["validation"]["prediction"]
    rows = []
    for label, found in results.items():
        frame = found["validation"]
        anchor, score, prediction = frame["anchor"], frame["score"], frame["prediction"]
        low, high = metrics.pearson_interval(anchor, score, prediction, seed=seed)
        paired = metrics.paired_difference(anchor, score, reference, prediction, seed=seed)
        rows.append(
            {
                "system": label,
                "pearson": found["pearson"],
                "low": low,
                "high": high,
                "difference": paired["difference"],
                "difference_low": paired["low"],
                "difference_high": paired["high"],
                "seconds": found["train_seconds"],
                "memory_mb": found["peak_memory_mb"],
            }
        )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------- growth, profile, matrix rate


def growth(matcher: Matcher, frame: pd.DataFrame) -> pd.DataFrame:
    """Seconds and memory of scoring as one thing grows: `what`, `size`, `seconds`, `memory_mb` (above the start).

    `candidates`: targets of one query. `words`: words of each of 100 targets. `batch tokens`: tokens of a batch, for
    the whole frame (at most 2,000 rows).
    """
    rows = []

    def add(what: str, size: int, work: Callable[[], object]) -> None:
        forget_peak()
        before = peak_memory()
        seconds = seconds_of(work, least=0.3)
        rows.append({"what": what, "size": size, "seconds": seconds, "memory_mb": max(0.0, peak_memory() - before)})

    for n in (1, 10, 30, 100, 300, 1000):
        asked = query(frame, n)
        add("candidates", n, lambda asked=asked: matcher.score(asked))
    for n in (1, 2, 4, 8, 16, 32):
        asked = query(frame, 100).assign(target=[" ".join(["part"] * n)] * 100)
        add("words", n, lambda asked=asked: matcher.score(asked))
    pairs = matcher.pairs(frame.head(2000))
    for n in (512, 2048, 8192, 32768):
        add("batch tokens", n, lambda n=n: matcher.cumulative(pairs, batch_tokens=n))
    return pd.DataFrame(rows)


def matrix_rate(*, size: int = 1024) -> float:
    """Measured rate of square matrix products in GFLOP/s: float32 on a CPU, bfloat16 on a GPU that has it."""
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float32
    size = 8 * size if cuda else size
    a, b = (torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b) / 1e9


def large_backbone(folder: Path) -> str:
    """Writes an encoder of bert-for-patents' shape with random weights: right for times, useless for scores."""
    torch.manual_seed(0)
    BertModel(BertConfig(**LARGE), add_pooling_layer=False).save_pretrained(folder)
    encoder.load_tokenizer("minilm").save_pretrained(folder)
    return str(folder)


def steps(
    architecture: Architecture, frame: pd.DataFrame, *, rows: int = 64, repeats: int = 10
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Where the time of a training step of a fresh model goes, and what it achieves.

    The step is that of training's own batches of about `rows` rows: the one of median size.

    Returns:
        a table `operation`, `share` (of the time in kernels, in [0, 1]), `calls` (a step), the largest first;
        `seconds` a step (forward and backward), `gflop` a step (counted products), `gflops` achieved a second,
        `padding` (share of the tokens of the batch), `rows` (of the batch).
    """
    matcher = Matcher(architecture).to("cuda" if torch.cuda.is_available() else "cpu").train()
    pairs = matcher.pairs(frame)
    batches = sorted(LengthGrouped(pairs, batch_size=rows, seed=0), key=lambda batch: pairs.lengths(batch).sum())
    sequences = [pairs[part] for part in batches[len(batches) // 2]]
    device = next(matcher.parameters()).device
    batch = {name: value.to(device) for name, value in pairs.collate(sequences).items()}
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = matcher(batch).cumulative.square().mean()
        loss.backward()

    seconds = seconds_of(step)
    with FlopCounterMode(display=False) as counter:
        step()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        for _ in range(repeats):
            step()
    events = profiler.key_averages()
    kernel = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = pd.DataFrame(
        [{"operation": e.key, "share": getattr(e, kernel), "calls": e.count / repeats} for e in events]
    )
    times["share"] /= times["share"].sum()
    gflop = counter.get_total_flops() / 1e9
    note = {
        "seconds": seconds,
        "rows": len(batch["rows"]),
        "gflop": gflop,
        "gflops": gflop / seconds,
        "padding": (batch["block"] < 0).float().mean().item(),
    }
    return times.sort_values("share", ascending=False, ignore_index=True), note


def main() -> None:
    """The process that `measure` starts: reads the request in the folder, writes the result there, last of all."""
    run = Path(sys.argv[1])
    request = json.loads((run / "request.json").read_text())
    torch.set_num_threads(request["threads"])
    result = _measure_here(request["system"], Settings(**request["settings"]), request["share"], run)
    (run / "result.json.new").write_text(json.dumps(result, allow_nan=False))
    (run / "result.json.new").rename(run / "result.json")


if __name__ == "__main__":
    main()
