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
    assert said == "Farthest off are pairs rated “the opposite”: 0.43 on average, people gave 0.25."
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


def test_the_data_is_answered_by_its_first_example_and_its_commonest_values() -> None:
    row = {"anchor": "bolt", "target": "screw", "context": "F16", "score": 0.5}
    assert answers.example(pd.DataFrame([row])) == "“screw” for “bolt” in F16 has the score 0.5."
    assert answers.example(pd.DataFrame([row | {"meaning": "structural match"}])).endswith("0.5: structural match.")
    shares = pd.DataFrame({"label": ["0.25", "1", "0.25"], "rows": [2, 3, 3]})
    assert answers.commonest(shares, what="score") == "The commonest score is 0.25: 62 % of the pairs."


def test_what_a_training_costs_and_what_a_leak_adds() -> None:
    train = {"epochs": 3, "n": 1000, "seconds": 22, "peak_memory_mb": 1331.2, "device": "cpu"}
    assert answers.expense({"train": train}) == "22 s and 1.3 GiB for 3 epochs of 1,000 pairs, on cpu."
    table = pd.DataFrame({"system": ["anchors unseen", "rows at random"], "pearson": [0.7, 0.85]})
    said = "With rows at random it is 0.85, with anchors that training never saw 0.70."
    assert answers.leaks(table) == said


def test_the_fastest_system_stands_beside_the_cross_encoder() -> None:
    rows = [("CrossEncoder, fp32", "training", 10.0, 1.0), ("ours", "training", 25.0, 2.5), ("ours", "1 x 100", 9, 1)]
    rates = pd.DataFrame(rows, columns=["system", "what", "rate", "times"])
    said = "Fastest is “ours” with 25 pairs a second, 2.5 times the CrossEncoder's."
    assert answers.faster(rates, what="training") == said
    assert answers.faster(rates[:1], what="training") == "Fastest is “CrossEncoder, fp32” with 10 pairs a second."
    row = {"system": "ours", "difference": 0.02, "difference_low": 0.01, "difference_high": 0.03}
    accuracy = pd.DataFrame([row])
    assert answers.as_good(accuracy, system="ours").startswith("Better: “ours” differs")
    assert answers.as_good(accuracy.assign(difference_low=-0.1), system="ours").startswith("No significant")
    worse = accuracy.assign(difference_low=-0.1, difference_high=-0.01)
    assert answers.as_good(worse, system="ours").startswith("No: “ours” is significantly worse")
    peer = accuracy.assign(system="CrossEncoder, fp32", difference=np.nan)
    assert "nothing to compare" in answers.as_good(peer, system="CrossEncoder, fp32")


def test_a_precision_that_was_not_measured_is_said_so() -> None:
    table = pd.DataFrame({"pearson": [0.71, 0.7098], "largest difference of a score": [0.0, 0.004]})
    assert answers.precisions(table) == "A score changes by at most 0.004, Pearson by 0.0002."
    assert answers.precisions(table[:1]).startswith("Not measured")


def test_an_ablation_counts_what_helps_and_what_harms() -> None:
    rows = [("a", 0.02, 0.01, 0.03, 60), ("b", 0.0, -0.01, 0.01, 30), ("c", 0.01, 0.005, 0.02, 120)]
    columns = ["idea", "difference", "difference_low", "difference_high", "seconds"]
    table = pd.DataFrame(rows, columns=columns)
    said = "Of 3 changes, 2 help significantly, most of all “a” (+0.020); 0 harm significantly."
    assert answers.helps(table) == said
    assert answers.helps(table.assign(difference=np.nan)) == "No variant can be compared with another."
    assert answers.dearest(table) == "“c” trains longest, 2 min; “b” shortest, 30 s."


def test_a_search_says_what_is_first_where_it_was_and_what_is_best() -> None:
    hits = pd.DataFrame({"phrase": ["mobile phone", "antenna"], "score": [0.92, 0.2], "found": [3, 1]})
    assert answers.nearest(hits) == "First is “mobile phone”, score 0.92; 1 of these 2 score .5 or more."
    assert answers.moved(hits) == "The retriever had the first as number 3; 1 of these 2 were among its first 2."
    assert answers.nearest(hits[:0]) == answers.moved(hits[:0]) == "Nothing is in the corpus."
    table = pd.DataFrame({"system": ["words", "retriever"], "measure": "nDCG@10", "value": [0.3, 0.5]})
    said = "By nDCG@10, “retriever” is best with 0.50, “words” last with 0.30."
    assert answers.finds(table) == said
    assert answers.finds(table.assign(value=np.nan)).startswith("No query has")
