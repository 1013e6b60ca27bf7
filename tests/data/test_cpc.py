"""CPC codes, glosses and tree; a small made-up title list, and the official one where a machine has it."""

import re
import zipfile
from pathlib import Path

import pytest

from patsim_utils.data import cpc
from patsim_utils.errors import InputError


def test_codes_are_unknown_then_sections_then_classes():
    assert cpc.CODES[0] == "unknown"
    assert cpc.CODES[1:10] == tuple("ABCDEFGHY")
    assert len(cpc.CODES) == 1 + 9 + 128
    assert all(re.fullmatch(r"[A-HY]\d\d", code) for code in cpc.CODES[10:])
    assert list(cpc.CODES[10:]) == sorted(set(cpc.CODES[10:]))
    assert [cpc.code_index(code) for code in cpc.CODES[1:]] == list(range(1, len(cpc.CODES)))


def test_every_gloss_is_short_plain_and_its_own():
    titles = cpc.titles()
    assert tuple(titles) == cpc.CODES
    assert titles.pop("unknown") == ""
    for code, title in titles.items():
        assert re.fullmatch(r"[a-z0-9,;-]+( [a-z0-9,;-]+){2,9}", title), (code, title)
    assert len(set(titles.values())) == len(titles)


@pytest.mark.parametrize("context", ["unknown", "", "Z01", "h04", "H04L", " H04", "A99", "nan"])
def test_other_text_is_an_error_or_the_unknown_row(context: str):
    with pytest.raises(InputError, match=re.escape(repr(context))):
        cpc.code_index(context)
    assert cpc.code_index(context, unknown="embedding") == 0


def test_the_section_is_above_the_class():
    assert (cpc.parent("H04"), cpc.parent("H"), cpc.parent("unknown")) == ("H", None, None)


@pytest.mark.parametrize(
    "text",
    ["H01", "h01", " H01\t", "H01M", "h01m", "H01M 8/04", "H01M8/0432", "h01m8/04", "H01M 8", "\uff28\uff10\uff11"],
)
def test_a_class_is_read_in_any_spelling_of_its_symbol(text: str):
    assert cpc.class_of(text) == "H01"


@pytest.mark.parametrize(
    "text", ["", "H", "H1", "H99", "I01", "Z01", "H012", "H01MM", "H01M8/", "H01 8/04", "unknown", "H01;H02"]
)
def test_what_is_no_symbol_of_a_known_class_has_no_class(text: str):
    assert cpc.class_of(text) is None


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_titles_from_a_zip_are_cleaned_and_gaps_keep_their_gloss(tmp_path: Path, mark: str):
    lines = [
        "H\t\tSPARKS",
        "H04\t\tTALKING {AND SINGING (not H05)} BY WIRE (bells (small) G10; {horns G10}); ECHOES {; NOISE}",
        "H04B\t\tSHOUTING, e.g. ACROSS VALLEYS; (whispering H04C) ",
        "H04B1/00\t0\tVery loud",
    ]
    with zipfile.ZipFile(tmp_path / "titles.zip", "w") as archive:
        archive.writestr("list/cpc-section-H_20300101.txt", mark + "\n".join(lines) + "\n")
        archive.writestr("__MACOSX/list/._cpc-section-H_20300101.txt", b"\0\5\x16\7\xff")  # as a Mac adds
    titles = cpc.titles(tmp_path / "titles.zip")
    assert (titles["H"], titles["H04"]) == ("sparks", "talking and singing by wire; echoes; noise")
    assert titles == cpc.titles() | {"H": titles["H"], "H04": titles["H04"]}


def test_a_list_without_titles_has_no_phrases(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "titles.zip", "w") as archive:
        archive.writestr("readme.txt", "H04\t\tTALKING")
    with pytest.raises(InputError, match="holds no titles"):
        cpc.title_phrases(tmp_path / "titles.zip")


def test_a_list_without_titles_of_classes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "titles.zip", "w") as archive:
        archive.writestr("cpc-section-H_20300101.txt", "H04B1/00\t0\tVery loud")
    with pytest.raises(InputError, match="has no title of a CPC section or class"):
        cpc.titles(tmp_path / "titles.zip")


def test_phrases_of_titles_come_with_those_of_the_group_above(tmp_path: Path) -> None:
    lines = [
        "E05B\t\tLOCKS",
        "E05B1/00\t0\tVehicle locks {(latches E05C)}",
        "E05B1/02\t1\tfor hoods",
        "E05B1/04\t2\tHood-latches, e.g. safety catches; Springs",
        "E05B1/06\t1\tStructure of the bolts",
        "E05B3/00\t0\tParts of a lock that nobody has ever described",
        "E05B3/02\t1\tOf two keys",
        "E05B3/04\t1\tÉpées or swords",
        "X99B3/06\t1\tTumbler pins",
        "E05B5/00\t0\tHandles connected with very long iron levers",
    ]
    with zipfile.ZipFile(tmp_path / "titles.zip", "w") as archive:
        archive.writestr("cpc-section-E_20300101.txt", "\n".join(lines))
    assert cpc.title_phrases(tmp_path / "titles.zip") == [
        ("locks", "vehicle locks", "E05"),
        ("vehicle locks", "hood latches", "E05"),
        ("vehicle locks", "structure", "E05"),
        ("locks", "parts", "E05"),
        ("locks", "handles connected", "E05"),
    ]


@pytest.mark.parametrize("content", [None, "no zip", {"readme.txt": "H\t\tX"}, {"cpc-section-H_1.txt": "a\tb\tc"}])
def test_a_file_that_is_no_title_list_is_one_line(tmp_path: Path, content: str | dict | None):
    path = tmp_path / "titles.zip"
    if isinstance(content, str):
        path.write_text(content)
    elif content:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(*content.popitem())
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        cpc.titles(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("parts", [1, 40])
def test_a_title_list_that_unpacks_without_end_is_one_line(tmp_path: Path, parts: int):
    with zipfile.ZipFile(tmp_path / "titles.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(parts):
            archive.writestr(f"{number}/cpc-section-H_20300101.txt", " " * (2**26 // parts + 1))
    with pytest.raises(InputError, match="its sections unpack to 67,108,"):
        cpc.titles(tmp_path / "titles.zip")


@pytest.mark.parametrize("title", ["(" * 10**6 + ")" * 10**6, "x" * 10**6])
def test_a_title_without_end_is_one_line_at_once(tmp_path: Path, title: str):
    with zipfile.ZipFile(tmp_path / "titles.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cpc-section-H_20300101.txt", f"H04\t\t{title}\n")
    with pytest.raises(InputError, match="the title of H04 has [12],000,000 characters"):
        cpc.titles(tmp_path / "titles.zip")


def test_our_codes_and_titles_are_those_of_the_official_list(cpc_zip: Path):
    with zipfile.ZipFile(cpc_zip) as archive:
        lines = [line for name in archive.namelist() for line in archive.read(name).decode().splitlines()]
    official = {code for line in lines if len(code := line.split("\t")[0]) in (1, 3) and not code.endswith("99")}
    assert set(cpc.CODES[1:]) == official
    titles = cpc.titles(cpc_zip)
    assert (titles["H04"], titles["A21"]) == ("electric communication technique", "baking; edible doughs")
    for code, gloss in list(cpc.titles().items())[1:]:
        assert titles[code] not in ("", gloss), f"{code}: a gloss is not to be a copy"
        assert not set(titles[code]) & set("{}()"), titles[code]
