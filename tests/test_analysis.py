"""The tables and sentences of the notebooks, against small frames counted by hand."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from patsim_utils import analysis, cpc, evidence, fusion, losses, metrics, readings

TITLES = cpc.titles()


@pytest.fixture
def splits() -> dict[str, pd.DataFrame]:
    train = pd.DataFrame(
        [
            ("null", "nan", "H04", 0.0, "0"),
            ("null", "zero value", "H04", 1.0, "4"),
            ("null", "nan", "G06", 0.5, "2a"),
            ("gear", "cog wheel", "F16", 0.75, "3"),
        ],
        columns=["anchor", "target", "context", "score", "rating"],
    )
    validation = pd.DataFrame(
        [("lamp", "lamp shade", "F21", 0.25, "1b"), ("lamp", "light source", "F21", 0.5, "2b")],
        columns=["anchor", "target", "context", "score", "rating"],
    )
    return {"train": train, "validation": validation}


def predictions(*, anchors: int = 6, rows: int = 12, seed: int = 0) -> pd.DataFrame:
    """Made-up scored pairs: the prediction is the score and noise; two sections, all ratings that fit the
    score."""
    rng = np.random.default_rng(seed)
    n = anchors * rows
    score = rng.permuted(np.tile(np.arange(5) / 4, n)[:n])
    letters = {0.0: "0", 0.25: "1b", 0.5: "2a", 0.75: "3", 1.0: "4"}
    rating = [rng.choice(["2a", "2b"]) if s == 0.5 else letters[s] for s in score]
    return pd.DataFrame(
        {
            "split": "validation",
            "anchor": np.repeat([f"anchor {i}" for i in range(anchors)], rows),
            "target": [f"target {i}" if i % 2 else f"anchor target {i}" for i in range(n)],
            "context": np.where(np.arange(n) // rows % 2, "H04", "G06"),
            "score": score,
            "prediction": np.clip(score + rng.normal(0, 0.2, n), 0, 1),
            "rating": rating,
        }
    )


def test_overview_counts(splits):
    row = analysis.overview(splits).set_index("split").loc["train"]
    assert row.to_dict() == {
        "rows": 4,
        "anchors": 2,
        "targets": 3,
        "classes": 3,
        "groups": 3,
        "mean score": 0.5625,
    }


def test_shares_of_scores_and_ratings(splits):
    scores = analysis.score_shares(splits).set_index(["split", "score"])
    assert scores.loc[("train", 0.75), "share"] == 0.25
    assert scores.loc[("validation", 1.0), "rows"] == 0
    ratings = analysis.rating_shares(splits).set_index("rating")
    assert list(ratings.index) == list(analysis.RATINGS)
    assert (ratings.loc["1b", "rows"], ratings.loc["1b", "score"]) == (1, 0.25)
    assert ratings["rows"].sum() == 6
    bare = {name: frame.drop(columns="rating") for name, frame in splits.items()}
    assert analysis.rating_shares(bare).empty


def test_examples_show_each_kind_once_highest_first(splits):
    assert list(analysis.examples(splits, titles=TITLES)["rating"]) == ["4", "3", "2a", "0"]
    bare = {"train": splits["train"].drop(columns="rating")}
    table = analysis.examples(bare, titles=TITLES)
    assert list(table["score"]) == [1.0, 0.75, 0.5, 0.0]
    assert table["meaning"].notna().all()


def test_fields_groups_and_words(splits):
    sections = analysis.section_shares(splits, titles=TITLES).set_index(["split", "section"])
    assert sections.loc[("train", "H"), "share"] == 0.5
    classes = analysis.class_counts(splits, titles=TITLES)
    assert list(classes["context"]) == ["F21", "H04", "F16", "G06"]
    assert sorted(analysis.group_sizes(splits)["targets"]) == [1, 1, 2, 2]
    words = analysis.word_counts(splits).set_index(["side", "words"])["phrases"]
    assert words["anchor"].to_dict() == {1: 3}
    assert words["target"].to_dict() == {1: 1, 2: 4}


def test_same_pair_in_two_classes(splits):
    assert analysis.same_pair_two_classes(splits) == {"pairs": 5, "repeated": 1, "differing": 1.0}
    alone = analysis.same_pair_two_classes({"validation": splits["validation"]})
    assert alone == {"pairs": 2, "repeated": 0, "differing": 0.0}


def test_words_alone_agrees_with_metrics():
    frame = predictions()
    rng = np.random.default_rng(0)
    cosine = {"validation": rng.random(len(frame))}
    table = analysis.words_alone({"validation": frame}, cosine, resamples=200).set_index("system")
    assert table.loc["zero-shot cosine", "pearson"] == pytest.approx(
        np.corrcoef(frame["score"], cosine["validation"])[0, 1]
    )
    jaccard = np.corrcoef(frame["score"], metrics.word_jaccard(frame))[0, 1]
    assert table.loc["word-Jaccard", "pearson"] == pytest.approx(jaccard)
    assert (table["low"] < table["pearson"]).all()
    assert (table["pearson"] < table["high"]).all()


def test_read_run_keeps_words_that_look_empty(tmp_path):
    for name in ("config", "metrics"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"seed": 3}))
    (tmp_path / "history.csv").write_text("step,loss\n1,0.5\n")
    (tmp_path / "predictions.csv").write_text(
        "split,anchor,target,context,score,prediction,rating\nvalidation,null,nan,H04,0.5,0.25,2a\n"
    )
    config, _, history, found = analysis.read_run(tmp_path)
    assert config == {"seed": 3}
    assert history["loss"].tolist() == [0.5]
    assert found.loc[0, ["anchor", "target", "rating"]].tolist() == ["null", "nan", "2a"]
    assert found.loc[0, "prediction"] == 0.25


def test_with_errors_by_hand():
    frame = pd.DataFrame(
        {
            "split": ["validation", "test", "test"],
            "anchor": ["lamp", "gear", "gear"],
            "target": ["lamp", "gear case wheel", "one two three four five"],
            "context": ["F21", "F16", "F16"],
            "score": [1.0, 0.5, 0.0],
            "prediction": [1.0, 0.25, 0.5],
        }
    )
    found = analysis.with_errors(frame)
    assert found["error"].tolist() == [0.0, -0.25, 0.5]
    assert found["size"].tolist() == [0.0, 0.25, 0.5]
    assert found["section"].tolist() == ["F", "F", "F"]
    assert found["overlap"].tolist() == ["more shared", "up to 40 % shared", "no word shared"]
    assert found["words"].tolist() == ["1 word", "3 words", "4 or more"]
    config = {"backbone": "b", "loss": "l", "contrast": "c", "fusion": "f", "protocol": "p", "seed": 5, "keep": "last"}
    text = readings.headline("study", config, found)
    assert "1 of validation and 2 of test, 2 anchors" in text
    assert "too kind" not in text


def test_mean_interval_by_hand():
    anchor, value = pd.Series(["a", "a", "b"]), pd.Series([0.0, 0.0, 1.0])
    mean, low, high = analysis.mean_interval(anchor, value)
    # the resamples are {a, a}, {a, b}, {b, b}: means 0, 1/3 and 1
    assert (mean, low, high) == (pytest.approx(1 / 3), 0.0, 1.0)
    assert analysis.mean_interval(anchor, value * 0 + 0.5)[1:] == (0.5, 0.5)


def test_by_group_measures_and_leaves_out():
    frame = analysis.with_errors(predictions())
    table = analysis.by_group(frame, "section", min_rows=20, resamples=200).set_index("section")
    part = frame[frame["section"] == "G"]
    assert table.loc["G", "pearson"] == pytest.approx(np.corrcoef(part["score"], part["prediction"])[0, 1])
    assert table.loc["G", ["n", "anchors"]].tolist() == [36, 3]
    assert table.loc["G", "bias"] == pytest.approx(part["error"].mean())
    assert analysis.by_group(frame, "section", min_rows=37).empty
    constant = frame.assign(prediction=np.where(frame["section"] == "H", 0.5, frame["prediction"]))
    assert analysis.by_group(constant, "section", min_rows=20)["section"].tolist() == ["G"]
    text = readings.by_group(frame, analysis.by_group(frame, "section", min_rows=37), "section", plural="sections")
    assert "2 of 2 sections (72 pairs) are left out" in text


def test_confusion_counts_by_hand():
    frame = pd.DataFrame({"score": [0.0, 0.0, 1.0], "prediction": [0.1, 0.2, 0.55]})
    counts = analysis.confusion(frame)
    assert counts.loc[0.0, 0.0] == 1
    assert counts.loc[0.0, 0.25] == 1
    assert counts.loc[1.0, 0.5] == 1
    assert counts.to_numpy().sum() == 3
    assert readings.confusion(counts).startswith("33 % of the pairs get exactly their score and 67 %")


def test_calibration_bins_hold_all_rows_in_order():
    frame = predictions()
    bins = analysis.calibration(frame, bins=5)
    assert bins["n"].sum() == len(frame)
    assert bins["prediction"].is_monotonic_increasing
    assert np.average(bins["score"], weights=bins["n"]) == pytest.approx(frame["score"].mean())
    assert len(analysis.calibration(frame.assign(prediction=0.5), bins=5)) == 5  # ties do not break the bins


def test_rank_shares_by_hand():
    frame = pd.DataFrame({"anchor": ["a", "b"], "score": [0.0, 1.0]})
    table = analysis.rank_shares(frame, np.array([[1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0.5]]))
    assert table["seen"].tolist() == [0.5, 0, 0, 0, 0.5]
    assert table["expected"].tolist() == [0.75, 0, 0, 0, 0.25]


def test_ratings_and_their_difference():
    frame = analysis.with_errors(predictions())
    table = analysis.by_rating(frame).set_index("rating")
    assert table.loc["3", "prediction"] == pytest.approx(frame.loc[frame["rating"] == "3", "prediction"].mean())
    assert "1c" not in table.index
    bare = frame.drop(columns="rating")
    assert analysis.by_rating(bare).empty
    assert analysis.rating_difference(bare) == {}
    assert "no rating letters" in readings.ratings(analysis.by_rating(bare), {})


def test_rating_difference_by_hand():
    frame = pd.DataFrame(
        {
            "anchor": ["a", "a", "b", "b", "c", "c"],
            "rating": ["2a", "2b"] * 3,
            "prediction": [0.75, 0.25, 0.75, 0.5, 0.25, 0.25],
        }
    )
    found = analysis.rating_difference(frame)
    assert found["difference"] == pytest.approx(0.25)
    assert found["auc"] == pytest.approx((2 * 3 + 2 * 0.5) / 9)  # .75 beats all, .25 ties two
    assert (found["low"], found["high"]) == (0.0, 0.5)  # anchors alone: .5, .25 and 0
    assert analysis.rating_difference(frame[:4]) == {}


def test_anchor_errors_and_worst_pairs():
    frame = analysis.with_errors(predictions())
    table = analysis.anchor_errors(frame)
    assert table["mae"].is_monotonic_decreasing
    assert (table["n"] * table["mae"]).sum() == pytest.approx(frame["size"].sum())
    assert analysis.anchor_errors(frame, min_rows=13).empty
    worst = analysis.worst_pairs(frame, titles=TITLES, count=5)
    assert worst["error"].abs().tolist() == sorted(frame["size"], reverse=True)[:5]
    assert worst.loc[0, "field"] == TITLES[worst.loc[0, "context"]]
    assert "rating" not in analysis.worst_pairs(frame.drop(columns="rating"), titles=TITLES)


@pytest.fixture
def vectors() -> pd.DataFrame:
    """Two sections on two axes, three classes each, and a class without pairs."""
    codes = ["A01", "A21", "A23", "H01", "H02", "H04", "F16", "A"]
    east, north = [1.0, 0.0], [0.0, 1.0]
    return pd.DataFrame([east, east, east, north, north, north, east, east], index=codes)


def test_structure_of_the_embedding(vectors):
    counts = pd.Series(10, index=["A01", "A21", "A23", "H01", "H02", "H04"])
    nearest = analysis.nearest_classes(vectors, counts=counts, titles=TITLES, nearest=2).set_index("code")
    assert nearest.loc["A01", "nearest"] == f"A21 {TITLES['A21']} · A23"
    assert nearest["same section"].all()
    assert "F16" not in nearest.index
    found = analysis.section_structure(vectors, counts=counts, shuffles=200)
    assert (found["within"], found["between"], found["classes"]) == (1.0, 0.0, 6)
    assert 0.05 < found["share"] < 0.2  # 2 of the 20 ways to label six classes are as good
    assert analysis.section_structure(vectors, counts=counts[:4]) == {}
    assert "Too few" in readings.embedding({}, nearest)


def test_map_of_the_classes(vectors):
    rng = np.random.default_rng(0)
    spread = vectors + rng.normal(0, 0.1, vectors.shape)
    table = analysis.cpc_map(spread, counts=pd.Series({"A01": 3}))
    assert table["code"].tolist() == ["A01", "A21", "A23", "H01", "H02", "H04", "F16"]
    assert table["pairs"].tolist() == [3, 0, 0, 0, 0, 0, 0]
    assert np.isfinite(table[["x", "y"]].to_numpy()).all()
    empty = pd.DataFrame()
    assert analysis.cpc_map(empty, counts=pd.Series({"A01": 3})).empty
    assert analysis.nearest_classes(empty, counts=pd.Series({"A01": 3}), titles=TITLES).empty
    assert analysis.section_structure(empty, counts=pd.Series({"A01": 3})) == {}


def test_wrong_context_is_never_right_and_repeats():
    frame = predictions()
    wrong = analysis.wrong_context(frame, seed=1)
    assert (wrong["context"] != frame["context"]).all()
    assert set(wrong["context"]) <= set(frame["context"])
    pd.testing.assert_frame_equal(wrong, analysis.wrong_context(frame, seed=1))
    with pytest.raises(ValueError, match="all rows have the same"):
        analysis.wrong_context(frame[frame["context"] == "H04"])


class Parrot:
    """Stands for a Matcher: knows H04 only, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, frame: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        self.asked.append(unknown)
        return np.where(frame["context"] == "H04", frame["prediction"], 1 - frame["prediction"])


def test_context_scores_and_effect():
    frame, parrot = predictions(), Parrot()
    scores = analysis.context_scores(parrot, frame)
    assert list(scores) == ["right class", "wrong class", "no class"]
    assert parrot.asked == ["error", "embedding"]
    effect = analysis.context_effect(frame, scores, resamples=200).set_index("context")
    assert effect.loc["right class", ["difference", "difference_low", "difference_high"]].tolist() == [
        0,
        0,
        0,
    ]
    expected = metrics.pearson(frame["score"], scores["no class"]) - metrics.pearson(
        frame["score"], frame["prediction"]
    )
    assert effect.loc["no class", "difference"] == pytest.approx(expected)
    assert effect.loc["no class", "difference_high"] < 0
    assert readings.context(effect.reset_index()).endswith("The model uses the class.")
    one = frame[frame["context"] == "H04"].reset_index(drop=True)
    assert list(analysis.context_scores(parrot, one)) == ["right class", "no class"]


def test_results_and_leak_of_a_run():
    found = {"n": 9, "pearson": 0.5, "pearson_ci": [0.4, 0.6], "spearman": 0.45, "mae": 0.2, "qwk": 0.3}
    numbers = {
        "validation": found | {"pearson": 0.7},
        "baselines": {"word_jaccard": {"validation": found}, "zero_shot": {"validation": found}},
    }
    table = analysis.results(numbers).set_index("system")
    assert table["pearson"].to_dict() == {"word-Jaccard": 0.5, "zero-shot cosine": 0.5, "trained model": 0.7}
    beside = numbers["baselines"] | {"evidence": {"validation": found | {"pearson": 0.6}}}
    assert analysis.results(numbers | {"baselines": beside}).set_index("system")["pearson"]["evidence alone"] == 0.6
    text = readings.results(table.reset_index(), protocol="anchor_disjoint", seed=4)
    assert "Pearson of 0.700 [0.400, 0.600]" in text
    assert "seed 4" in text
    assert analysis.leak(numbers).empty
    both = analysis.leak(numbers | {"leak": {"validation": found | {"pearson": 0.8}}})
    assert "a difference of +0.100" in readings.leak(both)


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.004, "0.4 %"), (0.094, "9.4 %"), (0.0951, "10 %"), (1, "100 %")]
)
def test_percent(share, text):
    assert readings.percent(share) == text


def test_method_gives_its_formulas():
    settings = {
        "context_text": "title",
        "layout": "pair",
        "target_sep": True,
        "fusion": "add",
        "cpc_dim": 50,
        "backbone": "minilm",
        "adapter": "lora",
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "pooling": "span",
        "loss": "smooth_k2",
        "alpha": 4.0,
        "beta": 0.25,
        "contrast": "ntxent",
        "negatives": "batch",
        "contrast_weight": 0.4,
        "rating_weight": 0.0,
        "temperature": 0.1,
        "separate_layers": 0,
        "evidence": "none",
        "stack": 0,
        "contrast_layer": 3,
    }
    text = readings.method(settings)
    assert "h′ = h + U c" in text
    assert "α = 4, β = 0.25" in text
    assert "λ = 0.4" in text
    assert "do not see each other" not in text
    assert "L + λ C + μ R with λ = 0.4, μ = 2." in readings.method(settings | {"rating_weight": 2.0})
    assert "rates lower" in readings.method(settings | {"negatives": "anchor"})
    assert "its lowest 2 layers" in readings.method(settings | {"separate_layers": 2})
    assert "without [SEP]" in readings.method(settings | {"target_sep": False})
    assert "**Evidence.**" not in text
    assert "makes 20 % of the score" in readings.method(settings | {"evidence": "words"})
    assert "**Stack.**" not in readings.method(settings | {"evidence": "all"})
    assert "cut into 3 parts" in readings.method(settings | {"evidence": "all", "stack": 3})
    assert "how alike their word pieces are" in readings.method(settings | {"evidence": "pieces"})
    for loss in readings.ORDINAL_FORMULAS:
        for contrast in readings.CONTRAST_FORMULAS:
            text = readings.method(settings | {"loss": loss, "contrast": contrast, "fusion": "none", "adapter": "full"})
            assert not re.search(r"[{}$]|\\", text)  # no unfilled place, and nothing that needs MathJax


def test_formulas_cover_every_variant():
    assert set(readings.ORDINAL_FORMULAS) == set(losses.ORDINAL)
    assert set(readings.CONTRAST_FORMULAS) == set(losses.CONTRAST)
    assert set(readings.FUSION_FORMULAS) == set(fusion.FUSIONS)
    assert {"none", *readings.EVIDENCE} == set(evidence.EVIDENCE)
