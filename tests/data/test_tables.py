"""Forms of files: what is read without a guess, and what is refused with its cause."""

import gzip
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from openpyxl import Workbook

from patsim_utils.data.tables import read_table
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
    assert frame.to_numpy().tolist() == [["100", "0.3", "H01", "2026-05-04 00:00:00"], ["a\r\nb", "c", "H01", ""]]
    for value in (date(2026, 5, 4), "#REF!"):
        with pytest.raises(InputError, match="row 3, column target: .* is a date or an error of the spreadsheet"):
            read_table(saved(("a", "b", "H01", ""), ("a", value, "H01", "")))
    with pytest.raises(InputError, match="row 3, column phrase: .* is a date or an error of the spreadsheet"):
        read_table(saved(("steel",), (date(2026, 5, 4),), header=("phrase",)))


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
        ("a.csv", TEXT.replace(",", ";"), "row 1: columns seem separated by ';', not by ','"),
        ("a.tsv", TEXT, "separated by ',', not by"),
        ("a.csv", TEXT + "a,b\n", "row 4: has 2 values, the header 3"),
        ("a.csv", TEXT + "a,b,c,d\n", "row 4: has 4 values, the header 3"),
        ("a.csv", TEXT + '"a,b,c\n', "row 4: is no CSV"),
        ("a.csv", TEXT.encode() + b"\xffa,b,c\n", "row 4: byte 0xff is not UTF-8"),
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
