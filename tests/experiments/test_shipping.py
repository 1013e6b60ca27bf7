"""A run becomes a model that ships: what it says, how it is measured, what its card tells."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.experiments import shipping
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights.folders import NAMES, SHIPPED
from patsim_utils.training.fit import fit
from patsim_utils.training.runs import Run

SPEED = {
    "pairs_per_second": 1200.0,
    "rates": {"1 x 100": {"pairs_per_second": 1200.0, "cross_encoder": 250.0}},
    "threads": 1,
    "precision": "fp32",
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_shipped_model_says_nearly_what_its_run_says(tmp_path: Path, monkeypatch) -> None:
    splits = load("sample")
    few = splits | {"train": splits["train"].head(96)}
    settings = {"layout": "packed", "adapter": "full", "fusion": "none", "contrast_weight": 0}
    config = Config(**settings, layers=2, epochs=1, batch_size=48, learning_rate=1e-4)
    fit(few, config, tmp_path / "runs" / "student")
    run = Run.open(tmp_path / "runs" / "student")
    monkeypatch.setattr(shipping, "SHIPPED", tmp_path / "models")
    monkeypatch.setattr(shipping, "speed", lambda *_: SPEED)

    figures = shipping.ship(run, "small", rank=32, command="patsim distil --name student")

    folder = tmp_path / "models" / "small"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "figures.json",
        "matcher.json",
        "model.safetensors",
    ]
    assert json.loads((folder / "figures.json").read_text()) == json.loads(json.dumps(figures))
    frame = splits["validation"].head(50)
    whole, small = Matcher.load(run.folder), Matcher.load(folder)
    assert np.abs(whole.score(frame) - small.score(frame)).max() < 0.02
    assert figures["pearson"] == pytest.approx(figures["pearson_uncompressed"], abs=0.01)
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "text-ranking"
    assert card.data.license == "cc-by-4.0"
    assert card.data.datasets == ["google/google-patent-phrase-similarity-dataset"]
    assert f"{figures['pearson']:.3f} [{figures['low']:.3f}" in card.content
    assert "**Speed** on 1 thread, fp32, " in card.content
    assert "\n  1 x 100: 1,200, 4.8 times." in card.content
    assert "by `patsim distil --name student`,\n" in card.content
    assert "(`patsim_utils/data/behaviour.csv`; the first three by definition): identical 100 %, hyphen" in card.content
    (result,) = card.data.eval_results
    assert (result.dataset_split, result.metric_type) == ("validation", "pearson")
    assert result.metric_value == pytest.approx(figures["pearson"], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_of_the_models_that_ship_tell_their_figures(name: str) -> None:
    card = ModelCard.load(SHIPPED / name / "README.md")
    figures = json.loads((SHIPPED / name / "figures.json").read_text())
    assert card.data.model_name == name
    assert card.data.base_model == shipping.BASES[{"small": "minilm", "large": "mpnet"}[name]]
    (result,) = card.data.eval_results
    assert result.metric_value == pytest.approx(figures["pearson"], abs=1e-4)
    assert result.dataset_split == figures["split"]
