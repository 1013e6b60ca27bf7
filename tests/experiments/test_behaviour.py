"""The pairs that a person can judge: what counts as right, and that the file is sound."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from patsim_utils.data import cpc
from patsim_utils.data.pairs import check_pairs, normalise
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
