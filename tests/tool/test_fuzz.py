"""A few of the random inputs of `python -m tests.fuzz`, which also says what is right."""

from tests import fuzz


def test_random_inputs_give_the_right_answer_or_one_clear_line() -> None:
    counts = fuzz.run(300, seed=1)
    assert counts["inputs"] == counts["right answers"] + counts["clear refusals"] == 300
    assert counts["right answers"] > 50
