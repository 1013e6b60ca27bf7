"""How much is found on validation: by the retriever, by the model alone, and by the blend of both, as in a search.

    python tools/search_quality.py --data path/to/folder --folder /tmp/quality

Queries are the anchors of validation in their classes, the corpus the distinct targets of all splits, candidates the
200 nearest. Intervals are over anchors; differences are paired, to the retriever or to the system before the comma.
The index stays in `--folder`.
"""

import argparse
from pathlib import Path

import pandas as pd

from patsim_utils.data.splits import load
from patsim_utils.method.matcher import Matcher
from patsim_utils.search import evaluation
from patsim_utils.search.index import Index

SHOWN = ["recall@10 of .75 or more", "recall@200 of .75 or more", *evaluation.ORDERS]


class Once:
    """A matcher that scores each pair once."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.known: dict[tuple[str, ...], float] = {}

    def score(self, pairs: pd.DataFrame) -> list[float]:
        keys = list(pairs.itertuples(index=False, name=None))
        missing = pairs[[key not in self.known for key in keys]]
        if len(missing):
            self.known.update(zip(missing.itertuples(index=False, name=None), self.matcher.score(missing), strict=True))
        return [self.known[key] for key in keys]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--retriever", default="minilm")
    options = parser.parse_args()
    splits = load(options.data)
    corpus = evaluation.corpus(splits)
    index = Index(options.folder, retriever=options.retriever, create=True)
    index.add(corpus[len(index) :])
    matcher = Once(Matcher.load(options.model))
    retriever = evaluation.by_vectors(index)
    blend = evaluation.reranked(retriever, matcher, letters=0)
    systems = {
        "retriever": retriever,
        "retriever, letters": evaluation.with_letters(retriever),
        "model alone": evaluation.reranked(retriever, matcher, weight=1),
        "model alone, blend": blend,
        "blend": blend,
        "blend, letters": evaluation.reranked(retriever, matcher),
    }
    compared = evaluation.compare(systems, splits["validation"])
    compared = compared[compared["measure"].isin(SHOWN)].sort_values("measure", kind="stable")
    print(compared.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
