"""Phrases of which a score means little: few false alarms among real ones, and what a hand on the keys types."""

import random

import pandas as pd
import pytest

from patsim_utils.data.splits import load
from patsim_utils.experiments import behaviour
from patsim_utils.layouts.words import Words
from patsim_utils.method.encoder import load_tokenizer


@pytest.fixture(scope="module")
def words() -> Words:
    return Words(load_tokenizer("minilm").get_vocab())


@pytest.mark.parametrize("phrase", ["asdf qwer", "lkjhg", "  ASDF ", "sdfkjh kjsdhf"])
def test_what_is_no_word_is_strange(words: Words, phrase: str) -> None:
    assert words.is_strange(phrase)
    assert words.doubt(phrase).endswith("no word of it is known; a score of it means little")


@pytest.mark.parametrize(
    "phrase",
    ["polytetrafluoroethylene", "nozzle", "pcb", "1 bromopropane", "knaalsi3o8", "asdf bolt", "", "§"],
)
def test_substances_abbreviations_and_formulas_are_not(words: Words, phrase: str) -> None:
    assert not words.is_strange(phrase)
    assert words.doubt(phrase) == ""


def test_of_the_phrases_that_ship_hardly_one_is_strange(words: Words) -> None:
    frames = [*load("sample").values(), behaviour.read()]
    rows = pd.concat(frames)
    phrases = {*rows["anchor"], *rows["target"]}
    strange = [phrase for phrase in phrases if words.is_strange(phrase)]
    assert len(strange) <= 0.005 * len(phrases)


def test_letters_at_random_are_mostly_strange(words: Words) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("qwertyuiopasdfghjkl", k=6)) for _ in range(200)]
    assert sum(map(words.is_strange, texts)) >= 0.75 * len(texts)


def test_other_letters_are_said_too(words: Words) -> None:
    assert "is not in Latin letters" in words.doubt("\u043d\u0430\u0441\u043e\u0441")
