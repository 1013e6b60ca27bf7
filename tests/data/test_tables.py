"""Forms of files: what is read without a guess, and what is refused with its cause."""

import gzip
import re
import subprocess
import sys
import zipfile
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

from patsim_utils.data import csv_text, parquet, tables, workbooks
from patsim_utils.data.tables import read_batches, read_table
from patsim_utils.errors import InputError

TEXT = "anchor,target,context\nfuel cell,null,H01\nvalve,cock,F16\n"
FRAME = pd.DataFrame([["fuel cell", "null", "H01"], ["valve", "cock", "F16"]], columns=["anchor", "target", "context"])


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TEXT),
        ("a.CSV", TEXT.replace("\n", "\r\n")),
        ("a.csv", TEXT.replace("\n", "\r")),
        ("a.csv", TEXT.replace("\n", "\r\r\n")),
        ("a.csv", TEXT.encode("utf-8-sig")),
        ("a.csv", TEXT.encode("utf-16")),
        ("a.csv", '"anchor", target ,"context"\n"fuel cell",null,H01\nvalve,cock,F16'),
        ("a.csv", '"anchor", "target", "context"\n"fuel cell", "null", "H01"\n"valve", "cock", "F16"\n'),
        ("a.csv", "anchor,target,context,,\nfuel cell,null,H01,,\nvalve,cock,F16,,\n,,,,\n\n,,\n"),
        ("a.csv", "anchor,target,context\nfuel cell,null,H01,,\nvalve,cock,F16\n"),
        ("a.tsv", TEXT.replace(",", "\t")),
        ("a.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("a.tsv.gz", gzip.compress(TEXT.replace(",", "\t").encode(), mtime=0)),
    ],
)
def test_forms_of_text_that_are_read(tmp_path: Path, name: str, content: str | bytes) -> None:
    frame, lines = read_table(written(tmp_path, name, content))
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=False)
    assert lines == [2, 3]


def test_parquet_and_excel_are_read(tmp_path: Path) -> None:
    expected = FRAME.assign(note=["NA", ""])
    expected.set_index("anchor").to_parquet(tmp_path / "a.parquet")
    pd.concat([expected.assign(**{"": ""}), pd.DataFrame({"": [""] * 3})]).to_excel(tmp_path / "a.xlsx", index=False)
    for name in ("a.parquet", "a.xlsx"):
        frame, lines = read_table(tmp_path / name)
        pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
        assert lines == [2, 3]


def test_a_sheet_is_read_as_its_own_csv_would_be_but_for_dates_and_errors_in_a_phrase(tmp_path: Path) -> None:
    def saved(*rows: tuple, header: tuple = ("anchor", "target", "context", "note")) -> Path:
        book = Workbook()
        for row in (header, *rows):
            book.active.append(row)
        book.save(tmp_path / "a.xlsx")
        return tmp_path / "a.xlsx"

    frame, _ = read_table(saved((100, 0.1 + 0.2, "H01", date(2026, 5, 4)), ("a_x000D_\nb", "c", "H01", None)))
    assert frame.to_numpy().tolist() == [["100", "0.3", "H01", "2026-05-04"], ["a\r\nb", "c", "H01", ""]]
    for value in (date(2026, 5, 4), "#REF!"):
        with pytest.raises(InputError, match="row 3, column target: .* is a date or an error of the spreadsheet"):
            read_table(saved(("a", "b", "H01", ""), ("a", value, "H01", "")))
    with pytest.raises(InputError, match="row 3, column phrase: .* is a date or an error of the spreadsheet"):
        read_table(saved(("steel",), (date(2026, 5, 4),), header=("phrase",)))


@pytest.mark.parametrize(
    ("value", "number_format", "expected"),
    [
        (1067, "00000", "01067"),
        (-7, "000", "-007"),
        (1067, "0", "1067"),
        (0.5, "00000", "0.5"),
        (True, "00000", "TRUE"),
        (date(2026, 5, 4), "yyyy-mm-dd", "2026-05-04"),
        (datetime(2026, 5, 4), "yyyy-mm-dd hh:mm", "2026-05-04 00:00:00"),
        (datetime(2026, 5, 4, 1, 2), "yyyy-mm-dd", "2026-05-04 01:02:00"),
        (12345678, "00000\\-0000", "012345678"),
        (1234567, "000-00-0000", "001234567"),
        (1067, "00000;[Red]-00000", "01067"),
        (1067, '[$-407]"DE-"00000_ ', "01067"),
        (1067, "00000.00", "1067"),
    ],
)
def test_the_zeros_of_a_postal_code_stay_and_a_day_gets_no_time(
    tmp_path: Path, value: object, number_format: str, expected: str
) -> None:
    book = Workbook()
    book.active.append(("anchor", "code"))
    book.active.append(("pump", value))
    book.active["B2"].number_format = number_format
    book.save(tmp_path / "a.xlsx")
    assert read_table(tmp_path / "a.xlsx")[0]["code"].tolist() == [expected]


def test_a_number_that_is_too_large_for_the_date_it_is_shown_as_is_refused(tmp_path: Path) -> None:
    book = Workbook()
    book.active.append(("anchor", "id"))
    book.active.append(("pump", 10_000_000))
    book.active["B2"].number_format = "yyyy-mm-dd"
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="Cell B2 is marked as a date but the serial value"):
        read_table(tmp_path / "a.xlsx")


@pytest.mark.parametrize(("end", "sign"), [("\r\n", "\r"), ("\n", "\r"), ("\r", "\n")])
def test_a_carriage_return_or_line_feed_within_a_value_ends_no_row(tmp_path: Path, end: str, sign: str) -> None:
    rows = ["anchor,target,note", f'fuel cell,battery,"a{sign}b"', f"valve,cock,c{sign}d", '"two\r\nlines",x,y', ""]
    frame, lines = read_table(written(tmp_path, "a.csv", end.join(rows)))
    assert frame["note"].tolist() == [f"a{sign}b", f"c{sign}d", "y"]
    assert frame["anchor"].iloc[2] == "two\r\nlines"
    assert len(lines) == 3


def test_an_empty_row_between_others_is_a_row_and_values_may_be_long(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, "a.csv", "a,b\n1,2\n\n,\n3,4\n,\n"))[1] == [2, 4, 5]
    assert read_table(written(tmp_path, "a.csv", f"a,b\n{'x' * 200_000},2\n"))[0].iloc[0, 0] == "x" * 200_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", "\n , \n", "is empty"),
        ("a.csv", "anchor,score,score \n1,2,3\n", "column 'score' stands 2 times"),
        ("a.csv", TEXT + "a,b\n", "row 4: has 2 values, the header 3"),
        ("a.csv", TEXT + "a,b,c,d\n", "row 4: has 4 values, the header 3"),
        ("a.csv", TEXT + '"a,b,c\n', "row 4: is no CSV"),
        ("a.csv", "é,,\n".encode() + TEXT.encode() + b"\xffa,b,c\n", "row 5: byte 0xff is not UTF-8"),
        ("a.csv", TEXT.encode("utf-16-le"), "holds a zero byte"),
        ("a.csv", TEXT.encode("utf-16")[:-1], "is not UTF-16"),
        ("a.csv.gz", gzip.compress(TEXT.encode(), mtime=0)[:-9], "no whole gzip file"),
        ("a.csv.gz", TEXT, "no whole gzip file"),
        ("a.parquet", b"PAR1xxxx", "cannot be read as a Parquet"),
        ("a.xlsx", b"PK\3\4xx", "cannot be read as an Excel"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_cause(tmp_path: Path, name: str, content, message: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["", "none.csv", "zero\0.csv", "line\nend.csv", "x" * 300])
def test_a_path_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_table(tmp_path / name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def saved(path: Path, *rows: tuple) -> Path:
    """A workbook with these rows in its only sheet."""
    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", TEXT.replace(",", ";"), "its columns are separated by ';', not by ','"),
        ("a.csv", TEXT.replace(",", "\t"), "its columns are separated by a tab, not by ','"),
        ("a.tsv", TEXT, "its columns are separated by ',', not by a tab"),
        (
            "a.csv",
            TEXT.replace("cock", "café").encode("cp1252"),
            r"is read as Windows-1252, such as row 3: 'valve,café,",
        ),
        ("a.csv", TEXT.replace(",", ";").replace("cock", "“café”").encode("cp1252"), "is read as Windows-1252"),
    ],
)
def test_other_separators_and_windows_1252_are_read_and_said(tmp_path: Path, caplog, name, content, message) -> None:
    frame, lines = read_table(written(tmp_path, name, content))
    words = frame.to_numpy().ravel().tolist()
    assert words in (["fuel cell", "null", "H01", "valve", word, "F16"] for word in ("cock", "café", "“café”"))
    assert lines == [2, 3]
    assert re.search(message, caplog.text)


def test_a_separator_that_is_part_of_a_name_changes_nothing(tmp_path: Path, caplog) -> None:
    frame, _ = read_table(written(tmp_path, "a.csv", "phrase,note;context\nsteel,a;b\n"))
    assert frame.to_dict("list") == {"phrase": ["steel"], "note;context": ["a;b"]}
    assert not caplog.text


SWALLOWED = """anchor,target,context
"5 in pipe,tube,F16
hose,pipe,F16
spray nozzle,jet,B05
flexible hose 5",tube,F16
valve,tap,F16
"""


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.csv", SWALLOWED, "row 2: .*ends in row 5"),
        ("a.tsv", SWALLOWED.replace(",", "\t"), "row 2: .*ends in row 5"),
        ("a.csv", SWALLOWED.replace(",", ";").replace("\n", "\r\n"), "row 2: .*ends in row 5"),
        ("a.csv", 'phrase,context\nhose,F16\npipe,"F16\nvalve,F16"\n', "row 3: .*ends in row 4"),
        ("a.csv", 'anchor,target,context\na,"1 in tube,F16\nb,2 in "tube,F16\n', "row 2: is no CSV"),
        ("a.csv", SWALLOWED.replace(' 5"', ""), "row 2: is no CSV"),
    ],
)
def test_a_quote_that_swallows_rows_is_refused(tmp_path: Path, name: str, text: str, rows: str) -> None:
    with pytest.raises(InputError, match=rows):
        read_table(written(tmp_path, name, text))


def test_an_inch_sign_within_a_value_is_a_letter_and_values_over_lines_are_said(tmp_path: Path, caplog) -> None:
    frame, _ = read_table(written(tmp_path, "a.csv", 'phrase\npipe of 5" bore\n"5"" pipe"\n'))
    assert frame["phrase"].tolist() == ['pipe of 5" bore', '5" pipe']
    assert not caplog.text
    frame, lines = read_table(written(tmp_path, "b.csv", 'phrase\n"5 in pipe\nhose 5"\nvalve\n"a\n\nb"\n'))
    assert frame["phrase"].tolist() == ["5 in pipe\nhose 5", "valve", "a\n\nb"]
    assert lines == [2, 4, 5]
    assert "b.csv: 2 rows go over several lines, since a value in quotes does: row 2, '5 in pipe" in caplog.text


def test_integers_with_gaps_come_out_as_they_went_in(tmp_path: Path) -> None:
    columns = {
        "id": pa.array([9007199254740993, None], pa.int64()),
        "unsigned": pa.array([None, 2**64 - 1], pa.uint64()),
        "small": pa.array([None, -7], pa.int8()),
        "category": pa.array([None, 9007199254740993], pa.int64()).dictionary_encode(),
        "list": pa.array([[9007199254740993, None], None]),
        "record": pa.array([{"n": None}, {"n": 9007199254740993}], pa.struct({"n": pa.int64()})),
        "number": pa.array([0.5, None]),
        "text": pa.array(["x", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    frame, _ = read_table(tmp_path / "a.parquet")
    lines = frame.to_csv(index=False, sep=";").splitlines()
    assert lines[1:] == [
        "9007199254740993;;;;[9007199254740993, None];{'n': None};0.5;x",
        ";18446744073709551615;-7;9007199254740993;;{'n': 9007199254740993};;",
    ]
    frame.to_parquet(tmp_path / "b.parquet")
    again = pq.read_table(tmp_path / "b.parquet").drop_columns(["category", "text"])
    assert again.to_pydict() == pa.table(columns).drop_columns(["category", "text"]).to_pydict()


def test_categories_are_plain_values(tmp_path: Path) -> None:
    FRAME.astype("category").to_parquet(tmp_path / "a.parquet")
    frame, _ = read_table(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=False)
    assert not any(isinstance(kind, pd.CategoricalDtype) for kind in frame.dtypes)


def formulas(path: Path, *, stored: str, column: str = "C2") -> Path:
    """A workbook with the formula ="H"&"01" in a cell, and what is stored as its value."""
    saved(
        tmp := path.with_name("plain.xlsx"), ("anchor", "target", "context", "id"), ("fuel cell", "battery", "x", "y")
    )
    cell = re.compile(rf'<c r="{column}"[^>]*>.*?</c>')
    with zipfile.ZipFile(tmp) as plain, zipfile.ZipFile(path, "w") as changed:
        for name in plain.namelist():
            text = plain.read(name)
            if name.endswith("sheet1.xml"):
                text = cell.sub(stored, text.decode()).encode()
            changed.writestr(name, text)
    return path


@pytest.mark.parametrize("column", ["C2", "D2", "E2"])
@pytest.mark.parametrize("value", ["", "<v/>", "<v></v>"])
def test_a_formula_without_a_stored_value_is_refused(tmp_path: Path, column: str, value: str) -> None:
    before = "" if column != "E2" else '<c r="D2" t="inlineStr"><is><t>y</t></is></c>'
    stored = f'{before}<c r="{column}"><f>"H"&amp;"01"</f>{value}</c>'
    path = formulas(tmp_path / "a.xlsx", stored=stored, column="D2" if column == "E2" else column)
    with pytest.raises(InputError, match=rf"a\.xlsx, cell {column}: a formula has no stored value"):
        read_table(path)


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        ('<c r="C2" t="str"><f>"H"&amp;"01"</f><v>H01</v></c>', "H01"),
        ('<c r="C2" t="str"><f>""</f><v></v></c>', ""),
        ('<c r="C2" s="0"/>', ""),
        ("", ""),
    ],
)
def test_a_stored_value_of_a_formula_and_an_empty_cell_are_read(tmp_path: Path, stored: str, value: str) -> None:
    frame, _ = read_table(formulas(tmp_path / "a.xlsx", stored=stored))
    assert frame.to_numpy().tolist() == [["fuel cell", "battery", value, "y"]]


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_the_first_sheet_that_is_shown_is_read_which_is_said(tmp_path: Path, caplog, state: str) -> None:
    book = Workbook()
    book.active.title = "lookup"
    book.active.append(["anchor"])
    book.active.sheet_state = state
    for name in ("pairs", "more"):
        book.create_sheet(name).append(["anchor", name])
    book.active = 1
    book.save(tmp_path / "a.xlsx")
    frame, _ = read_table(tmp_path / "a.xlsx")
    assert list(frame.columns) == ["anchor", "pairs"]
    assert "a.xlsx: sheet 'pairs' is read; not read: 'lookup' (hidden), 'more'" in caplog.text.replace('"', "")


def test_a_number_that_is_a_query_is_said(tmp_path: Path, caplog) -> None:
    read_table(saved(tmp_path / "q.xlsx", ("query", "context"), (12, "H01")))
    assert "q.xlsx: numbers that are read as phrases: 1, such as row 2, column query: '12'" in caplog.text


def test_a_number_that_is_a_phrase_is_said(tmp_path: Path, caplog) -> None:
    rows = [("Anchor", "target", "context", "id"), (100, "a", "H01", 7), ("b", 0.5, "H01", 8), ("c", True, "H01", None)]
    frame, _ = read_table(saved(tmp_path / "a.xlsx", *rows))
    assert frame["target"].tolist() == ["a", "0.5", "TRUE"]
    assert "a.xlsx: numbers that are read as phrases: 3, such as row 2, column anchor: '100'" in caplog.text


def with_rows(path: Path, rows: str) -> Path:
    """A workbook with these rows, in the format's own XML."""
    plain_path = saved(path.with_name("plain.xlsx"), ("phrase",))
    with zipfile.ZipFile(plain_path) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in plain.namelist():
            text = plain.read(name).decode()
            if name.endswith("sheet1.xml"):
                text = re.sub("<sheetData>.*</sheetData>", f"<sheetData>{rows}</sheetData>", text)
            changed.writestr(name, text)
    return path


def test_small_files_that_spread_out_are_refused_in_little_memory(tmp_path: Path) -> None:
    """By a process that may take 600 MB more than it has when its imports are done."""
    header = '<row r="1"><c r="A1" t="inlineStr"><is><t>phrase</t></is></c></row>'
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 2**20]))
    pq.write_table(pa.table({"phrase": text}), tmp_path / "text.parquet")
    lists = pa.ListArray.from_arrays([0, 40_000_000], pa.array(np.zeros(40_000_000, np.int64)))
    pq.write_table(pa.table({"phrase": ["x"], "long": lists}), tmp_path / "list.parquet")
    words = pa.ListArray.from_arrays([0, 2000], text)
    pq.write_table(pa.table({"phrase": ["x"], "long": words}), tmp_path / "words.parquet")
    fixed = pa.array([b"x" * 2**20] * 300, pa.binary(2**20))
    pq.write_table(pa.table({"phrase": ["x"] * 300, "wide": fixed}), tmp_path / "fixed.parquet")
    paths = {
        with_rows(tmp_path / "far.xlsx", f'{header}<row r="2"><c r="XFD2"><v>1</v></c></row>' + "<row/>" * 10_000): (
            "row 2: '1' stands 16,383 columns right of the last name"
        ),
        with_rows(tmp_path / "styled.xlsx", header + '<row><c/><c r="XFD1" s="0"/></row>' * 20_000): (
            "row 1222: the sheet has more than 1,048,576 rows, or 20,000,000 cells"
        ),
        with_rows(
            tmp_path / "down.xlsx", f'{header}<row r="99999999999"><c><v>1</v></c></row>'
        ): "row 1048577: the sheet",
        tmp_path / "text.parquet": "holds 2,097,152,000 bytes, more than",
        tmp_path / "list.parquet": "has 40,000,000 values, more than 5,000,000",
        tmp_path / "words.parquet": "holds 2,097,152,001 bytes, more than",
        tmp_path / "fixed.parquet": "holds 314,572,800 bytes, more than",
    }
    program = (
        "import openpyxl, pathlib, resource, sys\n"
        "from patsim_utils.data.tables import read_table\n"
        "from patsim_utils.errors import InputError\n"
        "size = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 600 * 2**20, -1))\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_table(path)\n"
        "    except InputError as error: print(error)"
    )
    command = [sys.executable, "-c", program, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    for (path, message), line in zip(paths.items(), done.stdout.splitlines(), strict=True):
        assert path.stat().st_size < 2**20
        assert line.startswith(str(path))
        assert message in line


def test_limits_of_size_are_looked_at_before_anything_is_unpacked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "LARGEST_UNPACKED", 1000)
    with pytest.raises(InputError, match="unpacks to more than 1,000 bytes"):
        read_table(written(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n" * 251, mtime=0)))
    assert len(read_table(written(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n" * 250, mtime=0)))[0]) == 249
    monkeypatch.setattr(csv_text, "MOST_CELLS", 9)
    assert len(read_table(written(tmp_path, "a.csv", TEXT))[0]) == 2
    path = written(tmp_path, "a.csv", TEXT + "a,b,F16\n")
    with pytest.raises(InputError, match="has about 12 values, more than 9"):
        read_table(path)
    assert len(list(read_batches(path, rows=2))) == 2
    monkeypatch.setattr(workbooks, "LARGEST_UNPACKED", 1000)
    with pytest.raises(InputError, match="unpacks to .* bytes, more than 1,000"):
        read_table(saved(tmp_path / "a.xlsx", ("phrase",)))
    monkeypatch.setattr(parquet, "MOST_CELLS", 5)
    FRAME.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has 6 values, more than 5"):
        read_table(tmp_path / "a.parquet")
    assert len(list(read_batches(tmp_path / "a.parquet", rows=1))) == 2


def test_a_table_of_more_rows_than_are_read_at_a_time_is_one_table(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "PIECE_ROWS", 2)
    text = "\n,\nx,x,note,\n1,2,3,,\n4,5,6\n7,8,9,\n,,,\n\n10,11,12,,,\n,,\n"
    frame, lines = read_table(written(tmp_path, "a.csv", text))
    assert frame.columns.tolist() == ["x", "x", "note"]
    assert frame["note"].tolist() == ["3", "6", "9", "", "12"]
    assert frame.index.tolist() == [0, 1, 2, 3, 4]
    assert lines == [4, 5, 6, 7, 9]
    frame, lines = read_table(written(tmp_path, "b.csv", "a,b,\n1,2,\n3,4,\n5,6,x\n"))
    assert frame[""].tolist() == ["", "", "x"]
    frame, lines = read_table(written(tmp_path, "c.csv", "a,b,,\n"))
    assert (frame.columns.tolist(), len(frame), lines) == (["a", "b"], 0, [])


def test_a_note_beside_the_table_is_carried_along(tmp_path: Path) -> None:
    frame, _ = read_table(saved(tmp_path / "a.xlsx", ("phrase",), ("steel", None, "see below"), ("tin",)))
    assert frame.to_numpy().tolist() == [["steel", "", "see below"], ["tin", "", ""]]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.parquet", "a.xlsx"])
def test_pieces_put_together_are_the_table(tmp_path: Path, name: str) -> None:
    rows = [(f"phrase {i}", f"target {i}", "H01", 2**60 + i) for i in range(25)]
    frame = pd.DataFrame(rows, columns=["anchor", "target", "context", "id"])
    if name == "a.parquet":
        frame["id"] = frame["id"].astype("Int64").mask(frame["id"] % 2 == 0)
        frame.to_parquet(tmp_path / name)
    elif name == "a.xlsx":
        saved(tmp_path / name, tuple(frame.columns), *frame.astype(str).itertuples(index=False))
    else:
        frame.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name else ",")
    pieces = list(read_batches(tmp_path / name, rows=10))
    assert [len(piece) for piece, _ in pieces] == [10, 10, 5]
    whole, lines = read_table(tmp_path / name)
    together = pd.concat([piece for piece, _ in pieces], ignore_index=True)
    pd.testing.assert_frame_equal(together, whole)
    assert [line for _, part in pieces for line in part] == lines == list(range(2, 27))


def test_a_row_that_does_not_fit_is_refused_in_its_piece(tmp_path: Path) -> None:
    pieces = read_batches(written(tmp_path, "a.csv", "a,b\n1,2\n3,4\n5\n"), rows=2)
    assert next(pieces)[1] == [2, 3]
    with pytest.raises(InputError, match="row 4: has 1 values, the header 2"):
        next(pieces)
    with pytest.raises(InputError, match="is empty"):
        next(read_batches(written(tmp_path, "b.csv", "\n\n")))


def test_bytes_that_were_read_already_are_the_table(tmp_path: Path) -> None:
    frame, _ = read_table(tmp_path / "pipe", content=TEXT.encode())
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=False)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no such device")
def test_a_device_without_an_end_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/zero: is a device, which may have no end"):
        read_table("/dev/zero")


@pytest.mark.parametrize(
    ("part", "end", "tags"),
    [
        ("xl/styles.xml", "</cellXfs>", "<xf/>"),
        ("xl/styles.xml", "</fonts>", "<font/>"),
        ("xl/workbook.xml", "</sheets>", "<x/>"),
        ("xl/worksheets/sheet1.xml", "</sheetData>", "<row><c><is><r></r></is></c></row>"),
    ],
)
def test_a_small_workbook_of_many_tags_is_refused_before_they_become_objects(
    tmp_path: Path, part: str, end: str, tags: str
) -> None:
    path = saved(tmp_path / "plain.xlsx", ("phrase",))
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as changed:
        for name in plain.namelist():
            text = plain.read(name).decode()
            if name == part:
                assert end in text
                text = text.replace(end, tags * 600_000 + end)
            changed.writestr(name, text)
    assert (tmp_path / "a.xlsx").stat().st_size < 2**18
    with pytest.raises(InputError, match=f"{part}' has more than 500,000 tags"):
        read_table(tmp_path / "a.xlsx")


def test_a_table_of_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(20_000)]
    with pytest.raises(InputError, match="has 20,000 columns, more than 16,384"):
        read_table(written(tmp_path, "a.csv.gz", gzip.compress(",".join(names).encode())))
    pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has 20,000 columns, more than 16,384"):
        read_table(tmp_path / "a.parquet")
