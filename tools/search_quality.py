"""How much is found on validation: by the retriever, by the model alone, and by the blend of both, as in a search.

    python tools/search_quality.py --data path/to/folder --folder /tmp/quality

Queries are the anchors of validation in their classes, the corpus the distinct targets of all splits, candidates the
200 nearest. Intervals are over anchors; differences are paired, to the retriever or to the system before the last
comma. The index stays in `--folder`.
"""

import argparse
from pathlib import Path

from patsim_utils.data.splits import load
from patsim_utils.method.matcher import Matcher
from patsim_utils.search import evaluation
from patsim_utils.search.index import Index

SHOWN = ["recall@10 of .75 or more", "recall@200 of .75 or more", *evaluation.ORDERS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--retriever", default="tuned")
    parser.add_argument("--candidates", type=int, nargs="*", default=[20, 50, 100], help="fewer for the blend, too")
    options = parser.parse_args()
    splits = load(options.data)
    corpus = evaluation.corpus(splits)
    index = Index(options.folder, retriever=options.retriever, create=True)
    index.add(corpus[len(index) :])
    matcher = evaluation.Remembering(Matcher.load(options.model))
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
    for count in options.candidates:
        name = f"blend, letters, of {count}"
        systems[name] = evaluation.reranked(evaluation.first(retriever, count), matcher)
    compared = evaluation.compare(systems, splits["validation"])
    compared = compared[compared["measure"].isin(SHOWN)].sort_values("measure", kind="stable")
    print(compared.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
