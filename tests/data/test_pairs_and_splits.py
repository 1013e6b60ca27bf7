"""Checking and splitting phrase pairs: made-up files, and the real ones where a machine has them."""

import logging
import sys
import types
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from patsim_utils.data import cpc
from patsim_utils.data.pairs import check_pairs, is_one_phrase, normalise, read_pairs
from patsim_utils.data.splits import fingerprint, grouped_folds, load, shared_anchors
from patsim_utils.data.tables import read_table
from patsim_utils.errors import InputError, RowError

GOOGLE = "anchor,target,rating,score,context\n"


def google(anchors: str | list[str], *, rows: int = 5) -> str:
    """A valid file: each anchor with one target a score."""
    kinds = ["0,0.00", "1a,0.25", "2a,0.50", "3,0.75", "4,1.00"][:rows]
    return GOOGLE + "".join(f"{a} pump,{a} {i},{kind},F04\n" for a in anchors for i, kind in enumerate(kinds))


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.csv").write_bytes(text.encode())
    return folder


def pairs(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["anchor", "target", "context"])


@pytest.mark.parametrize(
    "text",
    [
        "Fu\u00cbl  CELL",
        "\u00a0fu\u00ebl\u00a0cell\t",
        "\uff46u\u00ebl\u3000cell\ufeff",
        "fue\u200b\u0308l\r\n\x1bce\u00adll",
    ],
)
def test_one_phrase_in_any_spelling_has_one_identity(text: str) -> None:
    assert normalise(text) == normalise("fu\u00ebl cell") == "fu\u00ebl cell"
    assert check_pairs(pairs((text, "NULL", "H01"))).iloc[0].tolist() == ["fu\u00ebl cell", "null", "H01"]


@pytest.mark.parametrize(
    ("anchor", "target", "one"),
    [
        ("air bag", "air-bag", True),
        ("optical fibre", "optical fiber", True),
        ("moulded fibre-board", "molded fiberboard", True),
        ("gas ioniser", "gas ionizer", True),
        ("sulphonated polymer", "sulfonated polymer", True),
        ("precise control", "precise control", True),
        ("tyre", "tired", False),
        ("optical fibre", "optical fibers", False),
        ("rise", "rice", False),
    ],
)
def test_phrases_in_british_and_american_spelling_are_one(anchor: str, target: str, one: bool) -> None:
    frame = pd.DataFrame({"anchor": [anchor, target], "target": [target, anchor]})
    assert is_one_phrase(frame["anchor"], frame["target"]).tolist() == [one, one]


def test_both_forms_of_the_data_are_read(tmp_path: Path) -> None:
    frame = read_pairs(write(tmp_path, train=google("ab")) / "train.csv")
    assert list(frame.columns) == ["anchor", "target", "context", "score", "rating"]
    assert frame["score"].tolist() == [0, 0.25, 0.5, 0.75, 1] * 2
    assert frame["rating"].tolist() == ["0", "1a", "2a", "3", "4"] * 2
    competition = "id,Anchor,TARGET,context,score\n1,a b,null,H04,.5\n2,a b,nan,h04,-0\n"
    frame = read_pairs(write(tmp_path, train=competition) / "train.csv")
    assert frame.astype(str).to_numpy().tolist() == [["a b", "null", "H04", "0.5"], ["a b", "nan", "H04", "0.0"]]


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT, 3.5, ["x"], b"x"])
@pytest.mark.parametrize("column", ["anchor", "target", "context"])
def test_missing_values_and_numbers_are_refused_with_row_and_column(column: str, value: object) -> None:
    frame = pairs(("a", "b", "H01"), ("a", "c", "H01")).astype(object).set_index(pd.Index(["first", "{second}"]))
    frame.at["{second}", column] = value
    with pytest.raises(InputError, match=rf"frame, row '{{second}}', column {column}: .*(value is missing|is no text)"):
        check_pairs(frame)


def test_a_frame_is_checked_as_a_file_is() -> None:
    with pytest.raises(InputError, match="column 'context' is missing; there are 'anchor, target'"):
        check_pairs(pairs(("a", "b", "H01"))[["anchor", "target"]])
    with pytest.raises(InputError, match="column 'anchor' stands 2 times"):
        check_pairs(pairs(("a", "b", "H01")).assign(ANCHOR="c"))
    with pytest.raises(InputError, match=r"row 0, column target: 'b\\ud800' holds half a character"):
        check_pairs(pairs(("a", "b", "H01")).astype(object).replace("b", "b\ud800"))
    for other in ([("a", "b", "H01")], {"anchor": ["a"]}, pd.Series(["a"]), datasets.DatasetDict()):
        with pytest.raises(InputError, match=f"is of type {type(other).__name__}"):
            check_pairs(other)
    with pytest.raises(InputError, match="parameter unknown: 'ignore' is none of error, embedding"):
        check_pairs(pairs(), unknown="ignore")
    assert check_pairs(pairs()).empty
    assert len(check_pairs(pairs(("a", "b", "H01"), ("a", "b", "H01")))) == 2
    rows = datasets.Dataset.from_pandas(pairs(("A", "b", "h01")))
    assert check_pairs(rows).to_numpy().tolist() == [["a", "b", "H01"]]
    odd = check_pairs(pairs(("a", "b", "H99"), ("a", "b", "")).set_index(pd.Index([7, 7])), unknown="embedding")
    assert (odd["context"].tolist(), odd.index.tolist()) == (["H99", ""], [7, 7])


def test_class_symbols_are_read_by_their_class_which_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    frame = pairs(*(("a", f"b{i}", text) for i, text in enumerate(["H01", "H01M", "H01M 8/04", " h01 ", "h01m8/04"])))
    with caplog.at_level(logging.WARNING, logger="patsim"):
        for _ in range(2):
            assert set(check_pairs(frame, source="p.csv")["context"]) == {"H01"}
    said = "p.csv: 4 contexts are read as their CPC class, such as 'H01M' as H01"
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",b,3,.75,H04", "row 3, column anchor: '' is an empty phrase"),
        ("a,\u200b,3,.75,H04", "row 3, column target: .* is an empty phrase"),
        ("a,b,3,.75,H", "row 3, column context: 'H' is no CPC class"),
        ("a,b,3,.8,H04", "row 3, column score: '.8' is none of 0, 0.25"),
        ("a,b,3,0_1,H04", "row 3, column score: '0_1'"),
        ("a,b,2d,.5,H04", "row 3, column rating: '2d' is none of 4, 3"),
        ("a,b,3,.5,H04", "row 3, column rating: '3' contradicts score '.5'"),
        ("A  PUMP,a 0,4,1,F04", "row 3, column target: 'A  PUMP', .* in row 2 already .scores '0.00' and '1'"),
        ("a pump,a\u00a00,0,0,f04", "row 3, column target: .* in row 2 already .scores '0.00' and '0'"),
        (f"a,{{{'x' * 500}\x1b,3,.5,H04", "contradicts"),
    ],
)
def test_a_bad_row_is_named_in_one_short_line(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, p=google("a", rows=1) + row + "\n") / "p.csv"
    with pytest.raises(InputError, match=message) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}, ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(path)) + 400


def test_all_bad_rows_are_listed_with_what_would_help(tmp_path: Path) -> None:
    lines = [f"a{i},b,{'H01' if i < 3 else 'H99'}" for i in range(20)]
    path = write(tmp_path, p="anchor,target,context\n" + "\n".join(lines)) / "p.csv"
    frame, rows = read_table(path)
    with pytest.raises(InputError) as caught:
        check_pairs(frame, source="p.csv", lines=rows)
    assert str(caught.value) == (
        "p.csv, row 5, column context: 'H99' is no CPC class that pairs are rated in, such as H04 "
        "(and 16 more rows: 6, 7, 8, 9, 10, 11, 12, 13, 14, …); "
        "--unknown embedding (in Python unknown='embedding') takes any text in its place"
    )
    assert check_pairs(frame, unknown="embedding")["context"].iloc[3] == "H99"
    with pytest.raises(RowError, match=r"row 4, column anchor: ' ' is an empty phrase \(and 1 more row: 6\)$") as error:
        check_pairs(pairs(("a", "b", "H01"), (" ", "", ""), ("a", "b", "H02"), ("a", "b", "x")), lines=[2, 4, 5, 6])
    assert error.value.faults == {
        1: "column anchor: ' ' is an empty phrase",
        3: "column context: 'x' is no CPC class that pairs are rated in, such as H04",
    }
    with pytest.raises(InputError, match=r"row 3, .*'1d' contradicts score '0'.*\(and 2 more rows: 4, 6\)$"):
        read_pairs(
            write(tmp_path, r=GOOGLE + "a,b,0,0,H01\na,c,1d,0,H01\na,d,4,0,H01\na,e,0,0,H01\na,f,3,1,H01") / "r.csv"
        )
    with pytest.raises(InputError, match=r"row 3, .*stand in row 2 already .*\(and 1 more row: 4\)$"):
        read_pairs(write(tmp_path, r=GOOGLE + 3 * "a,b,0,0,H01\n") / "r.csv")


def test_categories_are_phrases_like_others() -> None:
    frame = pairs(("A", "b", "h01"), ("c", "d", "F16"))
    pd.testing.assert_frame_equal(check_pairs(frame.astype("category")), check_pairs(frame))


@pytest.mark.parametrize("name", ["validation.csv", "valid.csv", "val.csv", "dev.csv", "VALID.CSV"])
def test_given_splits_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    write(tmp_path, train=google("abc"), test='"id","Anchor","target","context"\n1,a,b,H04\n')
    (tmp_path / name).write_text(google("fg"))
    assert list(load(tmp_path)) == ["train", "validation"], "the unscored test.csv of the competition is left out"
    write(tmp_path, test=google("hi"))
    sizes = {name: frame["anchor"].nunique() for name, frame in load(tmp_path).items()}
    assert sizes == {"train": 3, "validation": 2, "test": 2}
    pd.read_csv(tmp_path / name).to_parquet(tmp_path / "val.parquet")
    with pytest.raises(InputError, match="are both there; keep one"):
        load(tmp_path)


@pytest.mark.parametrize(("anchors", "held_out"), [(4, 2), (14, 5), (40, 4)])
def test_without_a_validation_file_enough_anchors_are_held_out(tmp_path: Path, anchors: int, held_out: int) -> None:
    splits = load(write(tmp_path, train=google([f"number {i}" for i in range(anchors)])))
    assert splits["validation"]["anchor"].nunique() in (held_out - 1, held_out)
    assert shared_anchors(splits).to_numpy().tolist() == [["train", "validation", 0, 0]]
    assert sum(map(len, splits.values())) == 5 * anchors
    others = [load(tmp_path, seed=seed)["validation"] for seed in range(1, 6)]
    assert any({*other["anchor"]} != {*splits["validation"]["anchor"]} for other in others)


def test_the_largest_anchor_is_not_held_out_whatever_the_seed(tmp_path: Path) -> None:
    sizes = [200, 150, *[5] * 28]
    rows = [f"a{i} pump,thing {j},{j % 5},{j % 5 / 4},F04\n" for i, size in enumerate(sizes) for j in range(size)]
    write(tmp_path, train=google("") + "".join(rows).replace(",1,", ",1a,").replace(",2,", ",2a,"))
    held_out = [{*load(tmp_path, seed=seed)["validation"]["anchor"]} for seed in range(8)]
    assert all(2 <= len(anchors) <= 28 for anchors in held_out)
    assert sum("a0 pump" in anchors for anchors in held_out) < 4
    assert len(set.union(*held_out)) > 2 * max(map(len, held_out))


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (google("abc"), google("f"), "validation cannot be measured .*at least 2 anchors"),
        (google("abc"), google("fg", rows=1), "validation cannot be measured .*vary"),
        (google("abc", rows=1), google("fg"), "train cannot be measured"),
        (google("ab"), google("bc").upper(), "row 2, column anchor: 'b pump' stands in train.csv too .1 shared"),
        (google("ab"), GOOGLE, "no row below its header"),
    ],
)
def test_what_cannot_be_measured_is_refused_on_load(tmp_path: Path, train: str, validation: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, train=train, validation=validation))
    (tmp_path / "validation.csv").unlink()
    with pytest.raises(InputError, match="rows of [23] anchors are too few to be split"):
        load(tmp_path)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(InputError, match=r"train\.csv: is missing"):
        load(tmp_path)


def test_only_the_bare_word_is_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sample", train=google("abc"), validation=google("fg"))
    monkeypatch.chdir(tmp_path)
    for name in ("./sample", "sample/", str(tmp_path / "sample"), Path("sample")):
        assert len(load(name)["train"]) == 15
    sample = load("sample")["train"]
    assert len(sample) == 1515
    assert set(sample["context"]) <= set(cpc.CLASSES)
    for name in ("nothing", "kaggle/", "x" * 300, "a\0b", "sample/train.csv"):
        with pytest.raises(InputError, match="no such folder"):
            load(name)
    with pytest.raises(InputError, match="protocol: 'by_row' is none of"):
        load("sample", protocol="by_row")


def test_the_random_protocol_splits_rows_as_the_source_did(tmp_path: Path) -> None:
    write(tmp_path, train=google("abcdefghijklmnopqrstuvw"))
    splits = load(tmp_path, protocol="random", seed=42)
    expected = train_test_split(read_pairs(tmp_path / "train.csv"), test_size=0.1, random_state=42)
    for found, part in zip(splits.values(), expected, strict=True):
        pd.testing.assert_frame_equal(found, part.reset_index(drop=True))


def test_equal_rows_have_an_equal_fingerprint(tmp_path: Path) -> None:
    texts = (google("abc"), google("abc").replace(" pump", "  PUMP"), google("abd"))
    frames = [read_pairs(write(tmp_path, p=text) / "p.csv") for text in texts]
    one, same, other = (fingerprint({"train": frame}) for frame in frames)
    assert one == same != other


def test_shared_anchors_counts_anchors_and_distinct_pairs() -> None:
    one, two = (pairs(*(("a", t, "H01") for t in targets), (targets[0], "x", "F16")) for targets in ("xyx", "xz"))
    assert shared_anchors({"train": one, "test": two}).iloc[0].tolist() == ["train", "test", 2, 2]


def test_grouped_folds_keep_anchors_together_and_scores_apart(tmp_path: Path) -> None:
    frame = read_pairs(write(tmp_path, train=google("abcdefghij")) / "train.csv")
    fold = grouped_folds(frame, folds=5)
    assert (pd.Series(fold).groupby(frame["anchor"]).nunique() == 1).all()
    assert (pd.crosstab(fold, frame["score"]) == 2).all(axis=None)
    assert not np.array_equal(fold, grouped_folds(frame, folds=5, seed=1))
    with pytest.raises(InputError, match=r"folds: 11 is not in 2\.\.10"):
        grouped_folds(frame, folds=11)


def test_kaggle_is_the_folder_that_kagglehub_gives_or_one_line(tmp_path: Path, monkeypatch) -> None:
    module = types.SimpleNamespace(dataset_download=lambda name: str(tmp_path))
    monkeypatch.setitem(sys.modules, "kagglehub", module)  # no account and no network here
    write(tmp_path / "versions", train=google("abc"), validation=google("fg"))
    assert len(load("kaggle")["train"]) == 15
    (tmp_path / "versions" / "train.csv").unlink()
    with pytest.raises(InputError, match="cannot be fetched .*should hold one train.csv, not 0"):
        load("kaggle")


def test_the_real_files_load_with_the_known_counts(real_data: Path) -> None:
    splits = load(real_data)
    sizes = {name: (len(frame), frame["anchor"].nunique()) for name, frame in splits.items() if name != "test"}
    assert sizes == {"train": (36473, 733), "validation": (2843, 57)}
    assert (shared_anchors(splits)["anchors"] == 0).all()
    assert shared_anchors(load(real_data, protocol="random", seed=42))["anchors"].item() > 700
