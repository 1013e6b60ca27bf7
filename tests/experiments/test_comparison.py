"""Variants are compared in pairs, on the same rows and seeds."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from patsim_utils import metrics
from patsim_utils.config import Config
from patsim_utils.experiments.comparison import COLUMNS, effects, sentences
from patsim_utils.experiments.variants import Variant
from patsim_utils.training.runs import Run

NOISE = {"one-seed0": 0.5, "one-seed1": 0.6, "two-seed0": 0.1, "two-seed1": 0.2}  # of the predictions of each run


def variant(name: str, idea: str, **fields: object) -> Variant:
    return Variant(**{"name": name, "idea": idea, "config": Config(), "stem": name} | fields)


VARIANTS = [
    variant("one", "base", seeds=2),
    variant("two", "less noise", against="one", seeds=2),
    variant("rows", "other pairs", against="one"),
    variant("same", "base", against="two", stem="one"),
    variant("twin", "base", against="one", stem="one"),
]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Pearson on validation of each of the runs that `Run.open` gives."""
    rng = np.random.default_rng(0)
    anchors = np.repeat([f"a{number}" for number in range(20)], 5)
    scores = rng.integers(0, 5, 100) / 4
    frame = pd.DataFrame({"anchor": anchors, "target": "t", "score": scores, "split": "validation"})
    tables = {run: frame.assign(prediction=scores + noise * rng.normal(size=100)) for run, noise in NOISE.items()}
    tables["rows-seed0"] = tables["one-seed0"].assign(target="other")
    pearson = {run: metrics.pearson(table["score"], table["prediction"]) for run, table in tables.items()}

    def open_run(folder: Path) -> Run:
        name = folder.name
        entries = {
            "validation": {"pearson": pearson[name]},
            "train": {"seconds": 10.0 * (1 + int(name[-1])), "trainable_parameters": 7},
            "environment": {"commit": name, "date": "2026-01-02"},
        }
        test = tables[name].iloc[:10].assign(split="test")
        predictions = pd.concat([tables[name], test], ignore_index=True)
        return Run(folder, Config(), entries, pd.DataFrame(), predictions)

    monkeypatch.setattr(Run, "open", open_run)
    return pearson


def test_effects_are_the_paired_differences_of_means(runs: dict[str, float], tmp_path: Path) -> None:
    table = effects(VARIANTS, tmp_path)
    assert table.columns.tolist() == COLUMNS
    # the largest first, what is not compared last
    assert table["variant"].tolist() == ["two", "same", "one", "rows", "twin"]
    table = table.set_index("variant")
    one = (runs["one-seed0"] + runs["one-seed1"]) / 2
    two = (runs["two-seed0"] + runs["two-seed1"]) / 2
    assert table.loc["two", "difference"] == pytest.approx(two - one)
    assert 0 < table.loc["two", "difference_low"] < table.loc["two", "difference"] < table.loc["two", "difference_high"]
    assert table.loc["same", "difference"] == pytest.approx(runs["one-seed0"] - runs["two-seed0"])
    assert table["compared"].to_dict() == {"two": 2, "same": 1, "one": 0, "rows": 0, "twin": 0}
    assert table["difference"].isna().sum() == 3
    assert table.loc["one", "worst_seed"] == runs["one-seed1"]
    assert table.loc["one", "best_seed"] == runs["one-seed0"]
    assert table.loc["one", ["pearson", "seconds", "parameters"]].tolist() == pytest.approx([one, 15, 7])
    assert table.loc["one", "low"] < one < table.loc["one", "high"]
    assert table.loc["one", ["protocol", "track", "commit"]].tolist() == ["anchor_disjoint", "pair", "one-seed0"]


def test_each_effect_is_a_sentence(runs: dict[str, float], tmp_path: Path) -> None:
    table = effects(VARIANTS, tmp_path)
    better, worse, alone, *_ = sentences(table).splitlines()
    assert re.fullmatch(r"- \*\*two\*\* \(less noise\) is significantly better than `one`: 0\..*, seeds: 2\.", better)
    assert worse.startswith("- **same** (base) is significantly worse than `two`: -0.")
    assert "reaches" in alone
    assert "nan" not in sentences(table)
    uncertain = table.head(1).assign(difference_low=-0.01)
    assert "makes no significant difference to `one`" in sentences(uncertain)
