"""From one phrase to the phrases of a corpus that mean the same in a class: a retriever finds, a matcher ranks.

The corpus lies in an `Index`, a LanceDB table on disk: phrases with the unit vectors of a retriever (a
sentence-transformers model), which can be added to, and which a kill leaves as it was before the last `add`.
"""

import hashlib
import json
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from patsim_utils import storage
from patsim_utils.data import cpc
from patsim_utils.data.pairs import normalise
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method import backbones
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATIONS
from patsim_utils.search.index import Encode, Index, _fingerprint, read_corpus


class Search:
    """An index and a matcher: `Search.open(run, corpus)("wireless handset", context="H04")`."""

    def __init__(self, matcher: Matcher, index: Index) -> None:
        self.matcher, self.index = matcher, index

    @classmethod
    def open(
        cls,
        run: str | Path,
        corpus: str | Path,
        *,
        retriever: str = "auto",
        encode: Encode | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """The model of a run and the index of a corpus: a table with a column phrase, the folder of an index, or the
        bare word "sample" for the targets of the sample.

        The index of a table lies beside it, in <table>.index, and is made where it is missing, or the table or the
        retriever is another one. `retriever`: "auto" is that of the run (notebook 6 trains it), else MiniLM. `encode`
        and `progress` as in `Index.add`.
        """
        matcher, run = Matcher.load(run), Path(run)
        if retriever == "auto":
            own = (run.parent if run.name == "model" else run) / "retriever"
            retriever = str(own) if own.is_dir() else "minilm"
        if corpus == "sample":
            corpus = backbones.cache_folder() / "sample.csv"
            corpus.parent.mkdir(parents=True, exist_ok=True)
            storage.write_text(corpus, _sample().to_csv(index=False))
        corpus = Path(corpus)
        if corpus.is_dir():
            return cls(matcher, Index(corpus, retriever=retriever))
        folder = corpus.with_name(f"{corpus.name}.index")
        model = _fingerprint(Path(backbones.path(retriever)))
        try:
            digest = hashlib.sha256(model.encode() + corpus.read_bytes()).hexdigest()  # of table and retriever
        except OSError as error:
            raise InputError(f"{named(corpus)}: cannot be read ({error.strerror})") from error
        known, note = folder / "corpus.json", json.dumps({"sha256": digest})

        def current() -> bool:
            return known.is_file() and known.read_bytes() == note.encode()

        if current():  # nothing is to be written, so that the folder may be read-only
            return cls(matcher, Index(folder, retriever=retriever))
        with storage.lock(corpus.with_name(f".{corpus.name}.lock"), named(folder)):
            if not current():  # nor has another process written it meanwhile
                frame = read_corpus(corpus)
                fresh = corpus.with_name(f".{corpus.name[:50]}.{digest[:12]}.new")
                for other in {*corpus.parent.glob(f".{escape(corpus.name[:50])}.{12 * '[0-9a-f]'}.new")} - {fresh}:
                    storage.remove(other)  # begun for what the table was before
                index = Index(fresh, retriever=retriever, create=True)
                done = len(index)  # whole chunks outlive a break
                index.add(frame.iloc[done:], encode=encode, progress=progress)
                storage.write_text(fresh / "corpus.json", note)
                storage.swap(fresh, folder)
        return cls(matcher, Index(folder, retriever=retriever))

    def __call__(
        self, query: str, *, context: str, top: int = 20, candidates: int = 100, only_class: bool = False
    ) -> pd.DataFrame:
        """The best `top` phrases: rank, phrase, score, the probability of each of RELATIONS where the model has
        learned ratings, found (the retriever's rank), similarity, and the corpus's other columns.
        """
        code = checked(query, context)
        rows = self.index.candidates(query, context=code, count=candidates, only_class=only_class)
        pairs = pd.DataFrame({"anchor": query, "target": rows["phrase"], "context": code})
        predictions = self.matcher.read(pairs)
        ratings = predictions.ratings
        answer = pd.DataFrame({"phrase": rows["phrase"], "score": predictions.scores})
        if ratings is not None:
            answer = answer.assign(**{name: ratings[list(of)].sum(axis=1) for name, of in RELATIONS.items()})
        answer = answer.join(rows.drop(columns="phrase"))
        answer = answer.sort_values("score", ascending=False, kind="stable", ignore_index=True).head(top)
        answer.insert(0, "rank", np.arange(1, len(answer) + 1))
        return answer.round(4)


def checked(query: str, context: str) -> str:
    """The class in which a query is searched; InputError where that is none, or the query no phrase."""
    if not normalise(query):
        raise InputError(f"query: {clip(query)} is no phrase")
    if (code := cpc.class_of(context)) is None:
        raise InputError(f"--context: {clip(context)} is no CPC class, such as H04")
    return code


def _sample() -> pd.DataFrame:
    rows = pd.concat(load("sample").values())[["target", "context"]].drop_duplicates()
    return rows.rename(columns={"target": "phrase"})
