"""The tables of the notebooks, against small frames counted by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils import metrics
from patsim_utils.data import cpc
from patsim_utils.ratings import MEANINGS
from patsim_utils.study import errors, explore
from patsim_utils.study.pages import summary

TITLES = cpc.titles()
COLUMNS = ["anchor", "target", "context", "score", "rating"]
TRAIN = [("null", "nan", "H04", 0.0, "0"), ("null", "zero value", "H04", 1.0, "4"), ("null", "nan", "G06", 0.5, "2a")]
TRAIN += [("gear", "cog wheel", "F16", 0.75, "3")]
VALIDATION = [("lamp", "lamp shade", "F21", 0.25, "1b"), ("lamp", "light source", "F21", 0.5, "2b")]
SPLITS = {"train": pd.DataFrame(TRAIN, columns=COLUMNS), "validation": pd.DataFrame(VALIDATION, columns=COLUMNS)}


@pytest.fixture
def frame() -> pd.DataFrame:
    """84 made-up pairs of six anchors in two sections: the prediction is the score and noise."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"anchor": np.repeat([f"anchor {i}" for i in range(6)], 14), "target": 42 * ["anchor", "b"]})
    table["context"] = np.where(np.arange(84) // 14 % 2, "H04", "G06")
    table["score"] = rng.permuted(np.tile(np.arange(5) / 4, 17)[:84])
    table["rating"] = table["score"].map({0.0: "0", 0.25: "1b", 0.5: "2a", 0.75: "3", 1.0: "4"})
    return errors.with_errors(table.assign(prediction=np.clip(table["score"] + rng.normal(0, 0.2, 84), 0, 1)))


def found(pearson: float) -> dict:
    return {"n": 9, "pearson": pearson, "pearson_ci": [0.1, 0.9], "spearman": 0.4, "mae": 0.2, "qwk": 0.3}


def test_counts_of_the_data():
    overview = explore.overview(SPLITS)
    assert overview.loc[0].to_list() == ["train", 4, 2, 3, 3, 3, 0.5625]
    assert overview.columns.to_list() == ["split", "rows", "anchors", "targets", "classes", "groups", "mean score"]
    classes = explore.class_counts(SPLITS, titles=TITLES)
    assert classes["context"].to_list() == ["F21", "H04", "F16", "G06"]
    assert classes.loc[0, ["label", "rows", "anchors"]].to_list() == [f"F21 {TITLES['F21']}", 2, 1]
    assert sorted(explore.group_sizes(SPLITS)["targets"]) == [1, 1, 2, 2]
    words = explore.word_counts(SPLITS)
    assert words.groupby("side")["words"].apply(sorted).to_dict() == {"anchor": [1, 1, 1], "target": [1, 2, 2, 2, 2]}


def test_examples_show_each_kind_once_highest_first():
    table = explore.examples(SPLITS["train"], titles=TITLES)
    assert table["rating"].to_list() == ["4", "3", "2a", "0"]
    assert table.loc[2, ["meaning", "field"]].to_list() == ["a narrower term", TITLES["G06"]]
    table = explore.examples(pd.concat(2 * [SPLITS["train"].drop(columns="rating")]), titles=TITLES)
    assert table["score"].to_list() == [1.0, 0.75, 0.5, 0.0]
    assert table.columns.to_list() == ["anchor", "target", "score", "context", "field"]


def test_shares_and_pairs_in_two_classes_by_hand():
    table = explore.shares(SPLITS, "score", dict.fromkeys([0.0, 0.5, 1.0], ""))
    assert table["label"].to_list() == 2 * ["0.0", "0.5", "1.0"]
    assert table["share"].to_list() == [0.25, 0.25, 0.25, 0, 0.5, 0]
    sections = explore.shares(SPLITS, "section", {"B": "b", "F": "f", "G": "g"})  # of B there is none
    assert sections[["label", "rows"]].to_numpy().tolist() == [["F f", 1], ["G g", 1], ["F f", 2], ["G g", 0]]
    assert explore.shares({"a": SPLITS["train"].drop(columns="rating")}, "rating", MEANINGS).empty
    shares = {0: "0 %", 0.004: "0.4 %", 0.094: "9.4 %", 0.0951: "10 %", 1: "100 %"}
    assert {share: explore.percent(share) for share in shares} == shares
    text = "1 of 5 distinct pairs are rated in two or more classes; 100 % of them have another score in another class."
    assert explore.same_pair_two_classes(SPLITS) == text
    moved = {"train": SPLITS["train"].iloc[1:], "validation": pd.concat([SPLITS["validation"], SPLITS["train"][:1]])}
    assert explore.same_pair_two_classes(moved) == text  # also where the splits share anchors
    assert sorted(explore.group_sizes(moved)["targets"]) == [1, 1, 2, 2]
    assert explore.same_pair_two_classes({"validation": SPLITS["validation"]}).startswith("No pair is rated in two")


def test_words_alone_may_be_undefined_and_a_batch_says_what_it_holds(frame):
    table = explore.words_alone({"test": frame}, {"test": np.full(len(frame), 0.5)}).set_index("system")
    assert table.loc["word-Jaccard", "pearson"] == metrics.pearson(frame["score"], metrics.word_jaccard(frame))
    assert table.loc["pretrained cosine", ["pearson", "low", "high"]].isna().all()
    table = explore.batch_table({"input_ids": torch.zeros(2, 9, dtype=torch.long), "new": torch.zeros(3)})
    assert table.loc[0].to_list() == ["input_ids", "2 x 9", "int64", explore.BATCH["input_ids"]]
    assert table.loc[1].to_list() == ["new", "3", "float32", ""]


@pytest.mark.parametrize(("cosine", "beside"), [(found(0.5), "0.500"), (None, "undefined")])
def test_results_summary_and_leak_of_a_run(cosine, beside):
    baselines = {"pretrained_cosine": {"validation": cosine}, "features": {"validation": found(0.6)}}
    run = {"validation": found(0.7), "baselines": baselines}
    run |= {"protocol": "anchor_disjoint", "environment": {"seed": 4}}
    table = explore.results(run)
    assert table["label"].to_list() == [f"{name}, validation" for name in table["system"]]
    assert table["pearson"].fillna(-1).to_list() == [0.5 if cosine else -1, 0.6, 0.7]
    assert (table["n"].to_list(), table["mae"].notna().to_list()) == ([9, 9, 9], [False, False, True])
    start = "Pearson 0.700 [0.100, 0.900] on validation (9 pairs, anchors unseen, seed 4); "
    assert explore.summary(run) == f"{start}pretrained cosine {beside}."
    assert "anchors seen" in explore.summary(run | {"protocol": "random"})
    assert explore.leak(run, {"validation": found(0.8)})["pearson"].to_list() == [0.7, 0.8]


def test_what_a_training_cost_is_said_as_one_says_it() -> None:
    train = {"n": 1515, "seconds": 754.2, "epochs": 3, "steps": 141, "pairs_per_second": 6.0262, "padding": 0.0312}
    train |= {"evaluation_seconds": 21.7, "peak_memory_mb": 1331.2, "trainable_parameters": 1213187}
    texts = dict(explore.cost({"train": train | {"device": "cpu", "precision": "fp32"}}).to_numpy())
    assert texts["time of training"] == "13 min"
    assert texts["time of evaluation"] == "22 s"
    assert texts["peak memory"] == "1.3 GiB"
    assert texts["pairs a second"] == "6.03"
    assert texts["trained weights"] == "1,213,187"
    assert texts["padding, share of tokens"] == "3.1 %"
    assert (explore.duration(0.42), explore.duration(8000), explore.memory(412)) == ("0.4 s", "2.2 h", "412 MiB")


def test_with_errors_by_hand():
    rows = [("lamp", "lamp", "F21", 1.0, 1.0), ("gear", "gear case wheel", "G06", 0.5, 0.25)]
    rows += [("a", "b c d e f", "H01", 0.0, 0.5)]
    frame = errors.with_errors(pd.DataFrame(rows, columns=["anchor", "target", "context", "score", "prediction"]))
    assert frame[["error", "size"]].to_numpy().tolist() == [[0.0, 0.0], [-0.25, 0.25], [0.5, 0.5]]
    assert frame["section"].to_list() == ["F", "G", "H"]
    assert frame["overlap"].to_list() == ["more than 40 % shared", "up to 40 % shared", "no word shared"]
    assert frame["words"].to_list() == ["1 word", "3 words", "4 or more"]


def test_by_group_measures_and_leaves_out(frame):
    table = errors.by_group(frame, "section", names=TITLES).set_index("section")
    part = frame[frame["section"] == "G"]
    assert table.loc["G", ["label", "n", "anchors"]].to_list() == [f"G {TITLES['G']}", 42, 3]
    assert table.loc["G", "pearson"] == pytest.approx(np.corrcoef(part["score"], part["prediction"])[0, 1])
    assert table.loc["G", "bias"] == pytest.approx(part["error"].mean())
    assert errors.by_group(frame[frame["target"] == "b"], "section").empty
    constant = frame.assign(prediction=np.where(frame["section"] == "H", 0.5, frame["prediction"]))
    assert errors.by_group(constant, "section")["section"].to_list() == ["G"]


def test_confusion_counts_by_hand():
    counts = errors.rank_confusion(pd.DataFrame({"score": [0.0, 0.0, 1.0], "prediction": [0.1, 0.2, 0.55]}))
    assert counts.shape == (5, 5)
    assert counts.stack()[lambda n: n > 0].to_dict() == {(0.0, 0.0): 1, (0.0, 0.25): 1, (1.0, 0.5): 1}
    kinds = errors.confusion(["2a", "2a", "0"], ["2b", "2a", "0"], MEANINGS)
    assert (kinds.loc["2a", "2b"], np.trace(kinds), kinds.shape) == (1, 2, (10, 10))
    unrated = errors.confusion(["", "2a"], ["0", "2a"], MEANINGS)  # a split without ratings beside one with
    assert (np.trace(unrated), unrated.to_numpy().sum(), unrated.shape) == (1, 1, (10, 10))


def test_calibration_ranks_and_ratings(frame):
    # the resamples are {a, a}, {a, b}, {b, b}: means 0, 1/3 and 1
    assert metrics.mean_interval(pd.Series(["a", "a", "b"]), pd.Series([0, 0, 1])) == (pytest.approx(1 / 3), 0.0, 1.0)
    bins = errors.calibration(frame, bins=5)
    assert bins["prediction"].is_monotonic_increasing
    assert np.average(bins["score"], weights=bins["n"]) == pytest.approx(frame["score"].mean())
    assert len(errors.calibration(frame.assign(prediction=0.5), bins=5)) == 5  # ties do not break the bins
    two = pd.DataFrame({"anchor": ["a", "b"], "score": [0.0, 1.0]})
    ranks = errors.rank_shares(two, np.array([[1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0.5]]))
    assert ranks["seen"].to_list() == [0.5, 0, 0, 0, 0.5]
    assert ranks["expected"].to_list() == [0.75, 0, 0, 0, 0.25]
    ratings = errors.by_rating(frame).set_index("rating")
    assert ratings.loc["3", "prediction"] == pytest.approx(frame.loc[frame["rating"] == "3", "prediction"].mean())
    assert ratings["score"].to_dict() == {"4": 1.0, "3": 0.75, "2a": 0.5, "1b": 0.25, "0": 0.0}
    assert errors.by_rating(frame.drop(columns="rating")).empty


def test_anchor_errors_and_worst_pairs(frame):
    table = errors.anchor_errors(frame)
    assert table["mae"].is_monotonic_decreasing
    assert (table["n"] * table["mae"]).sum() == pytest.approx(frame["size"].sum())
    worst = errors.worst_pairs(frame, titles=TITLES, count=5)
    assert worst["error"].abs().to_list() == sorted(frame["size"], reverse=True)[:5]
    assert worst.loc[0, "field"] == TITLES[worst.loc[0, "context"]]
    assert "rating" not in errors.worst_pairs(frame.drop(columns="rating"), titles=TITLES)


def test_nearest_classes():
    codes, east, north = ["A01", "A21", "A23", "H01", "H02", "F16", "A"], [1.0, 0.0], [0.0, 1.0]
    vectors = pd.DataFrame([east, east, east, north, north, east, east], index=codes)
    counts = pd.Series(10, index=["A01", "A21", "A23", "H01", "H02"])
    nearest = errors.nearest_classes(vectors, counts=counts, titles=TITLES).set_index("code")
    assert nearest.index.to_list() == counts.index.to_list()
    assert nearest.loc["H01", ["nearest", "cosine", "same section"]].to_list() == [f"H02 {TITLES['H02']}", 1.0, True]
    assert nearest["chance"].to_list() == [0.5, 0.5, 0.5, 0.25, 0.25]
    assert errors.nearest_classes(vectors, counts=counts[:1], titles=TITLES).empty


def test_context_effect_asks_without_the_class_and_with_a_wrong_one(frame):
    asked = []

    def score(rows: pd.DataFrame, *, unknown: str = "error") -> np.ndarray:
        asked.append((rows["context"], unknown))
        return np.where(rows["context"] == "H04", rows["prediction"], 1 - rows["prediction"])

    matcher = SimpleNamespace(score=score)
    effect = errors.context_effect(matcher, frame).set_index("context")
    (none, way), (wrong, _) = asked
    assert not any(map(cpc.class_of, none))
    assert (len(set(zip(none, frame["context"], strict=True))), way) == (frame["context"].nunique(), "embedding")
    assert (wrong != frame["context"]).all()
    traded = pd.DataFrame({"own": frame["context"], "wrong": wrong}).drop_duplicates()
    assert traded["own"].is_unique
    assert traded["wrong"].is_unique  # groups that were apart stay apart
    pearson = metrics.pearson(frame["score"], frame["prediction"])
    assert effect.loc["no class", "difference"] == pytest.approx(-2 * pearson)
    assert effect.loc["no class", "high"] < 0
    one = frame[frame["context"] == "H04"].reset_index(drop=True)
    assert errors.context_effect(matcher, one)["context"].to_list() == ["no class"]


def test_a_summary_names_the_sections_that_differ_significantly(frame):
    shuffled = frame["prediction"].where(frame["section"] == "H", np.random.default_rng(1).permutation(84) / 83)
    (higher, lower) = summary.fields(frame.assign(prediction=shuffled))
    assert higher.startswith("The correlation is higher than over all pairs (0.")
    assert " in H " in higher
    assert " in G " in lower
    alike = pd.concat([frame.assign(section=section) for section in "GH"], ignore_index=True)
    known = "2 of 2 sections have enough pairs and anchors for a correlation of their own"
    assert summary.fields(alike) == [f"{known}; none is significantly higher or lower than that of all pairs."]
    assert summary.fields(frame[:30]) == [known.replace("2 of 2", f"0 of {frame[:30]['section'].nunique()}") + "."]
