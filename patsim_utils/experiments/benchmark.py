"""How fast: this package beside what people would otherwise run, on the same pairs, words, backbone and threads.

SYSTEMS: a Matcher; CrossEncoder of sentence-transformers with its trainer; Trainer of transformers, every text padded
to 128 tokens; cosine of the pretrained backbone (bi-encoder).
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import sentence_transformers
import torch
import transformers
from sentence_transformers import cross_encoder
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from patsim_utils import metrics, storage
from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.splits import fingerprint, load, subset
from patsim_utils.experiments import ablation
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method import backbones, encoder, losses
from patsim_utils.method.features import Regressor
from patsim_utils.method.matcher import Matcher
from patsim_utils.training import runs
from patsim_utils.training.fit import fit
from patsim_utils.training.trainer import MAX_GRAD_NORM, WARMUP, WEIGHT_DECAY

LONGEST = 128  # tokens that the others read of a text
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Measured = tuple[Callable[[pd.DataFrame], np.ndarray], float]  # what scores a frame; seconds of its training
Splits = dict[str, pd.DataFrame]
Results = Mapping[str, dict[str, Any]]  # what `measure` returns, by the name of the system


def query(frame: pd.DataFrame, candidates: int) -> pd.DataFrame:
    """One anchor in one class against distinct targets of the frame, numbered again where these are too few."""
    targets = frame["target"].drop_duplicates().sample(frac=1, random_state=0).tolist()
    numbered = [f"{target} {turn}" for turn in range(1, 1 + candidates // len(targets)) for target in targets]
    drawn = [*targets, *numbered][:candidates]
    return pd.DataFrame({"anchor": frame["anchor"].iloc[0], "target": drawn, "context": frame["context"].iloc[0]})


def words(config: Config) -> Callable[[pd.DataFrame], list[tuple[str, str]]]:
    """What turns a frame into (anchor, target [SEP] class text) of each row: the words of the `pair` layout."""
    matcher = Matcher(config.model_copy(update={"layout": "pair"}))
    pairs = matcher.pairs(pd.DataFrame({"anchor": "a", "target": "a", "context": cpc.CODES[1:]}))
    texts = [matcher.tokenizer.decode(pairs.tokens[place]) for place in pairs.context]
    ends = [f" {matcher.tokenizer.sep_token} {text}" if text else "" for text in texts]
    end = dict(zip(cpc.CODES[1:], ends, strict=True))
    return lambda frame: list(zip(frame["anchor"], frame["target"] + frame["context"].map(end), strict=True))


def _arguments(config: Config, folder: Path) -> dict[str, Any]:
    """What both of the other trainers are told: epochs, batch, rate, schedule and precision of ours, nothing saved."""
    told = {"output_dir": str(folder), "seed": config.seed, "num_train_epochs": config.epochs, "report_to": []}
    told |= {"learning_rate": config.learning_rate, "lr_scheduler_type": "cosine", "warmup_steps": WARMUP}
    told |= {"weight_decay": WEIGHT_DECAY, "max_grad_norm": MAX_GRAD_NORM, "disable_tqdm": True}
    told |= {f"per_device_{part}_batch_size": config.batch_size for part in ("train", "eval")}
    told |= {"use_cpu": DEVICE.type == "cpu", "dataloader_pin_memory": DEVICE.type == "cuda", "save_strategy": "no"}
    return told | {"bf16": encoder.uses_bf16(config.precision, DEVICE)}


def _ours(splits: Splits, config: Config, folder: Path) -> Measured:
    found, began = fit(splits, config, folder / "run", replace=True)["train"], time.perf_counter()
    if config.features != "none":  # trained behind the last step
        Regressor.fit(splits["train"], config)
    seconds = found["seconds"] - found["evaluation_seconds"] + time.perf_counter() - began
    return Matcher.load(folder / "run").score, seconds


def _cross_encoder(splits: Splits, config: Config, folder: Path) -> Measured:
    model = sentence_transformers.CrossEncoder(backbones.path(config.backbone), num_labels=1, max_length=LONGEST)
    texts, loss = words(config), cross_encoder.losses.BinaryCrossEntropyLoss(model)
    arguments, began = cross_encoder.CrossEncoderTrainingArguments(**_arguments(config, folder)), time.perf_counter()
    anchor, target = zip(*texts(splits["train"]), strict=True)
    rows = datasets.Dataset.from_dict({"anchor": anchor, "target": target, "label": splits["train"]["score"]})
    cross_encoder.CrossEncoderTrainer(model, arguments, rows, loss=loss).train()
    return lambda frame: model.predict(texts(frame), show_progress_bar=False), time.perf_counter() - began


def _plain(splits: Splits, config: Config, folder: Path) -> Measured:
    path, texts = backbones.path(config.backbone), words(config)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)

    def rows(frame: pd.DataFrame) -> datasets.Dataset:
        sides = map(list, zip(*texts(frame), strict=True))
        found = tokenizer(*sides, padding="max_length", truncation=True, max_length=LONGEST)
        return datasets.Dataset.from_dict(found | ({"labels": frame["score"]} if "score" in frame else {}))

    arguments, began = transformers.TrainingArguments(**_arguments(config, folder)), time.perf_counter()
    trainer = transformers.Trainer(model, arguments, train_dataset=rows(splits["train"]))
    trainer.train()
    return lambda frame: trainer.predict(rows(frame)).predictions[:, 0], time.perf_counter() - began


def _bi_encoder(splits: Splits, config: Config, folder: Path) -> Measured:
    model = sentence_transformers.SentenceTransformer(backbones.path(config.backbone))

    def score(frame: pd.DataFrame) -> np.ndarray:
        place, phrases = pd.factorize(np.concatenate([frame["anchor"], frame["target"]]))
        vectors = model.encode(list(phrases), normalize_embeddings=True, show_progress_bar=False)[place]
        return (vectors[: len(frame)] * vectors[len(frame) :]).sum(-1)

    return score, 0.0


SYSTEMS = {"ours": _ours, "cross_encoder": _cross_encoder, "plain": _plain, "bi_encoder": _bi_encoder}


def seconds_of(work: Callable[[], object]) -> float:
    """Median seconds of a call, after one to warm up, over a second or more."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.adaptive_autorange(threshold=0.5, min_run_time=1).median


def _splits(config: Config, share: float) -> Splits:
    splits = load(config.data, protocol=config.protocol, seed=config.seed)
    return subset(splits, share, protocol=config.protocol, seed=config.seed)


def measure(system: str, config: Config, *, share: float, threads: int, folder: Path) -> dict[str, Any]:
    """Trains and times one of SYSTEMS in a process of its own, on a `share` of the training anchors.

    What `folder` holds of the same request and data is read, not measured again. Training includes tokenising and, for
    ours alone, checkpoints. Returns system, train_seconds, peak_memory_mb (up to the end of training), precision,
    pairs_per_second {what: rate} and the frame `validation` with a column `prediction`. RuntimeError: the process
    failed; its last line.
    """
    request = {"system": system, "config": config.model_dump(), "share": share, "threads": threads}
    request["data"] = fingerprint(_splits(config, share))
    folder.mkdir(parents=True, exist_ok=True)
    known, result = folder / "request.json", folder / "result.json"
    if not (result.is_file() and known.is_file() and json.loads(known.read_text()) == request):
        result.unlink(missing_ok=True)
        storage.write_text(known, json.dumps(request))
        status, said = ablation.process("benchmark", folder=folder, threads=threads, log=folder / "log", children=[])
        if status:
            raise RuntimeError(f"{system}: {said}")
    return json.loads(result.read_text()) | {"validation": pd.read_csv(folder / "scored.csv", keep_default_na=False)}


def main() -> None:
    """The process that `measure` starts: reads request.json in the folder, writes scored.csv, then result.json."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text())
    config, system = Config.parse(request["config"]), request["system"]
    torch.set_num_threads(request["threads"])
    transformers.set_seed(config.seed)  # a new head's weights
    splits = _splits(config, request["share"])
    score, seconds = SYSTEMS[system](splits, config, folder)
    precision = "bf16" if encoder.uses_bf16(config.precision, DEVICE) else "fp32"
    found = {"system": system, "train_seconds": seconds, "peak_memory_mb": runs.peak_memory(), "precision": precision}
    rates = {"training": config.epochs * len(splits["train"]) / seconds} if seconds else {}
    with nullcontext() if system == "ours" else encoder.autocast(config.precision, DEVICE):
        for asked in (query(splits["validation"], n) for n in (10, 100, 1000)):
            rates[f"1 x {len(asked):,}"] = len(asked) / seconds_of(partial(score, asked))
        prediction = np.asarray(score(splits["validation"]), dtype=np.float64)
    splits["validation"].assign(prediction=prediction).to_csv(folder / "scored.csv", index=False)
    storage.write_text(folder / "result.json", json.dumps(found | {"pairs_per_second": rates}, allow_nan=False))


def _peers(results: Results) -> dict[str, dict[str, Any]]:
    """The CrossEncoder of each precision."""
    return {found["precision"]: found for found in results.values() if found["system"] == "cross_encoder"}


def rates(results: Results) -> pd.DataFrame:
    """Pairs a second: system, what (training, 1 x 100 ...), rate, times (that of the CrossEncoder, same precision)."""
    peers, rows = _peers(results), []
    for label, found in results.items():
        peer = peers[found["precision"]]["pairs_per_second"]
        rows += [(label, what, rate, rate / peer[what]) for what, rate in found["pairs_per_second"].items()]
    return pd.DataFrame(rows, columns=["system", "what", "rate", "times"])


def accuracy(results: Results, *, seed: int = 0) -> pd.DataFrame:
    """Validation: system, pearson, low, high, the paired difference to the CrossEncoder of the same precision, its
    interval (difference_low, difference_high), seconds and memory_mb of training.
    """
    peers, rows = _peers(results), []
    for label, found in results.items():
        anchor, score, own = (found["validation"][column] for column in ("anchor", "score", "prediction"))
        row = [label, metrics.pearson(score, own), *metrics.pearson_interval(anchor, score, own, seed=seed)]
        other = peers[found["precision"]]["validation"]["prediction"]
        row += metrics.paired_difference(anchor, score, [other], [own], seed=seed).values()
        rows.append([*row, found["train_seconds"], found["peak_memory_mb"]])
    columns = ["system", "pearson", "low", "high", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=[*columns, "seconds", "memory_mb"])


def growth(matcher: Matcher, frame: pd.DataFrame) -> pd.DataFrame:
    """How the time of one query grows: candidates, seconds."""
    sizes = (10, 100, 1000, 2500, 5000, 10_000)
    times = [seconds_of(partial(matcher.score, query(frame, n))) for n in sizes]
    return pd.DataFrame({"candidates": sizes, "seconds": times})


def matrix_rate(precision: str) -> float:
    """Measured rate of square matrix products, in GFLOP/s, of this precision."""
    size = 1024 if DEVICE.type == "cpu" else 8192
    dtype = torch.bfloat16 if encoder.uses_bf16(precision, DEVICE) else torch.float32
    a, b = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b) / 1e9


def step(config: Config, frame: pd.DataFrame) -> dict[str, float]:
    """A training step of a fresh model, forward and backward, on the batch of median size: pairs, seconds, gflop
    (counted products), gflops (achieved a second), share (of `matrix_rate`).
    """
    matcher = Matcher(config)
    network = matcher.network.to(DEVICE).train()
    pairs = matcher.pairs(frame)
    batches = LengthGrouped(pairs, batch_size=config.batch_size, seed=config.seed)
    batches = sorted(batches, key=lambda batch: pairs.lengths(batch).sum())
    batch = pairs.collate([pairs[rows] for rows in batches[len(batches) // 2]])
    batch = {name: value.to(DEVICE) for name, value in batch.items()}

    def work() -> None:
        with encoder.autocast(config.precision, DEVICE):
            outputs = network(batch)
        sum(losses.dual_loss(outputs, batch, config).values()).backward()

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # it cannot count a CPU's fused one
        work()
    gflop, seconds = counter.get_total_flops() / 1e9, seconds_of(work)
    found = {"pairs": len(batch["rows"]), "seconds": seconds, "gflop": gflop, "gflops": gflop / seconds}
    return found | {"share": gflop / seconds / matrix_rate(config.precision)}


if __name__ == "__main__":
    main()
