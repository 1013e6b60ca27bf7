"""What a search costs: seconds to make an index, milliseconds a query, memory, recall of the approximate index.

    python tools/search_bench.py --run runs/sample --phrases 100000 --folder /tmp/bench

The corpus: the phrases of `--data` (sample, or a folder with train.csv), the titles of `--titles` (the official CPC
list, a zip), and combinations of their words until there are `--phrases`. The index stays in `--folder` and is gone on
with; its queries are anchors of the data in their classes.
"""

import argparse
import json
import re
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.data.splits import load
from patsim_utils.method.matcher import Matcher
from patsim_utils.search.index import PROBES, Index
from patsim_utils.search.retriever import vectors
from patsim_utils.search.search import Search
from patsim_utils.tool import scale


def corpus(count: int, *, source: str, titles: str) -> pd.DataFrame:
    """`count` distinct phrases, each with a class."""
    rows = pd.concat(load(source).values())[["target", "context"]].set_axis(["phrase", "context"], axis=1)
    if titles:
        with zipfile.ZipFile(titles) as archive:
            texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".txt")]
        lines = [line.split("\t") for text in texts for line in text.splitlines()]
        named = [(re.split("[;,({]", title)[0].strip().lower(), cpc.class_of(code)) for code, _, title in lines]
        rows = pd.concat([rows, pd.DataFrame(named, columns=rows.columns)])
        rows = rows[rows["context"].notna() & rows["phrase"].ne("")]
    rows = rows.drop_duplicates("phrase")
    words = np.array(sorted({word for phrase in rows["phrase"] for word in re.findall("[a-z]{3,}", phrase)}))
    random, classes = np.random.default_rng(0), rows["context"].to_numpy()
    found = dict.fromkeys(rows["phrase"])
    while len(found) < count:
        for three in random.choice(words, (count, 3)):
            found[" ".join(three[: random.integers(2, 4)])] = None
    found = pd.DataFrame({"phrase": list(found)[:count]}).assign(context=random.choice(classes, count))
    found.loc[: len(rows) - 1, "context"] = classes[:count]
    return found


def timed(ask: Callable, queries: pd.DataFrame) -> dict[str, float]:
    """Milliseconds of a warm query, median and 95th percentile."""
    taken = []
    for query in queries.itertuples():
        began = time.perf_counter()
        ask(query.anchor, context=query.context)
        taken.append(1000 * (time.perf_counter() - began))
    return dict(zip(("p50_ms", "p95_ms"), np.percentile(taken[5:], [50, 95]).round(1).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--phrases", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--titles", default="")
    parser.add_argument("--workers", type=int, default=0, help="of Ray, that read the phrases; 0: this process")
    given = parser.parse_args()
    rows = corpus(given.phrases, source=given.data, titles=given.titles)
    index = Index(given.folder, retriever="minilm", create=True)
    done, began = len(index), time.perf_counter()
    encode = scale.encoder(given.workers) if given.workers else None
    index.add(rows[done:], encode=encode, progress=lambda n, of: print(f"{n:,} of {of:,}", flush=True))
    if done < len(rows):
        seconds, read = time.perf_counter() - began, len(rows) - done
        print(json.dumps({"phrases": read, "seconds": round(seconds), "a second": read / seconds}))
    queries = load(given.data)["validation"][["anchor", "context"]].drop_duplicates()
    queries = queries.sample(given.queries, random_state=0, replace=len(queries) < given.queries)
    found = {"phrases": len(index), "indices": [one.index_type for one in index.table.list_indices()]}
    found["retrieval"] = timed(index.candidates, queries)
    found["search"] = timed(Search(Matcher.load(given.run), index), queries)
    shared = []
    for query in queries.itertuples():
        vector = vectors(index.model, [query.anchor])[0]
        near = index.table.search(vector).distance_type("dot").nprobes(PROBES).refine_factor(2)
        exact = index.table.search(vector).distance_type("dot").bypass_vector_index()
        first = [{*asked.select(["phrase", "_distance"]).limit(100).to_pandas()["phrase"]} for asked in (near, exact)]
        shared.append(len(first[0] & first[1]) / 100)
    found["recall@100 of the exact search"] = round(float(np.mean(shared)), 4)
    found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
