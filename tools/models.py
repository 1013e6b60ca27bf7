"""Models side by side: Pearson on validation, paired differences, and pairs a second beside a CrossEncoder.

    python tools/models.py small large runs/mine --data path/to/folder
    python tools/models.py small --threads 1 2

Differences are to the first model, paired over anchors. Each model is the name of one that ships, or a run. Speed is
measured where --threads is there; run it on a machine that has nothing else to do.
"""

import argparse

import torch

from patsim_utils import metrics
from patsim_utils.data.splits import load
from patsim_utils.errors import counted
from patsim_utils.experiments.shipping import speed
from patsim_utils.method.matcher import Matcher


def print_scores(matchers: dict[str, Matcher], data: str) -> None:
    frame = load(data)["validation"]
    scores = {name: matcher.predictions(frame).scores for name, matcher in matchers.items()}
    first, *others = scores
    for name, values in scores.items():
        result = metrics.evaluate(frame, values)
        low, high = result["pearson_ci"]
        print(f"{name}: Pearson {result['pearson']:.4f} [{low:.3f}, {high:.3f}] on {len(frame):,} pairs", flush=True)
    for name in others:
        paired = metrics.paired_difference(frame["anchor"], frame["score"], [scores[first]], [scores[name]])
        interval = "[{low:+.3f}, {high:+.3f}]".format(**paired)
        print(f"{name} less {first}: {paired['difference']:+.4f} {interval}, paired over anchors")


def print_speed(name: str, matcher: Matcher) -> None:
    measured = speed(matcher, matcher.config)
    for query, rates in measured["rates"].items():
        own, other = rates["pairs_per_second"], rates["cross_encoder"]
        threads = f"{counted(measured['threads'], 'thread')}, {measured['precision']}"
        print(f"{name}, {query}, {threads}: {own:,.0f} pairs a second, {own / other:.2f} times a CrossEncoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", help="score its validation pairs")
    parser.add_argument("--threads", type=int, nargs="*", default=[], help="measure the speed with so many threads")
    options = parser.parse_args()
    matchers = {name: Matcher.load(name) for name in options.models}
    if options.data:
        print_scores(matchers, options.data)
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, matcher in matchers.items():
            print_speed(name, matcher)


if __name__ == "__main__":
    main()
