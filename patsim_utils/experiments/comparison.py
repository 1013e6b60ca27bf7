"""What the variants of an ablation are worth, each beside another one: a table, and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from patsim_utils import metrics
from patsim_utils.experiments.variants import Variant
from patsim_utils.study import explore
from patsim_utils.training.runs import Run

COLUMNS = [
    "variant",
    "idea",
    "against",
    "seeds",
    "pearson",  # on validation, mean over the seeds
    "low",  # its interval, over anchors and seeds
    "high",
    "worst_seed",
    "best_seed",
    "compared",  # seeds that both have
    "difference",  # own Pearson less that of the variant `against`
    "difference_low",
    "difference_high",
    "seconds",  # of training, mean over the seeds
    "parameters",  # that are trained
    "protocol",
    "track",  # pair, or listwise: a score depends on the other targets of its anchor
    "commit",
    "date",
]


@dataclass(frozen=True)
class Measured:
    """A variant with what its finished runs reached, one a seed, from the first seed on."""

    variant: Variant
    metrics: list[dict[str, Any]]
    pairs: pd.DataFrame  # of validation, the same for all seeds: anchor, target, score
    predictions: list[pd.Series]  # of these pairs

    @classmethod
    def read(cls, variant: Variant, folder: Path) -> Self:
        """From the variant's runs in a folder; InputError where one is missing."""
        runs = [Run.open(path) for path in variant.runs(folder).values()]
        tables = [run.predictions for run in runs]
        held_out = [table[table["split"] == "validation"] for table in tables]
        return cls(
            variant,
            metrics=[run.metrics for run in runs],
            pairs=held_out[0][["anchor", "target", "score"]],
            predictions=[table["prediction"] for table in held_out],
        )

    def level(self) -> dict[str, Any]:
        """The columns that say what the variant reaches and costs."""
        config = self.variant.config
        pearsons = [entry["validation"]["pearson"] for entry in self.metrics]
        seconds = [entry["train"]["seconds"] for entry in self.metrics]
        labels = self.pairs["anchor"], self.pairs["score"]
        low, high = metrics.pearson_interval(*labels, *self.predictions)
        first = self.metrics[0]
        return {
            "variant": self.variant.name,
            "idea": self.variant.idea,
            "against": self.variant.against,
            "seeds": len(self.metrics),
            "pearson": np.mean(pearsons),
            "low": low,
            "high": high,
            "worst_seed": min(pearsons),
            "best_seed": max(pearsons),
            "seconds": np.mean(seconds),
            "parameters": first["train"]["trainable_parameters"],
            "protocol": config.protocol,
            "track": "listwise" if config.listwise else "pair",
            "commit": first["environment"]["commit"],
            "date": first["environment"]["date"],
        }

    def comparable(self, reference: "Measured") -> bool:
        """Whether the other one is another run, on the same pairs."""
        return reference.variant.stem != self.variant.stem and self.pairs.equals(reference.pairs)

    def gain(self, reference: "Measured | None") -> dict[str, float]:
        """The columns that say what the variant adds to the `reference`; NaN without a comparable one."""
        if reference is None or not self.comparable(reference):
            return {
                "compared": 0,
                "difference": np.nan,
                "difference_low": np.nan,
                "difference_high": np.nan,
            }
        seeds = min(len(self.predictions), len(reference.predictions))
        paired = metrics.paired_difference(
            self.pairs["anchor"],
            self.pairs["score"],
            reference.predictions[:seeds],
            self.predictions[:seeds],
        )
        return {
            "compared": seeds,
            "difference": paired["difference"],
            "difference_low": paired["low"],
            "difference_high": paired["high"],
        }


def effects(variants: Sequence[Variant], folder: Path) -> pd.DataFrame:
    """What each variant adds to the one it is measured against, the largest first: COLUMNS.

    A difference is NaN where a variant has nothing to be compared with, is the very same run, or
    was measured on other pairs. InputError where a run is missing.
    """
    measured: dict[str, Measured] = {}
    rows = []
    for variant in variants:
        own = Measured.read(variant, folder)
        rows.append(own.level() | own.gain(measured.get(variant.against)))
        measured[variant.name] = own
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def sentences(table: pd.DataFrame) -> str:
    """Each row of `effects` in a sentence, as a Markdown list."""
    rows = table.itertuples()
    return "\n".join(f"- **{row.variant}** ({row.idea}) {_verdict(row)}." for row in rows)


def _verdict(row: Any) -> str:
    """The end of a variant's sentence; whether the interval leaves out zero decides."""
    if not row.compared:
        level = explore.interval(row.pearson, row.low, row.high)
        return f"reaches {level} and is compared with no other"
    if row.difference_low > 0:
        verb = "is significantly better than"
    elif row.difference_high < 0:
        verb = "is significantly worse than"
    else:
        verb = "makes no significant difference to"
    difference = explore.interval(row.difference, row.difference_low, row.difference_high)
    return f"{verb} `{row.against}`: {difference}, seeds: {row.compared}"
