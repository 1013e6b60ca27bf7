"""What a model says of one pair, in words."""

import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.errors import clip
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATION_WORDS, SCORES, in_words

DIGITS = 4  # of a score
MOST_RELATIONS = 3  # that are named
# What each score means
MEANINGS = {
    0.0: "unrelated",
    0.25: "an opposite, a part, a whole or of the same field",
    0.5: "narrower, broader or alike in structure",
    0.75: "a synonym or an abbreviation",
    1.0: "the same",
}


def ask(matcher: Matcher, anchor: str, target: str, *, context: str) -> str:
    """What the model says of one pair, in words: score, probability of each score, relation."""
    pair = pd.DataFrame({"anchor": [anchor], "target": [target], "context": [context]})
    predictions = matcher.read(pair)
    score = round(float(predictions.scores[0]), DIGITS)
    code = cpc.class_of(context) or context
    lines = [
        f"{clip(anchor)} and {clip(target)} in {code} ({matcher.titles.get(code, '')}): {in_words(score)}",
        f"score {score:.4f}",
    ]
    for value, probability in zip(SCORES, predictions.probabilities[0], strict=True):
        lines.append(f"  {value:<5g} {probability:.4f}  {MEANINGS[value]}")
    if predictions.relations is not None:
        likeliest = predictions.relations.iloc[0].nlargest(MOST_RELATIONS)
        words = [f"{RELATION_WORDS[name]} {probability:.4f}" for name, probability in likeliest.items()]
        lines.append(f"the second is most probably: {', '.join(words)}")
    return "\n".join(lines)
