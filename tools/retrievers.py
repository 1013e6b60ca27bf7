"""What a retriever gains by training and by shared letters, on grouped folds of train.

    python tools/retrievers.py --data path/to/folder --folder /tmp/trial --folds 3

Of each fold the anchors in their classes are the queries, and a retriever is trained on the rows of the others. The
corpus: the distinct targets of all splits. Differences are paired over anchors, to the first system. Retrievers and
indices stay in `--folder` and are not made again.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from patsim_utils.data.splits import grouped_folds, load
from patsim_utils.search import evaluation, retriever
from patsim_utils.search.index import Index

KINDS = ("minilm", "multiple_negatives", "hard_negatives")
SHOWN = ["recall@10 of .75 or more", "recall@200 of .75 or more", "nDCG@10"]


def systems(kind: str, training: pd.DataFrame, corpus: pd.DataFrame, folder: Path) -> Iterator[tuple]:
    """A retriever's name and system, alone and with shared letters."""
    trained = kind
    if kind != "minilm":
        trained = str(retriever.train(training, folder / "retriever", kind=kind))
    index = Index(folder / "index", retriever=trained, create=True)
    index.add(corpus[len(index) :])
    by_vectors = evaluation.by_vectors(index)
    yield kind, by_vectors
    yield f"{kind} + letters", evaluation.with_letters(by_vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    splits = load(options.data)
    corpus = evaluation.corpus(splits)
    train = splits["train"]
    fold = grouped_folds(train)
    measured: dict[str, list[pd.DataFrame]] = {}
    for number in range(options.folds):
        for kind in options.kinds:
            folder = options.folder / (kind if kind == "minilm" else f"{kind}-{number}")
            for name, system in systems(kind, train[fold != number], corpus, folder):
                table = evaluation.measure(system, train[fold == number])
                measured.setdefault(name, []).append(table)
                print(f"fold {number}, {name}: {table[SHOWN].mean().round(4).to_dict()}", flush=True)
    whole = {name: pd.concat(tables) for name, tables in measured.items()}
    compared = evaluation.compare_measures(whole)
    compared = compared[compared["measure"].isin(SHOWN)].sort_values("measure", kind="stable")
    print(compared.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
