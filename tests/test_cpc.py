"""CPC codes, glosses and tree; a small made-up title list, and the official one where a machine has it."""

import re
import zipfile
from pathlib import Path

import pytest

from patsim_utils import cpc
from patsim_utils.errors import InputError


@pytest.fixture
def small_zip(tmp_path: Path) -> Path:
    """A made-up list of three codes with everything the cleaning has to mend."""
    lines = [
        "H\t\tSPARKS",
        "H04\t\tTALKING {AND SINGING (not H05)} BY WIRE (bells (small) G10; {horns G10}); ECHOES {; NOISE}",
        "H04B\t\tSHOUTING, e.g. ACROSS VALLEYS; (whispering H04C) ",
        "H04B1/00\t0\tVery loud",
    ]
    path = tmp_path / "titles.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cpc-section-H_20300101.txt", "\n".join(lines) + "\n")
        archive.writestr("readme.txt", "X\t\tNOT A TITLE")
    return path


def test_codes_are_unknown_then_sections_then_classes():
    assert cpc.CODES[0] == "unknown"
    assert cpc.CODES[1:10] == tuple("ABCDEFGHY")
    assert len(cpc.CODES) == 1 + 9 + 128
    assert all(re.fullmatch(r"[A-HY]\d\d", code) for code in cpc.CODES[10:])
    assert list(cpc.CODES[10:]) == sorted(set(cpc.CODES[10:]))


def test_every_gloss_is_short_plain_and_its_own():
    titles = cpc.titles()
    assert tuple(titles) == cpc.CODES
    assert titles.pop("unknown") == ""
    for code, title in titles.items():
        assert re.fullmatch(r"[a-z0-9 ,;-]+", title), (code, title)
        assert 3 <= len(title.split()) <= 10, (code, title)
    assert len(set(titles.values())) == len(titles)


def test_code_index_is_the_row_in_codes():
    assert [cpc.code_index(code) for code in cpc.CODES[1:]] == list(range(1, len(cpc.CODES)))


@pytest.mark.parametrize("context", ["unknown", "", "Z01", "h04", "H04L", " H04", "A99", "nan"])
def test_other_text_is_an_error_or_the_unknown_row(context: str):
    with pytest.raises(InputError, match=re.escape(repr(context))):
        cpc.code_index(context)
    assert cpc.code_index(context, unknown="embedding") == 0


def test_a_misspelt_choice_for_unknown_codes_is_an_error():
    with pytest.raises(InputError, match="'ignore' is none of error, embedding"):
        cpc.code_index("H04", unknown="ignore")


def test_the_section_is_above_the_class():
    assert (cpc.parent("H04"), cpc.parent("H"), cpc.parent("unknown")) == ("H", None, None)
    assert (cpc.section("H04"), cpc.section("H"), cpc.section("unknown")) == ("H", "H", "unknown")
    for place in (cpc.parent, cpc.section):
        with pytest.raises(InputError, match="'Z01'"):
            place("Z01")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(
            (text, "H01")
            for text in (
                "H01",
                "h01",
                " H01\t",
                "H01M",
                "h01m",
                "H01M 8/04",
                "H01M8/0432",
                "H01M 8",
                "\uff28\uff10\uff11",
            )
        ),
        *(
            (text, None)
            for text in (
                "",
                "H",
                "H1",
                "H99",
                "I01",
                "Z01",
                "H012",
                "H01MM",
                "H01 8/04",
                "H01M 8/",
                "unknown",
                "H01;H02",
            )
        ),
    ],
)
def test_a_class_is_read_in_any_spelling_of_its_symbol(text: str, code: str | None):
    assert cpc.class_of(text) == code


def test_titles_from_a_zip_are_cleaned_and_gaps_keep_their_gloss(small_zip: Path):
    titles = cpc.titles(small_zip)
    assert tuple(titles) == cpc.CODES
    assert titles["H"] == "sparks"
    assert titles["H04"] == "talking and singing by wire; echoes; noise"
    assert titles["H05"] == cpc.titles()["H05"]


def test_a_file_that_is_no_title_list_is_an_error(tmp_path: Path):
    for path in (tmp_path / "missing.zip", tmp_path / "text.zip", tmp_path / "other.zip"):
        if path.stem == "text":
            path.write_text("no zip")
        if path.stem == "other":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("readme.txt", "H\t\tELECTRICITY")
        with pytest.raises(InputError, match=re.escape(str(path))):
            cpc.titles(path)


def test_our_codes_are_those_of_the_official_list(cpc_zip: Path):
    with zipfile.ZipFile(cpc_zip) as archive:
        lines = [line for name in archive.namelist() for line in archive.read(name).decode().splitlines()]
    official = {line.split("\t")[0] for line in lines}
    classes = {code for code in official if len(code) == 3}
    left_over = {code for code in classes if code.endswith("99")}
    assert set(cpc.CODES[1:]) == {code for code in official if len(code) == 1} | classes - left_over


def test_official_titles_are_read_for_every_code(cpc_zip: Path):
    titles, glosses = cpc.titles(cpc_zip), cpc.titles()
    assert titles["H04"] == "electric communication technique"
    assert titles["A21"] == "baking; edible doughs"
    for code in cpc.CODES[1:]:
        assert titles[code], code
        assert titles[code] != glosses[code], f"{code}: a gloss is not to be a copy"
        assert not set(titles[code]) & set("{}()"), titles[code]
