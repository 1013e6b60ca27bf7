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
from patsim_utils.experiments import behaviour
from patsim_utils.experiments.benchmark import query, seconds_of
from patsim_utils.experiments.systems import LONGEST, words
from patsim_utils.method import backbones, encoder
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights.folders import SHIPPED
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

- **Model**: {description}; {megabytes:.1f} MB beside the pretrained weights (update of rank {rank}, float16).
- **Pearson** {pearson:.3f} [{low:.3f}, {high:.3f}] on {split}, whose anchors training never saw, one seed; without the
  compression {pearson_uncompressed:.3f}.
- **Speed** with {threads} threads in {precision}: {pairs_per_second:,.0f} pairs a second (1 x 100), {times:.1f} times
  those of a CrossEncoder of the same encoder.
- **Made** by {command} and `python -m patsim_utils.experiments.shipping runs/{run} {name} --rank {rank}` at commit
  {commit}.
- **Limits**: meant for ranking candidate phrases that a person then looks at. It takes many opposites for synonyms.

{credit} This model is shared under CC BY 4.0.
"""
BASES = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
}


def ship(run: Run, name: str, *, rank: int, command: str) -> dict[str, Any]:
    """Writes the model `name`; returns its figures.

    `rank`: of the update of each linear layer. `command`: what made the run, for the card.
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
    shares = behaviour.shares({"share": matcher.score})
    return {
        "pearson": result["pearson"],
        "low": low,
        "high": high,
        "split": "validation",
        "seeds": 1,
        "pearson_uncompressed": run.metrics["validation"]["pearson"],
        "behaviour": {row.kind: round(row.share, 3) for row in shares.itertuples()},
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
    first = rates[f"1 x {CANDIDATES[0]:,}"]
    return {
        "pairs_per_second": first["pairs_per_second"],
        "times_cross_encoder": first["pairs_per_second"] / first["cross_encoder"],
        "rates": rates,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if uses_bf16 else "fp32",
    }


def card(figures: dict[str, Any], run: Run, *, name: str, command: str) -> str:
    """The model card in Markdown."""
    return CARD.format(
        **figures,
        name=name,
        run=run.folder.name,
        command=command,
        base=BASES.get(run.config.backbone, run.config.backbone),
        description=run.config.describe(),
        times=figures["times_cross_encoder"],
        commit=figures["environment"]["commit"],
        credit=CREDIT,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a finished run a model that ships with the package.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="of the model: small or large")
    parser.add_argument("--rank", type=int, default=64, help="of the update of each linear layer (default: 64)")
    parser.add_argument("--command", default="`patsim distil`", help="what made the run, for the card")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    figures = ship(run, arguments.name, rank=arguments.rank, command=arguments.command)
    print(json.dumps(figures, indent=1, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()
