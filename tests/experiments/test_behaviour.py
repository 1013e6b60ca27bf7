"""The pairs that a person can judge: what counts as right, and that the file is sound."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from patsim_utils.data import cpc
from patsim_utils.data.pairs import check_pairs, is_one_phrase, normalise
from patsim_utils.experiments import behaviour


def test_every_row_can_be_scored_and_none_stands_twice() -> None:
    rows = behaviour.read()
    check_pairs(rows)
    assert set(rows["context"]) <= set(cpc.CLASSES)
    assert not rows.duplicated(["anchor", "target", "context", "worse"]).any()
    assert ((rows["expected"] == behaviour.ORDER) == (rows["worse"] != "")).all()
    assert rows["kind"].value_counts().min() >= 8


def test_no_anchor_is_one_of_the_held_out_ones(real_data) -> None:
    held_out = pd.read_csv(real_data / "validation.csv", keep_default_na=False)["anchor"]
    assert not {normalise(anchor) for anchor in behaviour.read()["anchor"]} & set(held_out)


@pytest.mark.parametrize(
    ("expected", "score", "right"),
    [(">=.7", 0.7, True), (">=.7", 0.69, False), ("<=.3", 0.31, False), ("<=.3", 0.3, True), ("1", 0.999, False)],
)
def test_a_score_is_right_within_its_range(expected: str, score: float, right: bool) -> None:
    assert behaviour.is_right(expected, score) is right


def test_a_triplet_is_right_where_the_better_target_is_ahead() -> None:
    better = set(behaviour.read()["target"])

    def prefers_better(frame: pd.DataFrame) -> np.ndarray:
        return frame["target"].isin(better).to_numpy(float)

    table = behaviour.shares({"good": prefers_better, "equal": lambda frame: np.full(len(frame), 0.5)})
    triplets = table[table["kind"].str.contains("before|sense|part")].set_index("kind")
    assert triplets.loc["synonym_before_antonym", "good"] == 1
    assert (triplets["equal"] == 0).all()  # a tie is not right


def test_the_examples_are_forty_pairs_of_eight_fields() -> None:
    rows = pd.read_csv(behaviour.EXAMPLES, keep_default_na=False)
    check_pairs(rows)
    assert len(rows) == 40
    assert set(rows["context"].str[0]) == set("ABCDEFGH")
    assert set(rows["person"]) <= {0, 0.25, 0.5, 0.75, 1}


def test_an_example_is_a_hit_within_a_quarter_of_a_persons_score() -> None:
    persons = pd.read_csv(behaviour.EXAMPLES)["person"]
    scores = persons.to_numpy(float, copy=True)
    scores[0] -= 0.25
    scores[1] -= 0.26
    relations = pd.DataFrame({"narrower": 0.9, "same_or_synonym": [0.1] * len(persons)})
    says = SimpleNamespace(scores=scores, relations=relations)
    table = behaviour.examples(SimpleNamespace(read=lambda _: says))
    assert table["result"].to_list() == ["hit", "miss"] + ["hit"] * 38
    assert set(table["relation"]) == {"a narrower term"}
    says.relations = None
    assert "relation" not in behaviour.examples(SimpleNamespace(read=lambda _: says))


def test_a_run_stands_beside_what_ships_and_the_pretrained_cosine() -> None:
    table = behaviour.beside_shipped(lambda frame: np.full(len(frame), 0.8))
    assert {"kind", "rows", "this run", "small", "large", "pretrained cosine"} == set(table)
    shares = table.set_index("kind")
    assert shares.loc["plural", "this run"] == 1
    assert shares.loc["unrelated", "this run"] == 0
    assert shares.loc["identical", "pretrained cosine"] == 1
    assert 0 < shares.loc["sense_by_class", "small"] < 1
    assert table["rows"].sum() == len(behaviour.read())
    assert table.notna().all(axis=None)


def test_the_sentence_names_the_best_and_the_worst_kind_that_the_model_is_asked_about() -> None:
    table = pd.DataFrame(
        {
            "kind": ["identical", "plural", "synonym", "spelling"],
            "rows": [15, 20, 25, 20],
            "this run": [1.0, 0.95, 0.12, 0.0],
        }
    )
    sentence = behaviour.sentence(table)
    assert "“singular and plural: .7 or more” (95 %)" in sentence
    assert sentence.endswith("“synonyms: .6 or more” (12 %).")
    assert behaviour.in_words(table)["this run"].tolist() == ["100 %", "95 %", "12 %", "0 %"]


def test_every_kind_is_said_in_words_with_its_threshold() -> None:
    rows = behaviour.read()
    assert set(rows["kind"]) == set(behaviour.IN_WORDS)
    for kind, expected in rows.groupby("kind")["expected"].unique().items():
        (bound,) = expected
        words = behaviour.IN_WORDS[kind]
        assert bound == behaviour.ORDER or bound.removeprefix(">=").removeprefix("<=") in words
    equal = rows[rows["kind"].isin(behaviour.BY_DEFINITION)]
    anchors = equal["anchor"].map(normalise)
    targets = equal["target"].map(normalise)
    assert is_one_phrase(anchors, targets).mean() > 0.95
