"""What a model says of one pair, in words."""

import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.errors import clip
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATIONS, SCORES

# How an answer in words begins, by the least score of which it is true
VERDICTS = {
    0.875: "very likely the same",
    0.625: "probably nearly the same",
    0.375: "related: one narrower, broader or alike in structure",
    0.125: "of the same field, but something else",
    0.0: "unrelated",
}
# What each score means
MEANINGS = {
    0.0: "unrelated",
    0.25: "an opposite, a part, a whole or of the same field",
    0.5: "narrower, broader or alike in structure",
    0.75: "a synonym or an abbreviation",
    1.0: "the same",
}


def verdict(score: float) -> str:
    """A score in words.

    >>> verdict(0.9)
    'very likely the same'
    """
    return next(words for least, words in VERDICTS.items() if score >= least)


def ask(matcher: Matcher, anchor: str, target: str, *, context: str) -> str:
    """What the model says of one pair, in words: score, probability of each score, relation."""
    pair = pd.DataFrame({"anchor": [anchor], "target": [target], "context": [context]})
    predictions = matcher.read(pair)
    ratings = predictions.ratings
    score = float(predictions.scores[0])
    code = cpc.class_of(context) or context
    lines = [
        f"{clip(anchor)} and {clip(target)} in {code} ({matcher.titles.get(code, '')}): {verdict(score)}",
        f"score {score:.4f}",
    ]
    for value, probability in zip(SCORES, predictions.probabilities[0], strict=True):
        lines.append(f"  {value:<5g} {probability:.4f}  {MEANINGS[value]}")
    if ratings is not None:
        shares = {name: float(ratings[list(members)].sum(axis=1).iloc[0]) for name, members in RELATIONS.items()}
        ordered = sorted(shares, key=shares.__getitem__, reverse=True)
        lines.append("relation: " + ", ".join(f"{name} {shares[name]:.4f}" for name in ordered[:3]))
    return "\n".join(lines)
