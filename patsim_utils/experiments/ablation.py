"""The ablation: the runs of all variants, one by one and resumably.

A variant and seed is the run `<folder>/<variant>-seed<k>`, made by a process of its own. Its
numbers are kept, its model is not.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data.splits import load, subset
from patsim_utils.errors import InputError, named
from patsim_utils.experiments.processes import Processes
from patsim_utils.experiments.variants import Variant
from patsim_utils.method.matcher import Matcher
from patsim_utils.training import runs
from patsim_utils.training.fit import check_ratings, fit

_load = lru_cache(4)(load)


class VariantsError(RuntimeError):
    """Some variants failed; the message names each with the last line that it wrote."""


@dataclass(frozen=True)
class Job:
    """One run to be made: a variant with a seed, on a share of the training anchors."""

    variant: Variant
    seed: int
    share: float
    folder: Path  # of the run

    @property
    def config(self) -> Config:
        return self.variant.with_seed(self.seed)

    @property
    def turn(self) -> int:
        """0 for the first seed of a variant, 1 for the second."""
        return self.seed - self.variant.config.seed

    def beside(self, ending: str) -> Path:
        """A file beside the run's folder."""
        return self.folder.with_name(f"{self.folder.name}.{ending}")

    def splits(self) -> dict[str, pd.DataFrame]:
        return splits_of(self.variant, share=self.share)

    def write(self) -> None:
        """Puts the job down for the process that runs it."""
        request = {"variant": self.variant.model_dump(), "seed": self.seed, "share": self.share}
        storage.write_text(self.beside("request.json"), json.dumps(request))

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """What `write` put down."""
        request = json.loads(folder.with_name(f"{folder.name}.request.json").read_text())
        variant = Variant.model_validate(request["variant"])
        return cls(variant, seed=request["seed"], share=request["share"], folder=folder)


def run_variants(variants: Sequence[Variant], folder: Path, *, share: float = 1.0, processes: int = 1) -> None:
    """Runs what is not done, every variant's first seed before any second one.

    A killed run goes on from its checkpoint.

    Args:
        share: of the training anchors, in (0, 1], the same ones for all variants.
        processes: that train at the same time and share the cores, at least 1.

    Raises:
        InputError: a run of other settings or data is there, or one cannot be trained. Nothing
            has been trained then.
        VariantsError: some runs failed; all others have been made.
    """
    if not 0 < share <= 1:
        raise InputError(f"share {share} is to be in (0, 1]")
    if processes < 1:
        raise InputError(f"processes {processes} is to be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    jobs: dict[Path, Job] = {}
    for variant in variants:
        for seed, run in variant.runs(folder).items():
            jobs[run] = Job(variant, seed=seed, share=share, folder=run)
    waiting = [job for job in jobs.values() if not _done(job)]
    waiting.sort(key=lambda job: job.turn)
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are there already", flush=True)
    failures = _run(waiting, processes=processes)
    if failures:
        raise VariantsError("; ".join(failures))


def _done(job: Job) -> bool:
    """Whether the run is there; else puts the job down, once it is sure that it can be trained."""
    job.write()
    splits = job.splits()
    try:
        if runs.finished(job.config, splits, job.folder):
            return True
        if job.turn == 0:
            check_ratings(splits, job.config)
            Matcher(job.config)
    except InputError as error:
        raise InputError(f"variant {job.variant.name} ({named(job.folder)}): {error}") from error
    return False


def _run(jobs: Sequence[Job], *, processes: int) -> list[str]:
    """Runs the jobs, some at a time; what failed, with its last line."""
    threads = max(1, torch.get_num_threads() // processes)  # for computing, in each process
    children = Processes()
    began = time.time()
    failures = []
    with ThreadPoolExecutor(processes) as pool:
        started = {}
        for job in jobs:
            options = {"threads": threads, "log": job.beside("log")}
            future = pool.submit(children.run, "ablation", job.folder, **options)
            started[future] = job.folder.name
        try:
            for count, future in enumerate(as_completed(started), 1):
                name = started[future]
                ended = future.result()
                if ended.status:
                    failures.append(f"{name}: {ended.message} (status {ended.status})")
                minutes = (time.time() - began) / count * (len(jobs) - count) / 60
                print(
                    f"{count} of {len(jobs)}: {name}, {ended.message}; about {minutes:,.0f} min left",
                    flush=True,
                )
        except BaseException:  # such as a signal to this process alone: its runs are to stop, too
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
    return failures


def splits_of(variant: Variant, *, share: float) -> dict[str, pd.DataFrame]:
    """The splits of all seeds of a variant, with a `share` of the training anchors."""
    config = variant.config
    splits = _load(config.data, protocol=config.protocol, seed=config.seed)
    splits = subset(splits, share, protocol=config.protocol, seed=0)
    if variant.shuffle_context:
        return {name: _shuffled_classes(frame) for name, frame in splits.items()}
    return splits


def _shuffled_classes(frame: pd.DataFrame) -> pd.DataFrame:
    """The groups, of one anchor in one class each, trade their classes."""
    # The number of each row's group, in the order in which groups appear.
    number = frame.groupby(["anchor", "context"], sort=False).ngroup()
    contexts = frame.drop_duplicates(["anchor", "context"])["context"].to_numpy()
    order = np.random.default_rng(0).permutation(len(contexts))
    return frame.assign(context=contexts[order][number])


def main() -> None:
    """The process of one run: trains what the job beside the folder says, and drops the model."""
    job = Job.read(Path(sys.argv[1]))
    metrics = fit(job.splits(), job.config, job.folder)
    shutil.rmtree(job.folder / "model", ignore_errors=True)
    print(f"Pearson {metrics['validation']['pearson']:.4f}")


if __name__ == "__main__":
    main()
