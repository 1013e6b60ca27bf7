"""Outputs: checked before anything slow, files named like signs, what a spreadsheet would run, what was written."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("content", ["[", "my notes", '{"mine": "notes"}', "[1]"])
def test_a_file_of_a_users_in_the_place_of_the_ledger_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / outputs.LEDGER
    path.write_text(content)
    with pytest.raises(InputError, match="is no record of the tables that were scored here; move it away"):
        outputs.Ledger(tmp_path)
    assert path.read_text() == content


def test_a_name_that_leaves_no_room_for_what_lies_beside_it_is_refused(tmp_path: Path) -> None:
    outputs.check_output(tmp_path / f"{'x' * 236}.csv")
    for name in (f"{'x' * 237}.csv", f"{'é' * 130}.csv", f"{'x' * 300}.csv"):
        with pytest.raises(InputError, match="its name has more than 240 bytes"):
            outputs.check_output(tmp_path / name)


@pytest.mark.parametrize("kind", ["Int64", "UInt64", "int64", "object"])
def test_an_integer_of_more_digits_than_a_sheet_holds_is_written_as_text(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"id": pd.Series([9007199254740993, 12], dtype=kind)})
    outputs.write_table(frame, tmp_path / "x.xlsx")
    back, _ = tables.read_table(tmp_path / "x.xlsx")
    assert back["id"].tolist() == ["9007199254740993", "12"]


CELLS = {
    "a\rb": "a\rb",
    "_x000D_": "_x000D_",
    "_x005F_x0041_": "_x005F_x0041_",
    "\t": "\t",
    Decimal("12345678901234567890.12"): "12345678901234567890.12",
    Decimal("0.5"): "0.5",
    float("inf"): "inf",
    dt.date(1800, 1, 2): "1800-01-02",
    dt.datetime(2020, 1, 2, 3, 4, 5, 6): "2020-01-02 03:04:05.000006",
    b"text": "text",
    dt.time(1, 2, 3, 400): "01:02:03.000400",
    dt.timedelta(hours=30): "1 day, 6:00:00",
    dt.timedelta(microseconds=-5): "-1 day, 23:59:59.999995",
    pd.Timestamp(2020, 1, 2, nanosecond=1): "2020-01-02 00:00:00.000000001",
    dt.datetime(2020, 1, 2, tzinfo=dt.UTC): "2020-01-02 00:00:00+00:00",
}


@pytest.mark.parametrize(("value", "expected"), CELLS.items())
def test_a_value_comes_out_of_a_sheet_as_it_went_in(tmp_path: Path, value: object, expected: str) -> None:
    frame = pd.DataFrame({"a": ["x"], "b": pd.Series([value], dtype=object)})
    outputs.write_table(frame, tmp_path / "x.xlsx")
    back, _ = tables.read_table(tmp_path / "x.xlsx")
    assert back["b"].tolist() == [expected]


@pytest.mark.parametrize("spreadsheet_safe", [False, True])
@pytest.mark.parametrize("name", ["x.xlsx", "x.csv"])
def test_numbers_of_few_digits_get_no_more_of_them(tmp_path: Path, name: str, spreadsheet_safe: bool) -> None:
    frame = pd.DataFrame({"a": np.array([0.1], "float32"), "b": pd.array([2**53 + 1], "Int64"), "c": ["=1"]})
    frame.columns = ["a", "a", "a"]  # which is allowed of columns that are carried along
    outputs.write_table(frame, tmp_path / name, spreadsheet_safe=spreadsheet_safe)
    back, _ = tables.read_table(tmp_path / name)
    assert back.to_numpy().tolist() == [["0.1", "9007199254740993", "'=1" if spreadsheet_safe else "=1"]]


@pytest.mark.parametrize("name", ["x.csv", "x.xlsx"])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot hold this table"):
        outputs.write_table(pd.DataFrame({"a": [b"\xff"]}), tmp_path / name)
    assert not (tmp_path / name).exists()
    outputs.write_table(pd.DataFrame({"a": [b"text"]}), tmp_path / name)
    assert tables.read_table(tmp_path / name)[0]["a"].tolist() == ["text"]


def test_formulas_in_bytes_are_escaped(tmp_path: Path) -> None:
    for name in ("x.csv", "x.xlsx", "x.parquet"):
        outputs.write_table(pd.DataFrame({"a": [b"=1", b"1"]}), tmp_path / name, spreadsheet_safe=True)
        values = tables.read_table(tmp_path / name)[0]["a"].tolist()
        assert values in (["'=1", "1"], [b"'=1", b"1"])


def test_values_come_out_of_json_as_they_went_in(tmp_path: Path) -> None:
    """The answers of many queries carry along what their table holds."""
    values = {
        "day": [dt.datetime(2020, 1, 2), dt.date(2020, 1, 2), dt.timedelta(microseconds=-5), None],
        "small": [1e-12, 0.1234567890123456, float("inf"), float("nan")],
        "short": pd.Series([0.1, 0.2, 0.3, None], dtype="float32"),
        "large": pd.Series([2**53 + 1, -(2**63), None, 0], dtype="Int64"),
        "other": [Decimal("1.10"), b"text", [1, float("nan")], {"a": True}],
    }
    outputs.write_table(pd.DataFrame(values), tmp_path / "x.json")
    rows = json.loads((tmp_path / "x.json").read_text())
    assert {name: [row[name] for row in rows] for name in values} == {
        "day": ["2020-01-02 00:00:00", "2020-01-02", "-1 day, 23:59:59.999995", None],
        "small": [1e-12, 0.1234567890123456, "inf", None],
        "short": [0.1, 0.2, 0.3, None],
        "large": [2**53 + 1, -(2**63), None, 0],
        "other": ["1.10", "text", [1, None], {"a": True}],
    }


def test_formulas_in_categories_are_escaped(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.Categorical(["=1"])})
    outputs.write_table(frame, tmp_path / "x.csv", spreadsheet_safe=True)
    assert (tmp_path / "x.csv").read_text() == "a\n'=1\n"
