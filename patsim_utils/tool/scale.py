"""Several workers, on one machine or many, score pairs or read phrases, by Ray Data.

The extra `scale` installs Ray.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from patsim_utils.method.matcher import Matcher


def values(
    matcher: Matcher,
    pairs: pd.DataFrame,
    *,
    unknown: str,
    explain: bool,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Scores of checked pairs (n, 1).

    With `explain` also the probabilities of the five scores and, where the model has learned
    ratings, of the relations (n, 6 or 14).
    """
    predictions = matcher.read(pairs, unknown=unknown, progress=progress)
    columns = [predictions.scores[:, None]]
    if explain:
        columns.append(predictions.probabilities)
        if predictions.relations is not None:
            columns.append(predictions.relations.to_numpy())
    return np.concatenate(columns, axis=1)


class Scorer:
    """A worker: it loads the model once and scores whole parts."""

    def __init__(self, folder: Path, unknown: str, explain: bool) -> None:
        import torch

        from patsim_utils.method.matcher import Matcher

        torch.set_num_threads(1)  # a worker has one core
        self.matcher = Matcher.load(folder)
        self.unknown = unknown
        self.explain = explain

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        """anchor, target, context, part (its number) -> value (a row of `values`), part."""
        rows = part[["anchor", "target", "context"]]
        scores = values(self.matcher, rows, unknown=self.unknown, explain=self.explain)
        return pd.DataFrame({"value": list(scores), "part": part["part"].to_numpy()})


class Reader:
    """A worker: it loads a retriever once and reads whole parts."""

    def __init__(self, retriever: str) -> None:
        import torch

        from patsim_utils.search.retriever import load

        torch.set_num_threads(1)
        self.model = load(Path(retriever), "")

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        """phrase, part (its number) -> value (the vector), part."""
        from patsim_utils.search.retriever import vectors

        return pd.DataFrame({"value": list(vectors(self.model, part["phrase"])), "part": part["part"]})


def encoder(workers: int) -> Callable[[str, dict[int, pd.DataFrame]], Iterator[tuple[int, np.ndarray]]]:
    """What turns chunks of phrases into vectors by so many workers of Ray (`encode` of `Index.add`)."""

    def encode(retriever: str, chunks: dict[int, pd.DataFrame]) -> Iterator[tuple[int, np.ndarray]]:
        phrases = {number: rows[["phrase"]] for number, rows in chunks.items()}
        return mapped(Reader, (retriever,), phrases, workers=workers)

    return encode


def mapped(
    worker: type, arguments: tuple, parts: dict[int, pd.DataFrame], *, workers: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and values of each part of a table, in their order, as soon as one is done.

    The values are those that Scorer or Reader makes. The workers are actors of a running Ray
    cluster, else of one that is started here; what a lost worker had begun is done by another.
    They read the run's or the retriever's folder, which has to be there for all of them.
    """
    import ray

    if not parts:
        return
    workers = min(workers, len(parts))
    tables = [frame.assign(part=number).reset_index(drop=True) for number, frame in parts.items()]
    with cluster(workers):
        done = ray.data.from_pandas(tables).map_batches(
            worker,
            fn_constructor_args=arguments,
            batch_format="pandas",
            batch_size=None,  # a table is one block, and a block one batch: parts stay whole
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        for batch in done.iter_batches(batch_size=None, batch_format="pandas"):
            for number, rows in batch.groupby("part"):
                if len(rows) != len(parts[number]):
                    raise RuntimeError(f"part {number} came back with {len(rows)} of {len(parts[number])} rows")
                yield int(number), np.stack(rows["value"].to_numpy())


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """The Ray cluster that is running, or one on this machine while the context lasts; quiet.

    A running one is that of RAY_ADDRESS, or of `ray start` on this machine. ConnectionError where
    RAY_ADDRESS leads nowhere.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else a harmless E line for each pool of actors
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    begun = not ray.is_initialized()
    if begun:
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError:
            if "RAY_ADDRESS" in os.environ:  # it is not there; Ray has waited for it for minutes
                raise
            with _no_stderr():
                ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
    _quiet_ray_data()
    try:
        yield
    finally:
        if begun:
            ray.shutdown()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Hides what Ray's start prints, such as its level of log; where it fails it raises all the same."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _quiet_ray_data() -> None:
    """Hides progress bars and INFO lines of Ray Data; parts keep their order."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # another one writes a file
            handler.setLevel(logging.ERROR)
