"""Makes the retriever that ships with the package: trained on train, compressed, measured on validation, with its card.

    python tools/ship_retriever.py --data path/to/folder --folder /tmp/retriever

The training and two indices (of the corpus of `search_quality.py`) stay in `--folder` and are not made again.
"""

import argparse
import json
from pathlib import Path

from patsim_utils import storage
from patsim_utils.data.splits import load
from patsim_utils.environment import commit
from patsim_utils.experiments.shipping import CREDIT
from patsim_utils.search import evaluation, retriever
from patsim_utils.search.index import Index

SHOWN = ("recall@10 of .75 or more", "recall@200 of .75 or more", "nDCG@10")
CARD = """---
license: cc-by-4.0
language: en
library_name: patsim
pipeline_tag: sentence-similarity
base_model: sentence-transformers/all-MiniLM-L6-v2
datasets:
- google/google-patent-phrase-similarity-dataset
---

# patsim: the retriever of a search

A phrase in, a unit vector out; near vectors are of phrases that mean alike.

- **Model**: all-MiniLM-L6-v2, trained for one epoch with multiple negatives and rated hard negatives on the pairs of
  train that were rated .75 or more; {megabytes:.1f} MB beside the pretrained weights (update of rank {rank}, float16).
- **What is found on validation**, whose anchors training never saw (one seed, intervals of 95 % over anchors), by the
  cosine and shared letters among 31,404 phrases, and the paired difference to the pretrained encoder:
{lines}
- **Made** by `python tools/ship_retriever.py --data D --folder F --rank {rank}` at commit {commit}.
- **Limits**: meant for finding candidates that a model then ranks. It knows no class.

{credit} This model is shared under CC BY 4.0.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=19, help="of the update of each matrix (default: 19)")
    options = parser.parse_args()
    splits = load(options.data)
    trained = retriever.train(splits["train"], options.folder / "retriever", kind="hard_negatives")
    retriever.TUNED.mkdir(exist_ok=True)
    weights = retriever.TUNED / retriever.UPDATE
    retriever.write_update(trained, weights, rank=options.rank)
    corpus = evaluation.corpus(splits)
    measured = {}
    for name in ("minilm", "tuned"):
        index = Index(options.folder / f"{name}-{options.rank}", retriever=name, create=True)
        index.add(corpus[len(index) :])
        system = evaluation.with_letters(evaluation.by_vectors(index))
        measured[name] = evaluation.measure(system, splits["validation"])
    compared = evaluation.compare_measures(measured)
    print(compared.round(4).to_string(index=False))
    lines = []
    for row in compared[compared["system"].eq("tuned") & compared["measure"].isin(SHOWN)].itertuples():
        difference = f"{row.difference:+.3f} [{row.difference_low:.3f}, {row.difference_high:.3f}]"
        lines.append(f"  - {row.measure}: {row.value:.3f} [{row.low:.3f}, {row.high:.3f}], {difference}")
    card = CARD.format(
        lines="\n".join(lines),
        megabytes=weights.stat().st_size / 1e6,
        rank=options.rank,
        commit=commit(),
        credit=CREDIT,
    )
    storage.write_text(retriever.TUNED / "README.md", card)
    print(json.dumps({"bytes": weights.stat().st_size}))


if __name__ == "__main__":
    main()
