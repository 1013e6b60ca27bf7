"""Forms of files: what is read without a guess, and what is refused with its cause."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from patsim_utils.errors import InputError
from patsim_utils.tables import read_table

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
        ("a.csv", TEXT.encode("utf-8-sig")),
        ("a.csv", TEXT.encode("utf-16")),
        ("a.csv", '"anchor", target ,"context"\n"fuel cell",null,H01\nvalve,cock,F16'),
        ("a.csv", "anchor,target,context,,\nfuel cell,null,H01,,\nvalve,cock,F16,,\n,,,,\n\n,,\n"),
        ("a.csv", "anchor,target,context\nfuel cell,null,H01,,\nvalve,cock,F16\n"),
        ("a.tsv", TEXT.replace(",", "\t")),
        ("a.csv.gz", gzip.compress(TEXT.encode())),
        ("a.tsv.gz", gzip.compress(TEXT.replace(",", "\t").encode())),
    ],
)
def test_forms_of_text_that_are_read(tmp_path: Path, name: str, content: str | bytes) -> None:
    frame, lines = read_table(written(tmp_path, name, content))
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=False)
    assert lines == [2, 3]


def test_parquet_and_excel_are_read(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "a.parquet")
    extra = pd.concat([FRAME.assign(**{"": "", "note": ["NA", ""]}), pd.DataFrame([[""] * 5])], ignore_index=True)
    FRAME.assign(note=["NA", ""]).to_excel(tmp_path / "a.xlsx", index=False)
    assert len(extra) == 3
    for name, expected in (("a.parquet", FRAME), ("a.xlsx", FRAME.assign(note=["NA", ""]))):
        frame, lines = read_table(tmp_path / name)
        pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
        assert lines == [2, 3]


def test_a_carriage_return_within_a_value_ends_no_row(tmp_path: Path) -> None:
    content = 'anchor,target,note\r\nfuel cell,battery,"a\rb"\r\nvalve,cock,c\rd\r\n"two\nlines",x,y\r\n'
    frame, lines = read_table(written(tmp_path, "a.csv", content))
    assert frame["note"].tolist() == ["a\rb", "c\rd", "y"]
    assert frame["anchor"].iloc[2] == "two\nlines"
    assert lines == [2, 3, 4]


def test_a_value_of_any_length_is_read(tmp_path: Path) -> None:
    frame, _ = read_table(written(tmp_path, "a.csv", f"anchor\n{'x' * 200_000}\n"))
    assert len(frame["anchor"].iloc[0]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", "\n\n", "is empty"),
        ("a.csv", TEXT.replace(",", ";"), "row 1: the columns seem to be separated by ';', not by ','"),
        ("a.tsv", TEXT, "separated by ',', not by"),
        ("a.csv", TEXT + "a,b\n", "row 4: has 2 values, the header 3"),
        ("a.csv", TEXT + "a,b,c,d\n", "row 4: has 4 values, the header 3"),
        ("a.csv", TEXT + '"a,b,c\n', "row 4: is no CSV"),
        ("a.csv", TEXT.encode() + b"\xffa,b,c\n", "row 4: byte 0xff is not UTF-8"),
        ("a.csv", TEXT.encode("utf-16-le"), "holds a zero byte"),
        ("a.csv", TEXT.encode("utf-16")[:-1], "is not UTF-16"),
        ("a.csv.gz", gzip.compress(TEXT.encode())[:-9], "no whole gzip file"),
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
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
