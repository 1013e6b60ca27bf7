"""The tops of the pages that are not about one run: each against a table made by hand."""

import re

import pandas as pd

from patsim_utils.study.pages import tops


def text_of(shown: object) -> str:
    """What is read of the top, without its chart."""
    markup = re.sub(r"<(figure|svg)\b.*?</\1>", "", shown._repr_html_(), flags=re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", markup).split())


def rates() -> pd.DataFrame:
    rows = []
    for system, rate in {"ours, pair": 30.0, "ours, packed": 60.0, "CrossEncoder": 20.0, "bi-encoder": 900.0}.items():
        for what, factor in {"training": 1, "1 x 100": 10}.items():
            rows.append({"system": system, "what": what, "rate": factor * rate, "times": rate / 20})
    return pd.DataFrame(rows)


def accuracy(low: float) -> pd.DataFrame:
    row = {"system": "ours, packed", "difference": 0.02, "difference_low": low, "difference_high": 0.05}
    return pd.DataFrame([row, row | {"system": "CrossEncoder", "difference_low": 0.0}])


def test_speed_is_that_of_our_fastest_beside_the_cross_encoder() -> None:
    text = text_of(tops.speed(rates(), accuracy(-0.01)))
    assert text.startswith("“ours, packed” answers at 3.0 times the speed of a cross-encoder and learns at 3.0 times")
    assert "is 0.020 higher, which may be chance." in text
    assert "100 candidates: 600 pairs a second" in text
    assert "is 0.020 higher, significantly." in text_of(tops.speed(rates(), accuracy(0.01)))


def effects() -> pd.DataFrame:
    rows = [
        ("base", "the base", "", float("nan"), float("nan"), float("nan"), 0.70),
        ("a", "squared <error>", "base", 0.03, 0.01, 0.05, 0.73),
        ("b", "no class", "base", -0.02, -0.05, 0.01, 0.68),
    ]
    columns = ["variant", "idea", "against", "difference", "difference_low", "difference_high", "pearson"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(low=table["pearson"] - 0.1, high=table["pearson"] + 0.1)


def test_an_ablation_shows_its_best_its_worst_and_how_many_are_sure() -> None:
    shown = tops.ablation(effects())
    assert "squared &lt;error&gt;" in shown._repr_html_()
    text = text_of(shown)
    assert text.startswith("Of 2 changes, 1 help significantly, most of all “squared &lt;error&gt;” (+0.030)")
    assert "+0.030 of Pearson by the best change: squared &lt;error&gt; (95 % interval +0.010 to +0.050)." in text
    assert "-0.020 by the worst: no class" in text
    assert "1 of 2 changes differ significantly" in text
    assert "<svg" in shown._repr_html_()
    nothing = text_of(tops.ablation(effects().assign(difference=float("nan"))))
    assert nothing == "No variant can be compared with another."


def test_the_highest_variant_stands_beside_the_best_of_the_bases() -> None:
    said = "“squared <error>” reaches the most: Pearson 0.730 [0.630, 0.830]; "
    assert tops.highest(effects()) == said + "the best of those it is compared with, “the base”, 0.700."
    assert tops.highest(effects().head(1)) == "“the base” reaches the most: Pearson 0.700 [0.600, 0.800]."


def test_a_search_shows_what_it_finds_where_that_was_measured() -> None:
    hits = pd.DataFrame({"phrase": ["mobile phone", "antenna"], "score": [0.92, 0.2]})
    options = {"query": "wireless handset", "milliseconds": 340.4}
    text = text_of(tops.search(hits, compared=None, **options))
    assert text.startswith(
        "For “wireless handset”: first is “mobile phone”, score 0.92; 1 of these 2 score .5 or more."
    )
    assert "340 ms a query takes here" in text
    values = {"recall@10 of .5 or more": 0.41, "recall@200 of .5 or more": 0.88, "nDCG@10 of rated": 0.7}
    rows = [{"system": tops.SEARCH, "measure": name, "value": value} for name, value in values.items()]
    text = text_of(tops.search(hits, compared=pd.DataFrame(rows).assign(low=0.1, high=0.9), **options))
    assert "41 % of what people rated .5 or more stands among the first 10." in text
    assert "88 % of it is among the 200 phrases" in text


def test_an_answer_for_a_person_names_the_likeliest_relation() -> None:
    order = {"similarity": [0.6], "found": [3], "order": [1.2]}
    hits = pd.DataFrame(
        {"rank": [1], "phrase": ["phone"], "score": [0.9], "narrower": [0.3], "broader": [0.6], "context": [""]} | order
    )
    shown = tops.without_order(hits)
    assert shown.to_dict("records") == [
        {"rank": 1, "phrase": "phone", "score": 0.9, "relation": "a broader term", "probability": 0.6}
    ]
    assert list(tops.without_order(hits.drop(columns=["narrower", "broader"]))) == ["rank", "phrase", "score"]
