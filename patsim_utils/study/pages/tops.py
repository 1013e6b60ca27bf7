"""What stands on top of the pages that are not about one run: verdict, three tiles, chart.

Each is computed from the tables of its notebook, and holds for whatever was measured.
"""

import pandas as pd

from patsim_utils.ratings import RELATION_WORDS
from patsim_utils.study import answers, plots
from patsim_utils.study.explore import duration, interval, percent
from patsim_utils.study.look.figures import Picture
from patsim_utils.study.look.markup import Shown, top

QUERY = "1 x 100"  # of `benchmark.rates`: one phrase with so many candidates
SEARCH = "retriever, reranked"  # of `evaluation.compare`: what `patsim search` does
# Of `evaluation.compare`, in words
FOUND = {
    "recall@10 of .5 or more": "of what people rated .5 or more stands among the first 10.",
    "recall@200 of .5 or more": "of it is among the 200 phrases that the model reads.",
}
DIFFERENCE = "difference of Pearson, 95 % interval"


def speed(rates: pd.DataFrame, accuracy: pd.DataFrame) -> Shown:
    """Of `benchmark.rates` and `benchmark.accuracy`: the fastest of our systems beside the cross-encoder."""
    own = rates[rates["system"].str.startswith("ours")]
    system = answers.fastest(own, what=QUERY)["system"]
    figures = own[own["system"] == system].set_index("what")
    row = accuracy.set_index("system").loc[system]
    difference = row["difference"]
    sure = _is_sure(accuracy).loc[accuracy["system"] == system].item()
    words = "significantly" if sure else "which may be chance"
    more = "higher" if difference >= 0 else "lower"
    answering = f"{figures.loc[QUERY, 'times']:.1f} times"
    learning = f"{figures.loc['training', 'times']:.1f} times"
    verdict = f"“{system}” answers at {answering} the speed of a cross-encoder and learns at {learning} its speed; "
    verdict += f"its correlation with people's scores is {abs(difference):.3f} {more}, {words}."
    figure = interval(difference, row["difference_low"], row["difference_high"])
    tiles = [
        (answering, f"the speed for one phrase with 100 candidates: {figures.loc[QUERY, 'rate']:,.0f} pairs a second."),
        (learning, f"the speed in training: {figures.loc['training', 'rate']:,.0f} pairs a second."),
        (f"{difference:+.3f}", f"of Pearson beside the cross-encoder: {figure}, {words}."),
    ]
    queries = rates[rates["what"] == QUERY]
    caption = "One phrase with 100 candidates"
    return top(
        verdict, tiles, plots.bars(queries, "system", "rate", axis="pairs a second", caption=caption, own="ours")
    )


def ablation(effects: pd.DataFrame) -> Shown:
    """Of `comparison.effects`: what helps and harms most, and how much of it is sure."""
    table = effects.dropna(subset="difference")
    verdict = answers.helps(effects)
    if table.empty:
        return top(verdict, [], None)
    best = table.loc[table["difference"].idxmax()]
    worst = table.loc[table["difference"].idxmin()]
    sure = f"{_is_sure(table).sum()} of {len(table)}"
    tiles = [
        (f"{best['difference']:+.3f}", f"of Pearson by the best change: {best['idea']} ({_range(best)})."),
        (f"{worst['difference']:+.3f}", f"by the worst: {worst['idea']} ({_range(worst)})."),
        (sure, "changes differ significantly; of twenty without any effect, one does by chance."),
    ]
    caption = "What each change adds to the variant it is measured against"
    return top(verdict, tiles, plots.forest(table, "idea", value="difference", axis=DIFFERENCE, caption=caption))


def highest(effects: pd.DataFrame) -> str:
    """Of `comparison.effects`: the variant with the highest correlation, beside the first base."""
    best = effects.loc[effects["pearson"].idxmax()]
    sentence = f"“{best['idea']}” reaches the most: Pearson {interval(best['pearson'], best['low'], best['high'])}"
    bases = effects[effects["variant"].isin(effects["against"])]
    if bases.empty or best["variant"] in set(bases["variant"]):
        return f"{sentence}."
    base = bases.loc[bases["pearson"].idxmax()]
    return f"{sentence}; the best of those it is compared with, “{base['idea']}”, {base['pearson']:.3f}."


def _is_sure(table: pd.DataFrame) -> pd.Series:
    """Whether the interval of each difference leaves out zero."""
    return (table["difference_low"] > 0) | (table["difference_high"] < 0)


def _range(row: pd.Series) -> str:
    return f"95 % interval {row['difference_low']:+.3f} to {row['difference_high']:+.3f}"


def search(hits: pd.DataFrame, *, query: str, milliseconds: float, compared: pd.DataFrame | None) -> Shown:
    """Of a search's answer, the time of a query, and `evaluation.compare` where it was measured."""
    sentence = answers.nearest(hits)
    verdict = f"For “{query}”: {sentence[0].lower()}{sentence[1:]}"
    tiles = [(brief(milliseconds), "a query takes here, in the middle of those that were timed.")]
    if compared is None:
        return top(verdict, tiles, None)
    rows = compared[compared["system"] == SEARCH].set_index("measure")
    shares = [(percent(rows.loc[measure, "value"]), words) for measure, words in FOUND.items()]
    return top(verdict, [*shares, *tiles], order(compared))


def brief(milliseconds: float) -> str:
    """A time as one says it.

    >>> brief(340.4), brief(1299)
    ('340 ms', '1.3 s')
    """
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return duration(milliseconds / 1000)


def without_order(hits: pd.DataFrame) -> pd.DataFrame:
    """A search's answer for a person: the likeliest relation in words, and nothing of how the order was made."""
    relations = hits.filter(list(RELATION_WORDS))
    shown = hits.drop(columns=["found", "similarity", "order", *relations])
    shown = shown.loc[:, shown.ne("").any()]  # such as context, where the corpus has none
    if relations.empty:
        return shown
    shown.insert(3, "relation", relations.idxmax(axis=1).map(RELATION_WORDS))
    shown.insert(4, "probability", relations.max(axis=1))
    return shown


def order(compared: pd.DataFrame) -> Picture | Shown:
    """How well each system of `evaluation.compare` orders the first ten."""
    rows = compared[compared["measure"] == "nDCG@10 of rated"]
    axis = "nDCG@10 of rated phrases, 95 % interval"
    return plots.forest(rows, "system", value="value", axis=axis, caption="Order of the first ten")
