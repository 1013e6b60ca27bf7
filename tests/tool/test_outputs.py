"""Outputs: checked before anything slow, files named like signs, what a spreadsheet would run, what was written."""

from pathlib import Path

import pandas as pd
import pytest

from patsim_utils.data import tables
from patsim_utils.errors import InputError
from patsim_utils.tool import outputs


def test_the_forms_that_are_written_are_those_that_are_read() -> None:
    assert outputs.FORMS == tables.ENDINGS


def test_a_file_called_minus_is_no_standard_output(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert outputs.destination("-") is None
    for words in ("./-", f"{tmp_path}/-"):
        with pytest.raises(InputError, match="ending is none of"):
            outputs.check_output(outputs.destination(words))
    outputs.write_table(pd.DataFrame({"a": [1]}), None)
    assert capfd.readouterr().out == "a\n1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["=1", "\n=1+1", "  =1", "\u00a0@x", "\uff1d1+1", "\ufeff=1", "\u200b-x", "\tb", "\r1"]
)
def test_a_hidden_formula_is_escaped(text: str) -> None:
    """Case 35: behind a line break, spaces or a mark that is not shown, or in full-width signs."""
    assert outputs.safe(text) == f"'{text}"


@pytest.mark.parametrize("value", ["a=1", "", "1-2", " a", -1.5, None])
def test_other_values_stay(value: object) -> None:
    assert outputs.safe(value) is value


def test_a_link_to_nothing_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.csv").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="a link to nothing"):
        outputs.check_output(tmp_path / "x.csv", overwrite=True)


def test_a_ledger_knows_what_was_written_of_what(tmp_path: Path) -> None:
    ledger = outputs.Ledger(tmp_path)
    assert ledger.state("a.csv", "one") == "missing"
    (tmp_path / "a.csv").write_text("x")
    assert ledger.state("a.csv", "one") == "foreign"
    ledger.note("a.csv", "one", b"x")
    again = outputs.Ledger(tmp_path)
    assert again.state("a.csv", "one") == "current"
    assert again.state("a.csv", "two") == "outdated"
    (tmp_path / "a.csv").write_text("y")
    assert again.state("a.csv", "one") == "foreign"
    (tmp_path / "a.csv").write_text("x")
    again.note("a.csv", "two", b"z")
    assert again.state("a.csv", "two") == "outdated", "a kill came before the writing"
    (tmp_path / "a.csv").write_text("z")
    assert again.state("a.csv", "two") == "current"
    (tmp_path / outputs.LEDGER).write_text("[")
    assert outputs.Ledger(tmp_path).state("a.csv", "one") == "foreign"


@pytest.mark.parametrize("kind", ["Int64", "UInt64", "int64", "object"])
def test_an_integer_of_more_digits_than_a_sheet_holds_is_written_as_text(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"id": pd.Series([9007199254740993, 12], dtype=kind)})
    outputs.write_table(frame, tmp_path / "x.xlsx")
    back, _ = tables.read_table(tmp_path / "x.xlsx")
    assert back["id"].tolist() == ["9007199254740993", "12"]
