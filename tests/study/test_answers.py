"""The computed sentences: each against a table made by hand, and where there is nothing to say."""

import numpy as np
import pandas as pd

from patsim_utils.study import answers, errors


def test_a_threshold_says_what_is_kept_and_how_much_of_it_is_right() -> None:
    table = pd.DataFrame({"threshold": [0.4, 0.5], "recall": [0.9, 0.44], "precision": [0.5, 0.94]})
    said = (
        "At a score of 0.5 or more you keep 44 % of what people rated .5 or more; 94 % of what you keep was rated so."
    )
    assert answers.kept(table) == said
    assert answers.kept(table.assign(precision=np.nan)).endswith("nothing scores that high.")
    assert answers.kept(table[:0]).startswith("Nothing in these pairs")


def test_the_first_candidates_are_those_of_the_longest_list_that_there_is() -> None:
    table = pd.DataFrame({"what": ["rated 0.5 or more among the first 3"], "value": [0.72]})
    assert answers.first(table) == "Of the first three candidates of a list, 72 % were rated .5 or more by people."
    assert answers.first(table[:0]).startswith("No list")


def test_groups_name_the_best_the_worst_and_those_that_are_significantly_worse() -> None:
    table = pd.DataFrame({"label": ["A", "B"], "pearson": [0.8, 0.6], "low": [0.75, 0.5], "high": [0.85, 0.65]})
    said = answers.groups(table, whole=0.75, kind="sections")
    assert said == "Best in A (0.80), worst in B (0.60); 1 of these 2 sections are significantly worse than all pairs."
    assert "none of these 2 sections is" in answers.groups(table, whole=0.64, kind="sections")
    assert answers.groups(table[:1], whole=0.7, kind="sections").startswith("Too few sections")


def test_confusion_and_calibration() -> None:
    counts = errors.rank_confusion(pd.DataFrame({"score": [0.0, 0.0, 1.0, 1.0], "prediction": [0.1, 0.3, 1.0, 0.2]}))
    said = "The nearest of the five scores is right for 50 % of the pairs; 25 % are off by more than one step."
    assert answers.confused(counts) == said
    bins = pd.DataFrame({"prediction": [0.3, 0.6], "score": [0.2, 0.6], "low": [0.1, 0.5], "high": [0.25, 0.7], "n": 5})
    assert answers.believable(bins) == "Predictions are 0.050 off on average over many pairs, most often too high."
    assert "taken at its word: the gap is 0.050" in answers.believable(bins.assign(high=0.9))


def test_relations_anchors_and_words() -> None:
    ratings = pd.DataFrame({"rating": ["1a", "3"], "prediction": [0.43, 0.7], "score": [0.25, 0.75]})
    said = answers.relations(ratings)
    assert said == "Farthest off are pairs rated “antonym”: 0.43 on average, people gave 0.25."
    anchors = pd.DataFrame({"mae": [0.4] + [0.1] * 9, "n": 10})
    assert answers.hardest(anchors) == "The hardest 1 of 10 anchors carry 31 % of the error, with 10 % of the pairs."
    overlap = pd.DataFrame({"overlap": errors.OVERLAPS, "label": errors.OVERLAPS, "mae": [0.16, 0.12, 0.1]})
    said = "Where no word is shared, scores are 0.16 off; where more than 40 % of the words are, 0.10."
    assert answers.surface(overlap) == said
    for nothing in (answers.relations(ratings[:0]), answers.hardest(anchors[:5]), answers.surface(overlap[:1])):
        assert nothing.endswith(".")


def test_the_class_is_needed_only_where_that_is_significant() -> None:
    row = {"context": "no class", "difference": -0.02, "low": -0.03, "high": -0.01}
    assert answers.needs_class(pd.DataFrame([row])).startswith("Yes: without the class, Pearson changes by -0.020")
    assert answers.needs_class(pd.DataFrame([row | {"high": 0.01}])).startswith("It does not show")
    assert answers.needs_class(pd.DataFrame([row | {"low": 0.01, "high": 0.05}])).startswith("No, it is better without")
    assert answers.needs_class(pd.DataFrame([row | {"context": "a wrong class"}])).endswith("on these pairs.")


def test_what_a_run_reaches_stands_beside_the_best_of_the_others() -> None:
    rows = [("word-Jaccard", 0.38), ("pretrained cosine", 0.6), ("trained model", 0.74)]
    table = pd.DataFrame(rows, columns=["system", "pearson"]).assign(split="validation")
    assert answers.beats_words(table) == "On validation, Pearson 0.74 against pretrained cosine 0.60."
    assert answers.beats_words(table[:2]) == "On validation, pretrained cosine 0.60 without any training."
    assert answers.beats_words(table[:0]).startswith("Nothing can be measured")
    history = pd.DataFrame({"loss": [2.0] * 10 + [1.0] * 10})
    assert answers.falls(history) == "Yes: from 2 in the first tenth of the steps to 1 in the last."
    assert answers.falls(history[::-1]).startswith("No:")
    epochs = [{"epoch": 1, "pearson": 0.5}, {"epoch": 2, "pearson": 0.6}]
    assert answers.best_epoch(epochs) == "Epoch 2 of 2 is kept: Pearson 0.600 on validation."
    shared = pd.DataFrame({"anchors": [0, 3]})
    assert answers.shared_anchors(shared).startswith("Yes: 3 anchors stand in two splits")
    assert answers.shared_anchors(shared[:1]).startswith("No: no two splits share an anchor")
