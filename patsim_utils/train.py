"""One training run: settings in, a run folder out (config, history, metrics, predictions, model).

The loop is Hugging Face's Trainer. What stands here is what it cannot know: the dual loss, batches of like length,
two learning rates, evaluation by the same code that scores, every step's terms, and a stop at the first non-finite one.
"""

import json
import math
import resource
import shutil
import time
from dataclasses import asdict, dataclass, fields
from dataclasses import replace as replace_settings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from patsim_utils import cpc, curriculum, encoder, losses, metrics, ordinal, stack
from patsim_utils.data import grouped_folds
from patsim_utils.environment import environment
from patsim_utils.errors import InputError
from patsim_utils.evidence import Evidence
from patsim_utils.matcher import Architecture, Matcher
from patsim_utils.packing import UNRATED, LengthGrouped, Pairs

TERMS = ("ordinal", "contrast", "rating")  # of the loss, columns of history.csv; 0 where not in use


@dataclass(frozen=True, kw_only=True)
class Settings(Architecture):
    """Everything that a run depends on, flat: the parameters of notebook 2. The defaults are the described method."""

    data: str = "sample"
    protocol: str = "anchor_disjoint"
    seed: int = 0
    cpc_titles: str = ""
    loss: str = "smooth_k2"
    alpha: float = 4.0
    beta: float = 0.25
    contrast: str = "ntxent"
    negatives: str = "batch"
    contrast_weight: float = 0.4
    temperature: float = 0.1
    epochs: int = 3
    batch_size: int = 32
    batch_tokens: int = 0
    learning_rate: float = 1e-3
    head_learning_rate: float = 1e-3
    layer_decay: float = 1.0
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    curriculum: str = "none"
    keep: str = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = {
            "protocol": ("anchor_disjoint", "random"),
            "loss": losses.ORDINAL,
            "contrast": losses.CONTRAST,
            "negatives": losses.NEGATIVES,
            "curriculum": curriculum.CURRICULA,
            "keep": ("best", "last"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise InputError(f"parameter {name}: {getattr(self, name)!r} is none of {', '.join(values)}")
        for name in (
            "alpha",
            "temperature",
            "epochs",
            "batch_size",
            "learning_rate",
            "head_learning_rate",
            "clip",
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"parameter {name}: {getattr(self, name)} is not greater than 0")
        for name in ("beta", "contrast_weight", "weight_decay", "batch_tokens"):
            if not getattr(self, name) >= 0:
                raise InputError(f"parameter {name}: {getattr(self, name)} is less than 0")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"parameter layer_decay: {self.layer_decay} is not in (0, 1]")
        if not 0 <= self.warmup < 1:
            raise InputError(f"parameter warmup: {self.warmup} is not a share in [0, 1)")
        if self.contrast == "classes" and self.fusion == "none":
            raise InputError("contrast 'classes' needs class vectors, and fusion 'none' has none")
        if self.batch_size == 1 and self.loss == "pearson":
            raise InputError("loss 'pearson' needs a batch_size of at least 2: one pair has no correlation")

    @classmethod
    def pick(cls, namespace: dict[str, Any]) -> "Settings":
        """The settings among the names of a dict, such as a notebook's `globals()`; the others are left alone."""
        return cls(**{field.name: namespace[field.name] for field in fields(cls) if field.name in namespace})

    def judge(self) -> "Settings":
        """Of a judge of its stack, which trains as the preset `search` does; nothing is chosen on validation."""
        return replace_settings(
            super().judge(),
            contrast="none",
            epochs=3,
            batch_size=192,
            batch_tokens=0,
            learning_rate=2.4e-4,
            head_learning_rate=2.4e-4,
            layer_decay=1.0,
            curriculum="none",
            keep="last",
        )

    def architecture(self) -> Architecture:
        return Architecture(**{field.name: getattr(self, field.name) for field in fields(Architecture)})


class DualLossTrainer(Trainer):
    """Trainer on the sum of an ordinal and a contrastive loss and, where asked for, of the ratings' cross-entropy.

    The terms of each step and the seconds since the start go to the log history, from which `history.csv` is made.
    """

    def __init__(
        self,
        model: Matcher,
        *,
        settings: Settings,
        sampler: LengthGrouped,
        validation: pd.DataFrame,
        best: Path,
        **kwargs,
    ) -> None:
        super().__init__(model, eval_dataset=model.pairs(validation), **kwargs)
        self.settings, self.sampler, self.validation, self.best = settings, sampler, validation, best
        self.terms: dict[str, float] = {}
        self.clock = time.perf_counter()
        self.evaluation_seconds = 0.0
        self.add_callback(_SetEpoch(self.sampler))

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.sampler.pairs,
            batch_sampler=self.sampler,
            collate_fn=self.sampler.pairs.collate,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; the encoder (or its adapter) at `learning_rate`, all that is new at `head_learning_rate`.

        Each layer below the last one has `layer_decay` times the rate of the one above it, the embeddings the least
        (Howard & Ruder 2018, arXiv 1801.06146, section 3.2): what the encoder knows of words that training never shows
        stays in place.
        """
        s, decayed = self.settings, set(self.get_decay_parameter_names(self.model))
        layers = self.model.encoder.config.num_hidden_layers
        groups: dict[tuple[float, float], list] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = s.head_learning_rate
                if name.startswith("backbone."):
                    rate = s.learning_rate * s.layer_decay ** (layers - encoder.layer_of(name))
                groups.setdefault((rate, s.weight_decay if name in decayed else 0.0), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()],
            fused=True,
        )
        return self.optimizer

    def compute_loss(
        self,
        model: Matcher,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        s, output = self.settings, model(inputs)
        ordinal_term = losses.ordinal_loss(output.cumulative, inputs["rank"], kind=s.loss, alpha=s.alpha, beta=s.beta)
        contrast_term = ordinal_term.new_zeros(())
        if s.contrast == "classes":
            vectors = self.model.fusion.embedding(inputs["row_code"])
            contrast_term = losses.class_contrast(vectors, inputs["row_code"], temperature=s.temperature)
        elif s.contrast != "none":
            contrast_term = losses.contrast_loss(
                output.anchor,
                output.target,
                kind=s.contrast,
                rank=inputs["rank"],
                anchor_text=inputs["anchor_text"],
                target_text=inputs["target_text"],
                code=inputs["row_code"],
                negatives=s.negatives,
                temperature=s.temperature,
            )
        rating_term = ordinal_term.new_zeros(())
        if output.ratings is not None:
            rating_term = F.cross_entropy(output.ratings.float(), inputs["rating"], ignore_index=UNRATED)
        terms = dict(zip(TERMS, (ordinal_term, contrast_term, rating_term), strict=True))
        self.terms = {name: term.item() for name, term in terms.items()}
        for name, value in self.terms.items():
            if not math.isfinite(value):
                rows = ", ".join(map(str, inputs["rows"].tolist()))
                raise FloatingPointError(
                    f"step {self.state.global_step + 1}: the {name} loss is {value}; "
                    f"rows of the training split in this batch: {rows}"
                )
        return ordinal_term + s.contrast_weight * contrast_term + s.rating_weight * rating_term

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self.terms}
            if not math.isfinite(logs["grad_norm"]):
                raise FloatingPointError(f"step {self.state.global_step}: the gradient's norm is {logs['grad_norm']}")
        super().log({**logs, "seconds": round(time.perf_counter() - self.clock, 3)}, start_time)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Validation by the code that scores; the best model so far is put aside."""
        began = time.perf_counter()
        cumulative = self.model.cumulative(self.eval_dataset)
        result = summary(self.validation, cumulative, self.settings)
        found = {f"eval_{name}": result[name] for name in ("loss", "pearson", "spearman")}
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, dict(found))
        if self.settings.keep == "last" or result["pearson"] > (
            -math.inf if self.state.best_metric is None else self.state.best_metric
        ):
            replace(self.best, self.model)
        if self.args.disable_tqdm:  # else the notebook's table shows it
            print(
                f"epoch {self.state.epoch:.0f}: validation " + ", ".join(f"{k[5:]} {v:.4f}" for k, v in found.items()),
                flush=True,
            )
        self.evaluation_seconds += time.perf_counter() - began
        return found

    # Checkpoints hold what was trained, in the model's own form (safetensors and JSON).
    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        self.model.save(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Matcher | None = None) -> None:
        self.model.restore(Path(resume_from_checkpoint))


class EvidenceTrainer(Trainer):
    """Trainer of the network on the evidence: the ordinal loss and, where it learns them, that of the ratings."""

    def __init__(self, model: Evidence, *, settings: Settings, **kwargs) -> None:
        super().__init__(model, **kwargs)
        self.settings = settings

    def compute_loss(
        self,
        model: Evidence,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        s, features = self.settings, model(inputs["numbers"])
        loss = losses.ordinal_loss(model.head(features), inputs["rank"], kind=s.loss, alpha=s.alpha, beta=s.beta)
        if model.rating_head is None:
            return loss
        rated = F.cross_entropy(model.rating_head(features), inputs["rating"], ignore_index=UNRATED)
        return loss + s.rating_weight * rated


def fit_evidence(evidence: Evidence, pairs: Pairs, settings: Settings, *, folder: Path) -> None:
    """Fits the network on the evidence to the training pairs, seconds of work; from then on it stays as it is.

    Its rate, batch and epochs are its own: hundreds of times smaller than the encoder, it takes larger steps and more
    epochs before it learns by heart. The Trainer needs a `folder`, in which it leaves nothing.

    Raises FloatingPointError where its loss does not stay finite.
    """
    evidence.standardise(pairs.evidence)
    rank, rating = torch.tensor(pairs.rank), torch.tensor(pairs.rating)
    names = ("numbers", "rank", "rating")
    rows = [dict(zip(names, row, strict=True)) for row in zip(pairs.evidence, rank, rating, strict=True)]
    epochs, batch = 12, min(512, max(16, len(rows) // 64))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch,
        learning_rate=3e-3,
        weight_decay=0.01,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(0.1 * epochs * len(rows) / batch),
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
        report_to=[],
        seed=settings.seed,
        disable_tqdm=True,
    )
    evidence.requires_grad_(True).readers.requires_grad_(False)
    trainer = EvidenceTrainer(evidence, settings=settings, args=arguments, train_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    loss = trainer.train().training_loss
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss of the network on the evidence is {loss}")
    evidence.requires_grad_(False)


def fit_judges(
    judges: nn.ModuleList,
    splits: dict[str, pd.DataFrame],
    settings: Settings,
    *,
    unseen: np.ndarray,
    folder: Path,
    resumable: bool,
) -> None:
    """Trains each judge of a stack on the training rows whose anchors it may see, by a run of its own in the folder.

    `unseen` (n,): the judge that must not see the row. A run that has ended is not run again.
    """
    for part, judge in enumerate(judges):
        run = folder / f"judge-{part}"
        if not (run / "metrics.json").is_file():
            print(f"judge {part + 1} of {len(judges)}:", flush=True)
            seen = splits["train"][unseen != part].reset_index(drop=True)
            train({"train": seen, "validation": splits["validation"]}, settings.judge(), run=run, resumable=resumable)
        judge.restore(run / "model")


class _SetEpoch(TrainerCallback):
    """Tells the sampler its epoch; on a resumed run, too."""

    def __init__(self, sampler: LengthGrouped) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(math.floor((state.epoch or 0) + 1e-6))


def replace(folder: Path, model: Matcher) -> None:
    """Saves the model beside the folder, then swaps: a kill in between leaves no half model."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def summary(frame: pd.DataFrame, cumulative: Tensor, settings: Settings) -> dict[str, Any]:
    """The contract's figures of one split: cumulative logits (n, 4) against the frame's scores."""
    rank = torch.from_numpy(ordinal.to_rank(frame["score"].to_numpy()))
    loss = losses.ordinal_loss(cumulative, rank, kind=settings.loss, alpha=settings.alpha, beta=settings.beta).item()
    return metrics.evaluate(frame, ordinal.score(cumulative).double().numpy(), loss=loss, seed=settings.seed)


def train(splits: dict[str, pd.DataFrame], settings: Settings, *, run: Path, resumable: bool = True) -> dict[str, Any]:
    """Trains on `splits["train"]`, keeps the best or last epoch on `validation`, evaluates the other splits.

    A killed run of the same settings goes on from its last checkpoint, unless it is not to be `resumable`. Writes
    config.json, history.csv, metrics.json, predictions.csv and model/ into `run`, the metrics last, and returns them.

    Raises:
        InputError: settings that cannot work with this backbone or data.
        FloatingPointError: a non-finite loss or gradient, with the step and the rows.
    """
    if settings.rating_weight and "rating" not in splits["train"]:
        raise InputError("parameter rating_weight: the training data has no column rating; 0 does without")
    anchors = splits["train"]["anchor"].nunique()
    if settings.stack > anchors:
        raise InputError(f"parameter stack: {settings.stack} parts of {anchors} training anchors cannot be")
    set_seed(settings.seed)
    titles = cpc.titles(Path(settings.cpc_titles) if settings.cpc_titles else None)
    model = Matcher(settings.architecture(), titles=titles)
    config = json.dumps(asdict(settings), indent=1)
    checkpoints = run / "checkpoints"
    known = (run / "config.json").is_file() and (run / "config.json").read_text() == config
    if not known:
        shutil.rmtree(checkpoints, ignore_errors=True)
    for stale in ("metrics.json", "history.csv", "predictions.csv"):
        (run / stale).unlink(missing_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(config)

    cuda, began = torch.cuda.is_available(), time.perf_counter()
    pairs = model.tokenised(splits["train"])
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if last:
        model.restore(Path(last))
    if model.evidence:
        unseen = None
        if settings.stack:
            unseen = grouped_folds(splits["train"], folds=settings.stack, seed=settings.seed)
            if not last:  # else the checkpoint holds them
                stack.fit_readers(
                    model.evidence.readers,
                    pairs,
                    unseen=unseen,
                    tokenizer=model.tokenizer,
                    seed=settings.seed,
                    folder=checkpoints,
                    keep=resumable,
                )
                fit_judges(model.judges, splits, settings, unseen=unseen, folder=checkpoints, resumable=resumable)
        pairs.evidence = model.evidence_of(pairs, splits["train"], unseen=unseen)
        if not last:
            fit_evidence(model.evidence, pairs, settings, folder=checkpoints)
    sampler = LengthGrouped(
        pairs,
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        seed=settings.seed,
        pools=None
        if settings.curriculum == "none"
        else curriculum.pools(
            splits["train"],
            curriculum=settings.curriculum,
            epochs=settings.epochs,
            backbone=settings.backbone,
            seed=settings.seed,
        ),
    )
    steps = settings.epochs * len(sampler)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(settings.warmup * steps),
        max_grad_norm=settings.clip,
        eval_strategy="epoch",
        save_strategy="steps" if resumable else "no",
        save_steps=max(1, min(200, steps // 10)),
        save_total_limit=2,
        metric_for_best_model="pearson",
        greater_is_better=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        report_to=[],
        seed=settings.seed,
        disable_tqdm=not transformers.utils.is_in_notebook(),
    )
    trainer = DualLossTrainer(
        model,
        settings=settings,
        sampler=sampler,
        validation=splits["validation"],
        best=run / "model",
        args=arguments,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.clock = began  # the evidence is a part of the work
    if last:
        seen = json.loads((Path(last) / "trainer_state.json").read_text())["log_history"]
        trainer.clock -= seen[-1]["seconds"]
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.train(resume_from_checkpoint=last)

    history = pd.DataFrame(trainer.state.log_history)
    result = report(splits, settings, history=history, run=run)
    result["train"]["padding"] = sampler.padding()
    result["train"]["evaluation_seconds"] = trainer.evaluation_seconds
    columns = ["step", "epoch", "loss", *TERMS, "learning_rate", "grad_norm", "seconds"]
    history.dropna(subset="loss")[columns].to_csv(run / "history.csv", index=False)
    (run / "metrics.json").write_text(json.dumps(result, indent=1, allow_nan=False))
    shutil.rmtree(checkpoints, ignore_errors=not resumable)
    return result


def report(splits: dict[str, pd.DataFrame], settings: Settings, *, history: pd.DataFrame, run: Path) -> dict[str, Any]:
    """Loads the kept model, writes predictions.csv, gives the metrics of every evaluated split and of the training."""
    model = Matcher.load(run)
    result: dict[str, Any] = {"protocol": settings.protocol}
    predictions, alone = [], {}
    for name in [split for split in splits if split != "train"]:
        frame = splits[name]
        pairs = model.pairs(frame)
        cumulative = model.cumulative(pairs)
        result[name] = summary(frame, cumulative, settings)
        if model.evidence:
            guess = model.evidence.score(pairs.evidence)
            alone[name] = metrics.evaluate(frame, guess, loss=None, seed=settings.seed)
        predictions.append(frame.assign(split=name, prediction=ordinal.score(cumulative).double().numpy()))
    frame = pd.concat(predictions, ignore_index=True)
    order = ["split", "anchor", "target", "context", "score", "prediction"]
    frame[order + [column for column in frame if column not in order]].to_csv(run / "predictions.csv", index=False)

    cuda = torch.cuda.is_available()
    steps = history.dropna(subset="loss")
    seconds = float(history["seconds"].max())
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    beside = [*model.judges.parameters(), *(model.evidence.parameters() if model.evidence else ())]  # trained first
    result["train"] = {
        "n": len(splits["train"]),
        "seconds": seconds,
        "epochs": settings.epochs,
        "steps": int(steps["step"].iloc[-1]),
        "pairs_per_second": settings.epochs * len(splits["train"]) / seconds,
        "peak_memory_mb": round(peak, 1),
        "trainable_parameters": sum(p.numel() for p in [*trained, *beside]),
        "device": torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
    }
    epochs = history.dropna(subset="eval_pearson")
    result["epochs"] = [
        {"epoch": round(row["epoch"]), "step": int(row["step"]), "seconds": row["seconds"]}
        | {name: row[f"eval_{name}"] for name in ("pearson", "spearman", "loss")}
        for _, row in epochs.iterrows()
    ]
    result["baselines"] = baselines(splits, settings) | ({"evidence": alone} if alone else {})
    result["environment"] = environment(seed=settings.seed)
    return result


def baselines(splits: dict[str, pd.DataFrame], settings: Settings) -> dict[str, Any]:
    """What words alone and the untouched backbone reach on the evaluated splits."""
    systems = {
        "word_jaccard": metrics.word_jaccard,
        "zero_shot": lambda frame: np.clip(encoder.zero_shot(frame, backbone=settings.backbone), 0, 1),
    }
    return {
        name: {
            split: metrics.evaluate(frame, system(frame), loss=None, seed=settings.seed)
            for split, frame in splits.items()
            if split != "train"
        }
        for name, system in systems.items()
    }
