"""The form of notebook 0: an answer in words, a list that is ranked, a line for what a person forgot."""

from types import SimpleNamespace

import pandas as pd
import pytest

from patsim_utils.data import cpc
from patsim_utils.study import app


class Fake:
    """A model that finds phrases alike by their first letter."""

    titles = cpc.titles()
    tokenizer = SimpleNamespace(get_vocab=lambda: dict.fromkeys(("bolt", "bar", "screw", "lamp"), 0))

    def score(self, anchor: str, target: str) -> float:
        return 0.92 if anchor[0] == target[0] else 0.05

    def read(self, frame: pd.DataFrame) -> SimpleNamespace:
        scores = [self.score(row.anchor, row.target) for row in frame.itertuples()]
        relations = pd.DataFrame({"narrower": 0.3, "same_or_synonym": [0.7] * len(frame)})
        return SimpleNamespace(scores=scores, relations=relations)

    def rank(self, query: str, candidates: list[str], *, context: str) -> pd.DataFrame:
        scores = [self.score(query, candidate) for candidate in candidates]
        table = pd.DataFrame({"rank": 1, "target": candidates, "score": scores})
        return table.sort_values("score", ascending=False)


@pytest.fixture
def form() -> app.Form:
    return app.Form(Fake(), anchor="bolt", target="bar", context="F16", candidates="screw; bar ;; <b>lamp")


def test_two_phrases_get_an_answer_in_words(form: app.Form) -> None:
    form.compare()
    said = "“bar” for “bolt” in F16: very likely the same; .92; "
    said += "“bar” is most probably the same or a synonym"
    assert form.answer.value == f"<p><strong>{said}</strong></p>"
    form.target.value = "screw"
    assert form.answer.value == ""  # it was that of another phrase
    form.compare()
    assert "unrelated; .05" in form.answer.value
    assert "no word" not in form.answer.value
    assert app.short_number(1.0) == "1"
    assert app.short_number(0.999) == "1"


def test_a_list_is_ranked_and_its_text_stays_text(form: app.Form) -> None:
    form.rank()
    assert "3 phrases, the nearest to “bolt” in F16 first" in form.ranking.value
    assert form.ranking.value.index(">bar<") < form.ranking.value.index(">screw<")
    assert "&lt;b&gt;lamp" in form.ranking.value


def test_a_phrase_of_no_word_and_one_of_other_letters_get_a_warning(form: app.Form) -> None:
    form.anchor.value = "asdf qwer"
    form.target.value = "\u043d\u0430\u0441\u043e\u0441"
    form.compare()
    notes = form.answer.value.split("<p ")[1:]
    assert notes[0].startswith('role="note">&#39;asdf qwer&#39;: no word of it is known')
    assert "is not in Latin letters" in notes[1]
    form.rank()
    assert "no word of it is known" in form.ranking.value


def test_kinds_of_relation_are_in_words_of_everyday() -> None:
    table = app.relations(Fake(), "bolt", "bar", "F16")
    assert table["relation"].to_list() == ["a narrower term", "the same or a synonym"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("anchor", "The field “phrase” is empty"),
        ("target", "The field “other phrase” is empty"),
        ("context", "The field “class” is empty"),
    ],
)
def test_an_empty_field_gets_a_line(form: app.Form, field: str, said: str) -> None:
    getattr(form, field).value = "  "
    form.compare()
    assert form.answer.value.startswith(f'<p role="alert">{said}')


def test_an_empty_list_and_a_class_that_is_none_get_a_line(form: app.Form) -> None:
    form.candidates.value = " ;\n"
    form.rank()
    assert "The list is empty" in form.ranking.value
    form.context.value = "<i>Q99"
    form.compare()
    assert "“&lt;i&gt;Q99” is no class: type a word of its title and pick" in form.answer.value


def test_a_class_is_found_by_its_code_or_its_title(form: app.Form) -> None:
    assert form.context.value == f"F16 {cpc.titles()['F16']}"
    assert len(form.context.options) == len(cpc.CLASSES)
    form.context.value = "h04w 4/00"
    assert app.code_of(form.context) == "H04"


def test_a_model_is_loaded_by_folder_or_name(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(app.Matcher, "load", lambda path="small": path)
    monkeypatch.setattr(app, "run_folder", lambda name: tmp_path / name)
    (tmp_path / "mine").mkdir()
    assert app.load() == "small"
    assert app.load("large") == "large"
    assert app.load("mine") == tmp_path / "mine"
    assert app.load("./mine") == "./mine"


def test_four_queries_rank_ten_candidates_each() -> None:
    tables = app.rankings(Fake())
    assert [len(table) for table in tables.values()] == [10] * 4
    assert all(list(table) == ["rank", "target", "score"] for table in tables.values())
    for context in (context for _, context in app.QUERIES):
        assert context in cpc.CLASSES
    assert app.firsts(tables).startswith("First for “door lock” in E05: “door hinge” (.92); “solar panel” in H02: ")
