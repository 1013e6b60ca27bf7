"""The form of notebook 6: a phrase and a class, an answer, a line for what a person forgot."""

from types import SimpleNamespace

import pandas as pd
import pytest

from patsim_utils.data import cpc
from patsim_utils.search import query_form
from patsim_utils.study import app


class Fake:
    """A corpus of three phrases."""

    tokenizer = SimpleNamespace(get_vocab=lambda: {"bolt": 0})
    matcher = SimpleNamespace(titles=cpc.titles(), tokenizer=tokenizer)

    def __call__(self, query: str, *, context: str, top: int) -> pd.DataFrame:
        phrases = [f"{query} in {context}", "<b>lamp", "screw"]
        rows = {"rank": [1, 2, 3], "phrase": phrases, "score": [0.9, 0.6, 0.1], "found": [2, 1, 3]}
        return pd.DataFrame(rows).head(top)


def made(**changed: object) -> query_form.Form:
    fields = {"query": "bolt", "context": "F16", "top": 2} | changed
    return query_form.Form(Fake(), **fields)


def test_a_phrase_is_searched_for_and_its_text_stays_text() -> None:
    form = made()
    form.find()
    assert "First is “bolt in F16”, score 0.90; 2 of these 2 score .5 or more." in form.answer.value
    assert "&lt;b&gt;lamp" in form.answer.value
    assert "screw" not in form.answer.value
    assert "The nearest to “bolt”" in form.answer.value


def test_a_corpus_without_such_phrases_says_so() -> None:
    form = made(top=0)
    form.find()
    assert form.answer.value == "<p><strong>Nothing is in the corpus.</strong></p>"


@pytest.mark.parametrize(
    ("field", "said"), [("query", "The field “phrase” is empty"), ("context", "The field “class” is empty")]
)
def test_an_empty_field_gets_a_line(field: str, said: str) -> None:
    form = made()
    getattr(form, field).value = " "
    form.find()
    assert form.answer.value.startswith(f'<p role="alert">{said}')


def test_voila_is_told_by_what_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    assert not app.by_voila()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5.13")
    assert app.by_voila()
