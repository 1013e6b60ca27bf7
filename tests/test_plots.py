"""Every figure: displayed once, with a caption and an alternative text of its own numbers, and nothing left
open."""

import html
import re
from base64 import b64decode

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from patsim_utils import analysis, cpc, plots
from patsim_utils.evidence import EVIDENCE
from patsim_utils.ordinal import to_score

TITLES = cpc.titles()
SETTINGS = {
    "context_text": "title",
    "fusion": "add",
    "cpc_dim": 50,
    "adapter": "lora",
    "lora_rank": 8,
    "lora_alpha": 16,
    "pooling": "span",
    "loss": "smooth_k2",
    "alpha": 4.0,
    "beta": 0.25,
    "contrast": "ntxent",
    "contrast_weight": 0.4,
    "rating_weight": 0.0,
    "temperature": 0.1,
    "separate_layers": 0,
    "evidence": "none",
    "stack": 0,
    "contrast_layer": 3,
}


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """The HTML of what a plot function displays."""
    pages: list[str] = []
    monkeypatch.setattr(plots, "display", lambda page: pages.append(page.data))
    plots.setup()
    return pages


@pytest.fixture
def splits() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)

    def frame(first: int, anchors: int) -> pd.DataFrame:
        n = anchors * 10
        rating = rng.choice(list(analysis.RATINGS), n)
        return pd.DataFrame(
            {
                "anchor": np.repeat([f"anchor {first + i}" for i in range(anchors)], 10),
                "target": [f"target {i} <b>" if i % 3 else f"anchor {i}" for i in range(n)],
                "context": rng.choice(["A01", "A61", "G06", "H01", "H04"], n),
                "score": [int(letter[0]) / 4 for letter in rating],
                "rating": rating,
            }
        )

    return {"train": frame(0, 12), "validation": frame(100, 8), "test": frame(200, 9)}


@pytest.fixture
def scored(splits) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = splits["validation"].assign(split="validation")
    return analysis.with_errors(frame.assign(prediction=np.clip(frame["score"] + rng.normal(0, 0.2, 80), 0, 1)))


@pytest.fixture
def history() -> pd.DataFrame:
    step = np.arange(1, 41)
    return pd.DataFrame(
        {
            "step": step,
            "ordinal": 2 / step,
            "contrast": 1 / step,
            "rating": 0.0,
            "learning_rate": 1e-3 * step / 40,
            "grad_norm": 1.0,
        }
    )


def numbers() -> dict:
    found = {"n": 80, "pearson": 0.5, "pearson_ci": [0.4, 0.6], "spearman": 0.45, "mae": 0.2, "qwk": 0.3}
    splits = {split: found for split in ("validation", "test")}
    rounds = [{"epoch": i, "seconds": 10.0 * i, "pearson": 0.4 + i / 10} for i in (1, 2)]
    return splits | {
        "baselines": {"word_jaccard": splits, "zero_shot": splits},
        "epochs": rounds,
        "leak": {"validation": found},
    }


def figure(shown: list[str]) -> tuple[str, str]:
    """Caption and alternative text of the one figure shown, after the checks that hold for all of them."""
    assert len(shown) == 1
    (page,) = shown
    picture = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert picture, page[:200]
    png = b64decode(picture[1])
    assert png.startswith(b"\x89PNG")
    assert len(png) < 150_000
    assert "http" not in page
    caption, alt = (
        re.search(pattern, page, flags=re.DOTALL)[1]
        for pattern in (r"<figcaption[^>]*>(.+)</figcaption>", r'alt="([^"]+)"')
    )
    for text in (caption, alt):
        assert re.search(r"\d", text), "no number in it"
        assert "nan" not in re.findall(r"\w+", text.lower())
    assert plt.get_fignums() == []
    return html.unescape(caption), html.unescape(alt)


def test_explore_figures(shown, splits):
    rng = np.random.default_rng(0)
    held = analysis.held_out(splits)
    cosine = {split: rng.random(len(frame)) for split, frame in held.items()}
    tokens = {split: rng.integers(9, 30, len(frame)) for split, frame in splits.items()}
    calls = {
        "test": lambda: plots.score_shares(analysis.score_shares(splits)),
        "hyponym": lambda: plots.rating_shares(analysis.rating_shares(splits).iloc[[2]]),
        "validation": lambda: plots.section_shares(analysis.section_shares(splits, titles=TITLES)),
        "classes": lambda: plots.class_counts(analysis.class_counts(splits, titles=TITLES)),
        "groups": lambda: plots.group_sizes(analysis.group_sizes(splits)),
        "tokens": lambda: plots.lengths(analysis.word_counts(splits), tokens),
        "Medians": lambda: plots.similarity_by_score(analysis.similarity_by_score(splits, cosine)),
        "word-Jaccard on validation": lambda: plots.results(analysis.words_alone(splits, cosine, resamples=50)),
    }
    for word, call in calls.items():
        shown.clear()
        call()
        assert word in figure(shown)[0]


def test_train_figures(shown, history):
    calls = {
        "ordinal 2.00 to": lambda: plots.losses(history),
        "at step 40 of 40": lambda: plots.learning_rate(history),
        "0.600 after epoch 2 (20 s)": lambda: plots.epochs(numbers()),
        "trained model on test 0.500 [0.400, 0.600]": lambda: plots.results(analysis.results(numbers())),
        "random rows 0.500 [0.400, 0.600]": lambda: plots.leak(analysis.leak(numbers())),
    }
    for word, call in calls.items():
        shown.clear()
        call()
        caption, alt = figure(shown)
        assert word in caption
        assert word in alt


def test_a_run_without_contrast_or_leak(shown, history):
    plots.losses(history.assign(contrast=0.0))
    assert "contrast" not in figure(shown)[0]
    shown.clear()
    plots.leak(analysis.leak({}))
    assert shown == []


def test_the_loss_of_the_ratings_has_a_panel_of_its_own(shown, history):
    plots.losses(history.assign(rating=1.5))
    caption = figure(shown)[0]
    assert "rating 1.50 to 1.50" in caption


@pytest.mark.parametrize("fusion", ["add", "gate", "attention", "none"])
@pytest.mark.parametrize("contrast", ["ntxent", "cosent", "none"])
def test_method_diagram(shown, fusion, contrast):
    plots.method(SETTINGS | {"fusion": fusion, "contrast": contrast})
    caption, _ = figure(shown)
    assert ("no class vector" in caption) == (fusion == "none")
    assert ("contrastive loss" in caption) == (contrast != "none")
    assert "evidence" not in caption
    for kind in EVIDENCE[1:]:
        plots.method(SETTINGS | {"fusion": fusion, "contrast": contrast, "evidence": kind})
        assert f"with evidence beside it ({kind})" in figure(shown[-1:])[0]
    plots.method(SETTINGS | {"fusion": fusion, "contrast": contrast, "evidence": "all", "stack": 2})
    assert "with evidence beside it (all, stack of 2)" in figure(shown[-1:])[0]


def test_error_figures(shown, scored):
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(5), len(scored))
    sections = analysis.by_group(scored, "section", min_rows=10, resamples=50)
    scores = {"right class": scored["prediction"], "no class": rng.random(len(scored))}
    effect = analysis.context_effect(scored, scores, resamples=50)
    calls = {
        f"{sections['pearson'][0]:.3f}": lambda: plots.groups(sections, "section", whole=scored, titles=TITLES),
        "Right at 0": lambda: plots.confusion(analysis.confusion(scored)),
        "10 bins of about 8 pairs": lambda: plots.calibration(analysis.calibration(scored, resamples=50)),
        "expected": lambda: plots.rank_shares(analysis.rank_shares(scored, probabilities, resamples=50)),
        "Mean prediction by rating": lambda: plots.by_rating(analysis.by_rating(scored, resamples=50)),
        "8 hardest anchors": lambda: plots.anchor_errors(analysis.anchor_errors(scored), show_pairs=True),
        "Does the model need the class": lambda: plots.context_effect(effect),
    }
    for word, call in calls.items():
        shown.clear()
        call()
        assert word in figure(shown)[0]


def test_map_of_the_classes(shown):
    rng = np.random.default_rng(0)
    classes = [code for code in cpc.CODES if cpc.is_class(code)]
    table = pd.DataFrame({"code": classes, "section": [cpc.section(code) for code in classes], "pairs": 0})
    table = table.assign(x=rng.random(len(table)), y=rng.random(len(table)))
    table.loc[table["code"] == "H04", "pairs"] = 7
    plots.cpc_map(table)
    assert f"1 of {len(classes)} classes have scored pairs (by section: H 1)" in figure(shown)[0]


def test_where_there_is_nothing_to_draw_a_sentence_stands(shown, scored):
    bare = scored.drop(columns="rating")
    plots.groups(analysis.by_group(scored, "context", min_rows=81), "class", whole=scored)
    plots.by_rating(analysis.by_rating(bare))
    plots.rating_shares(analysis.rating_shares({"train": bare}))
    plots.anchor_errors(analysis.anchor_errors(scored, min_rows=99), show_pairs=True)
    plots.cpc_map(analysis.cpc_map(pd.DataFrame(), counts=pd.Series(dtype=int)))
    plots.table(pd.DataFrame({"a": []}), "Empty.")
    plots.search_table(pd.DataFrame({"a": []}), "Empty.")
    assert len(shown) == 7
    for page in shown:
        assert re.fullmatch(r'<p class="note">[A-Z].+\.</p>', page)


def test_no_phrase_is_shown_where_pairs_are_not(shown, scored, splits):
    worst = analysis.worst_pairs(scored, titles=TITLES)
    plots.worst_pairs(worst, show_pairs=False)
    plots.anchor_errors(analysis.anchor_errors(scored), show_pairs=False)
    plots.examples(analysis.examples(splits, titles=TITLES), show_pairs=False)
    text = re.sub(r"base64,[^\"]+", "", " ".join(shown))
    for phrase in {*scored["anchor"], *scored["target"], *splits["train"]["anchor"]}:
        assert html.escape(phrase) not in text
    shown.clear()
    plots.worst_pairs(worst, show_pairs=True)
    assert html.escape(worst["target"][0]) in shown[0]


def test_tables_escape_and_align(shown):
    plots.table(pd.DataFrame({"phrase": ["a <b> & c"], "n": [1234], "r": [0.25], "same": [True]}), "Four <kinds>.")
    (page,) = shown
    assert "a &lt;b&gt; &amp; c" in page
    assert '<td style="text-align:right" data-value="1234.0">1,234</td>' in page
    assert ">0.25</td>" in page
    assert ">yes</td>" in page
    assert "Four &lt;kinds&gt;." in page


def test_search_tables_do_not_share_their_script(shown):
    plots.search_table(pd.DataFrame({"a": ["x"], "b": [1.0]}), "First.")
    plots.search_table(pd.DataFrame({"a": ["y"], "b": [1.0]}), "Second.")
    names = [re.search(r'id="(table-\w+)"', page)[1] for page in shown]
    assert names[0] != names[1]
    for name, page in zip(names, shown, strict=True):
        assert f'getElementById("{name}")' in page
        assert len(re.findall(r"<th [^>]*><button type=.button", page)) == 2
        assert page.count('type="search"') == 1


def test_scores_have_a_shade_each():
    assert len(plots.SHADES) == len(to_score(np.arange(5)))
    assert set(plots.SECTIONS) == {code for code in cpc.CODES if len(code) == 1}
