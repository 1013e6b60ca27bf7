"""Is a model right where a person can judge? Pairs and triplets of `data/behaviour.csv`, written before any model.

A single pair says in which range its score has to lie, a triplet which of two targets has to have the higher score.
Nothing of the file is trained on, and no setting is tuned to it. But it is not quite blind: when the first shares had
been seen, opposites were added to what students learn, and phrases that differ in spaces, hyphens or spelling alone
became equal by definition.

`python -m patsim_utils.experiments.behaviour small runs/mine` prints the shares for two models.
"""

import json
import operator
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils.method import encoder
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights.folders import SHIPPED
from patsim_utils.ratings import RELATION_WORDS
from patsim_utils.study.explore import percent

FILE = Path(__file__).parents[1] / "data" / "behaviour.csv"
EXAMPLES = FILE.with_name("examples.csv")
NEAR = 0.25  # from a person's score: one step of the five
ORDER = "order"  # in the column `expected`: a triplet
# What the column `expected` of a pair begins with; a bare number is a score to be reached exactly.
COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
}
TOLERANCE = 1e-6  # of a score that is to be reached exactly

IN_WORDS = {
    "identical": "equal phrases: 1",
    "hyphen_or_space": "differ in hyphen or space: .7 or more",
    "spelling": "British and American spelling: .7 or more",
    "plural": "singular and plural: .7 or more",
    "word_order": "another order of words: .7 or more",
    "abbreviation": "abbreviation written out: .7 or more",
    "synonym": "synonyms: .6 or more",
    "unrelated": "unrelated, with a word in common: .3 or less",
    "synonym_before_antonym": "synonym above opposite",
    "narrower_before_unrelated": "narrower term above an unrelated one",
    "sense_by_class": "sense of the class above the other sense",
    "part_and_whole": "part above something unrelated",
}
# Equal by `is_one_phrase`, but for one spelling that its list lacks.
BY_DEFINITION = ("identical", "hyphen_or_space", "spelling")

Scorer = Callable[[pd.DataFrame], np.ndarray]  # rows of anchor, target, context -> scores (n,)


def read() -> pd.DataFrame:
    """The file: kind, anchor, target, context, expected, worse (the lower target of a triplet), note."""
    return pd.read_csv(FILE, keep_default_na=False, dtype=str)


def is_right(expected: str, score: float) -> bool:
    """Whether the score of a pair lies where it has to.

    >>> is_right(">=.7", 0.8), is_right("1", 0.8)
    (True, False)
    """
    for sign, compare in COMPARISONS.items():
        if expected.startswith(sign):
            return bool(compare(score, float(expected.removeprefix(sign))))
    return abs(score - float(expected)) < TOLERANCE


def judge(scorer: Scorer) -> pd.DataFrame:
    """The file with what a scorer says: `score`, `score_of_worse` (NaN for a pair) and `right`."""
    rows = read()
    triplet = rows["expected"] == ORDER
    rows["score"] = scorer(rows[["anchor", "target", "context"]])
    worse = rows.loc[triplet, ["anchor", "worse", "context"]].rename(columns={"worse": "target"})
    rows["score_of_worse"] = np.nan
    rows.loc[triplet, "score_of_worse"] = scorer(worse)
    pair_is_right = [
        expected == ORDER or is_right(expected, score)
        for expected, score in zip(rows["expected"], rows["score"], strict=True)
    ]
    order_is_right = rows["score"] > rows["score_of_worse"]
    rows["right"] = np.where(triplet, order_is_right, pair_is_right)
    return rows


def shares(scorers: dict[str, Scorer]) -> pd.DataFrame:
    """The share that is right, a row for each kind and a column for each scorer; `rows` counts them."""
    counts = read().groupby("kind", sort=False).size().rename("rows")
    columns = {name: judge(scorer).groupby("kind", sort=False)["right"].mean() for name, scorer in scorers.items()}
    return pd.concat([counts, pd.DataFrame(columns)], axis=1).reset_index()


def beside_shipped(scorer: Scorer) -> pd.DataFrame:
    """The shares of a run, of the models that ship as recorded with them, and of the pretrained cosine.

    Columns: kind, rows, this run, a column for each of these models, pretrained cosine.
    """
    table = shares({"this run": scorer, "pretrained cosine": encoder.pretrained_cosine})
    for path in sorted(SHIPPED.glob("*/figures.json")):
        recorded = json.loads(path.read_text("utf-8"))["behaviour"]
        table.insert(3, path.parent.name, table["kind"].map(recorded))
    return table


def sentence(table: pd.DataFrame) -> str:
    """Of `beside_shipped`: what the run is right and wrong about."""
    asked = table[~table["kind"].isin(BY_DEFINITION)]
    best = asked.loc[asked["this run"].idxmax()]
    worst = asked.loc[asked["this run"].idxmin()]
    return (
        f"Of what is not equal by definition it is right most often for “{IN_WORDS[best['kind']]}” "
        f"({percent(best['this run'])}) and least often for “{IN_WORDS[worst['kind']]}” "
        f"({percent(worst['this run'])})."
    )


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Of `beside_shipped`: kinds in words, shares in percent."""
    kinds = table["kind"].map(IN_WORDS)
    percents = table.drop(columns=["kind", "rows"]).map(percent)
    return pd.concat([kinds, table["rows"], percents], axis=1)


def examples(matcher: Matcher) -> pd.DataFrame:
    """Forty pairs of eight fields, each a hit where its score is NEAR a person's.

    Returns anchor, target, context, score, person, result (hit or miss), relation in words where the
    model has learned ratings, why.
    """
    rows = pd.read_csv(EXAMPLES, keep_default_na=False)
    predictions = matcher.read(rows[["anchor", "target", "context"]])
    rows.insert(3, "score", predictions.scores)
    is_near = (rows["score"] - rows["person"]).abs() <= NEAR
    rows.insert(5, "result", np.where(is_near, "hit", "miss"))
    if predictions.relations is not None:
        rows.insert(6, "relation", predictions.relations.idxmax(axis=1).map(RELATION_WORDS))
    return rows


def main() -> None:
    scorers: dict[str, Scorer] = {name: Matcher.load(name).score for name in sys.argv[1:]}
    scorers["pretrained cosine"] = encoder.pretrained_cosine
    print(shares(scorers).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
