"""What a search costs: seconds to make an index, milliseconds a query, memory, recall of the approximate index.

    python tools/search_bench.py --phrases 100000 --folder /tmp/bench --queries 1000

The corpus: the phrases of `--data` (sample, or a folder with train.csv), the titles of `--titles` (the official CPC
list, a zip), and combinations of their words until there are `--phrases`. The index stays in `--folder`, and what it
lacks is added; its queries are anchors of the data in their classes. Time does not depend on what the vectors are:
`--random` makes them at once, and the recall is then that of random vectors.
"""

import argparse
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.data.splits import load
from patsim_utils.environment import peak_memory
from patsim_utils.method.matcher import Matcher
from patsim_utils.search import retriever
from patsim_utils.search.index import Encode, Index
from patsim_utils.search.nearest import Approximate
from patsim_utils.search.search import CANDIDATES, Search
from patsim_utils.tool import scale

WARM = 5  # queries that are not counted
ALONE = 30  # queries at most that are given one by one
COMPARED = 20  # queries at most whose answers are compared with those alone
NEAREST = 100  # phrases of which the approximate index's recall is computed


def corpus(count: int, *, source: str, titles: str) -> pd.DataFrame:
    """`count` distinct phrases, each with a class."""
    rows = pd.concat(load(source).values())[["target", "context"]].set_axis(["phrase", "context"], axis=1)
    if titles:
        rows = pd.concat([rows, title_phrases(titles)])
    rows = rows.drop_duplicates("phrase")
    words = np.array(sorted({word for phrase in rows["phrase"] for word in re.findall("[a-z]{3,}", phrase)}))
    random = np.random.default_rng(0)
    classes = rows["context"].to_numpy()
    phrases = dict.fromkeys(rows["phrase"])
    while len(phrases) < count:
        for three in random.choice(words, (count, 3)):
            phrases[" ".join(three[: random.integers(2, 4)])] = None
    made = pd.DataFrame({"phrase": list(phrases)[:count]})
    made["context"] = random.choice(classes, count)
    made.loc[: len(rows) - 1, "context"] = classes[:count]
    return made


def title_phrases(path: str) -> pd.DataFrame:
    """The first phrase of each title of the official CPC list (a zip), with its class."""
    rows = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith(".txt"):
                continue
            for line in archive.read(name).decode("utf-8-sig").splitlines():
                code, _, title = line.split("\t")
                phrase = re.split("[;,({]", title)[0].strip().lower()
                rows.append({"phrase": phrase, "context": cpc.class_of(code)})
    frame = pd.DataFrame(rows)
    return frame[frame["context"].notna() & frame["phrase"].ne("")]


def timed(search: Callable, queries: pd.DataFrame, **options: int) -> dict[str, float]:
    """Milliseconds of a warm query, median and 95th percentile."""
    times = []
    for query in queries.itertuples():
        began = time.perf_counter()
        search(query.anchor, context=query.context, **options)
        times.append(1000 * (time.perf_counter() - began))
    median, high = np.percentile(times[WARM:], [50, 95]).round(1)
    return {"p50_ms": float(median), "p95_ms": float(high)}


def together(search: Search, queries: pd.DataFrame, **options: int) -> dict[str, float]:
    """Milliseconds, by the clock and of all cores, of each of many queries that are given together.

    `equal` is the share of COMPARED ones that have the same answer alone.
    """
    began = time.perf_counter()
    cpu = time.process_time()
    answers = search(queries["anchor"].to_list(), queries["context"].to_list(), **options)
    seconds = {"ms": time.perf_counter() - began, "cpu_ms": time.process_time() - cpu}
    costs = {name: round(1000 * value / len(queries), 1) for name, value in seconds.items()}
    equal = []
    for number, query in enumerate(queries.head(COMPARED).itertuples()):
        alone = search(query.anchor, query.context, **options)
        rows = answers.iloc[len(alone) * number :].head(len(alone))
        is_near = np.allclose(rows["score"], alone["score"], atol=2e-3)
        equal.append(is_near and rows["phrase"].tolist() == alone["phrase"].tolist())
    return costs | {"equal": float(np.mean(equal))}


def random_vectors(_: str, chunks: dict[int, pd.DataFrame]) -> Iterator[tuple[int, np.ndarray]]:
    """In the place of a retriever: unit vectors as wide as MiniLM's."""
    random = np.random.default_rng(0)
    for start, rows in chunks.items():
        vectors = random.standard_normal((len(rows), 384), dtype=np.float32)
        yield start, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def approximate_recall(index: Index, queries: pd.DataFrame) -> float:
    """Share of the NEAREST phrases by an exact search that LanceDB's own search has among its own."""
    vectors = retriever.vectors(index.model, queries["anchor"], precision="fp32")
    contexts = [""] * len(queries)
    options = {"count": NEAREST, "only_class": False}
    near = Approximate(index.table, index.columns)(vectors, contexts, **options).split(len(queries))
    exact = index.whole()(vectors, contexts, **options).split(len(queries))
    shares = [np.isin(a["phrase"], b["phrase"]).sum() / NEAREST for a, b in zip(exact, near, strict=True)]
    return round(float(np.mean(shares)), 4)


def make_index(rows: pd.DataFrame, folder: Path, *, name: str, encode: Encode | None) -> Index:
    """The index in a folder; phrases that it lacks are added, and what that takes is printed."""
    index = Index(folder, retriever=name, create=True)
    missing = rows[len(index) :]
    began = time.perf_counter()
    index.add(missing, encode=encode, progress=lambda done, total: print(f"{done:,} of {total:,}", flush=True))
    if len(missing):
        seconds = time.perf_counter() - began
        print(json.dumps({"phrases": len(missing), "seconds": round(seconds), "a second": len(missing) / seconds}))
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="small", help="small, large, or a run's folder")
    parser.add_argument("--retriever", default="tuned", help="tuned, minilm, mpnet, or a folder")
    parser.add_argument("--phrases", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="that the model reads of a query")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--titles", default="")
    parser.add_argument("--workers", type=int, default=0, help="of Ray, that read the phrases; 0: this process")
    parser.add_argument("--random", action="store_true", help="random vectors in place of the retriever's")
    options = parser.parse_args()
    encode = scale.encoder(options.workers) if options.workers else None
    if options.random:
        encode = random_vectors
    rows = corpus(options.phrases, source=options.data, titles=options.titles)
    index = make_index(rows, options.folder, name=options.retriever, encode=encode)
    queries = pd.concat(load(options.data).values())[["anchor", "context"]].drop_duplicates()
    queries = queries.sample(options.queries, random_state=0, replace=len(queries) < options.queries)
    search = Search(Matcher.load(options.run), index)
    costs = {
        "phrases": len(index),
        "indices": [index.index_type for index in index.table.list_indices()],
        "retrieval": timed(index.candidates, queries.head(ALONE), count=options.candidates),
        "search": timed(search, queries.head(ALONE), candidates=options.candidates),
        "together": together(search, queries, candidates=options.candidates),
        f"recall@{NEAREST} of the exact search": approximate_recall(index, queries.head(ALONE)),
        "peak_memory_mb": round(peak_memory()),
    }
    print(json.dumps(costs, indent=1))


if __name__ == "__main__":
    main()
