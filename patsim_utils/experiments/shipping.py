"""Makes a finished run a model that ships with the package: compressed, measured, with its card.

`python -m patsim_utils.experiments.shipping runs/mine small --rank 64` writes patsim_utils/models/small: matcher.json
and model.safetensors (what training has changed of the pretrained weights, in float16), figures.json, README.md.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch

from patsim_utils import metrics, storage
from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.environment import environment
from patsim_utils.errors import counted
from patsim_utils.experiments import behaviour
from patsim_utils.experiments.benchmark import query, seconds_of
from patsim_utils.experiments.systems import LONGEST, words
from patsim_utils.method import backbones, encoder
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights.folders import SHIPPED
from patsim_utils.study.explore import percent
from patsim_utils.training.runs import Run

CANDIDATES = (100, 1000)  # of one query, in the measurement of speed
CREDIT = (
    "Trained on Google's Patent Phrase Similarity data set (CC BY 4.0, Aslanyan and Wetherbee 2022, arXiv 2208.01171)."
)
CARD = """---
license: cc-by-4.0
language: en
library_name: patsim
pipeline_tag: text-ranking
base_model: {base}
datasets:
- google/google-patent-phrase-similarity-dataset
model-index:
- name: {name}
  results:
  - task:
      type: text-ranking
    dataset:
      type: google/google-patent-phrase-similarity-dataset
      name: patent phrase pairs, {split}
      split: {split}
    metrics:
    - type: pearson
      name: Pearson [{low:.3f}, {high:.3f}] over anchors (anchor_disjoint)
      value: {pearson:.4f}
---

# patsim: {name}

Anchor phrase, target phrase and CPC class in, a score from 0 to 1 out.

- **Model**: {description}. The {megabytes:.1f} MB are what training changed of the pretrained weights ({base},
  Apache-2.0), as products of rank {rank} in float16, and the heads.
- **Pearson** {pearson:.3f} [{low:.3f}, {high:.3f}] on {split}, whose anchors training never saw, one seed; without the
  compression {pearson_uncompressed:.3f}.
- **Speed** on {threads}, {precision}, in pairs a second and as a multiple of a CrossEncoder of the same encoder:
  {speeds}.
- **Right where a person can judge** (`patsim_utils/data/behaviour.csv`; the first three by definition): {shares}.
- **Made** at commit {commit} by `{command}`,
  and by `python -m patsim_utils.experiments.shipping runs/{run} {name} --rank {rank}`.
- **Limits**: meant for ranking candidate phrases that a person then looks at. It takes many opposites for synonyms.

{credit} This model is shared under CC BY 4.0.
"""
BASES = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
}


def ship(run: Run, name: str, *, rank: int, command: str) -> dict[str, Any]:
    """Writes the model `name`; returns its figures.

    `rank`: of the update of each linear layer. `command`: that made the run, for the card.
    """
    SHIPPED.mkdir(exist_ok=True)
    storage.recover(SHIPPED / name)
    fresh = storage.temporary(SHIPPED / name)
    Matcher.load(run.folder).save(fresh, form="adapter", rank=rank)
    matcher = Matcher.load(fresh)
    figures = measure(matcher, run) | speed(matcher, run.config)
    figures["megabytes"] = round(sum(path.stat().st_size for path in fresh.iterdir()) / 1e6, 2)
    figures |= {"rank": rank, "environment": environment(seed=run.config.seed)}
    storage.write_text(fresh / "figures.json", json.dumps(figures, indent=1))
    storage.write_text(fresh / "README.md", card(figures, run, name=name, command=command))
    storage.swap(fresh, SHIPPED / name)
    return figures


def measure(matcher: Matcher, run: Run) -> dict[str, Any]:
    """Pearson with its interval on validation, that of the uncompressed run, and the shares of `behaviour`."""
    frame = load(run.config.data, protocol=run.config.protocol, seed=run.config.seed)["validation"]
    result = metrics.evaluate(frame, matcher.predictions(frame).scores, seed=run.config.seed)
    low, high = result["pearson_ci"]
    judged = behaviour.shares({"model": matcher.score})
    return {
        "pearson": result["pearson"],
        "low": low,
        "high": high,
        "split": "validation",
        "seeds": 1,
        "pearson_uncompressed": run.metrics["validation"]["pearson"],
        "behaviour": {row.kind: round(row.model, 3) for row in judged.itertuples()},
    }


def speed(matcher: Matcher, config: Config) -> dict[str, Any]:
    """Pairs a second of one query against many candidates, beside an untrained CrossEncoder of the same encoder."""
    path = backbones.path(config.backbone)
    other = sentence_transformers.CrossEncoder(path, num_labels=1, max_length=LONGEST)
    texts = words(config)
    frame = load("sample")["validation"]
    rates: dict[str, Any] = {}
    for count in CANDIDATES:
        pairs = query(frame, count)
        own_rate = count / seconds_of(partial(matcher.score, pairs))
        with encoder.autocast(config.precision, matcher.network.device):
            other_rate = count / seconds_of(lambda pairs=pairs: other.predict(texts(pairs), show_progress_bar=False))
        rates[f"1 x {count:,}"] = {"pairs_per_second": own_rate, "cross_encoder": other_rate}
    uses_bf16 = encoder.uses_bf16(config.precision, matcher.network.device)
    return {
        "pairs_per_second": rates[f"1 x {CANDIDATES[0]:,}"]["pairs_per_second"],
        "rates": rates,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if uses_bf16 else "fp32",
    }


def card(figures: dict[str, Any], run: Run, *, name: str, command: str) -> str:
    """The model card in Markdown."""
    return CARD.format(
        **figures | {"threads": counted(figures["threads"], "thread")},
        name=name,
        run=run.folder.name,
        command=command,
        base=BASES.get(run.config.backbone, run.config.backbone),
        description=run.config.describe(),
        speeds=_speeds(figures["rates"]),
        shares=_shares(figures["behaviour"]),
        commit=run.metrics["environment"]["commit"],
        credit=CREDIT,
    )


def _speeds(rates: dict[str, dict[str, float]]) -> str:
    texts = []
    for query_size, rate in rates.items():
        own = rate["pairs_per_second"]
        texts.append(f"{query_size}: {own:,.0f}, {own / rate['cross_encoder']:.1f} times")
    return "; ".join(texts)


def _shares(judged: dict[str, float]) -> str:
    """The kinds that are right by definition first."""
    kinds = sorted(judged, key=lambda kind: kind not in behaviour.BY_DEFINITION)
    return ", ".join(f"{kind.replace('_', ' ')} {percent(judged[kind])}" for kind in kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a finished run a model that ships with the package.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="of the model: small or large")
    parser.add_argument("--rank", type=int, default=64, help="of the update of each linear layer (default: 64)")
    parser.add_argument("--command", default="patsim distil", help="that made the run, for the card")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    figures = ship(run, arguments.name, rank=arguments.rank, command=arguments.command)
    print(json.dumps(figures, indent=1, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()
