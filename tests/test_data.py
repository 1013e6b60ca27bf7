"""Checking and splitting phrase pairs: made-up files, and the real ones where a machine has them."""

import logging
import shutil
import sys
import types
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from patsim_utils import cpc, data
from patsim_utils.errors import InputError

GOOGLE = "anchor,target,rating,score,context\n"


def google(anchors: str, *, rows: int = 5) -> str:
    """A valid file: for each letter an anchor with one target a score."""
    ratings = ("0", "1a", "2a", "3", "4")
    return GOOGLE + "".join(
        f"{a} pump,{a} thing {i},{ratings[i]},{i / 4:.2f},F04\n" for a in anchors for i in range(rows)
    )


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.csv").write_bytes(text.encode())
    return folder


def pairs(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["anchor", "target", "context"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Check  Valve", "check valve"),
        ("\u00a0fuel\u00a0cell\t", "fuel cell"),
        ("\uff46\uff55\uff45\uff4c cell", "fuel cell"),
        ("fuel\r\ncell", "fuel cell"),
        ("bat\u200btery\u00ad", "battery"),
        ("\ufb01bre \u2460", "fibre 1"),
        ("\u212bNGSTR\u00d6M", "\u00e5ngstr\u00f6m"),
        ("NULL", "null"),
    ],
)
def test_one_phrase_in_any_spelling_has_one_identity(text: str, expected: str) -> None:
    assert data.normalise(text) == expected
    assert data.normalise(expected) == expected
    frame = pairs((text, expected, "H01"))
    assert data.check_pairs(frame).iloc[0].tolist() == [expected, expected, "H01"]


def test_both_forms_of_the_data_are_read(tmp_path: Path) -> None:
    frame = data.read_pairs(write(tmp_path, train=google("ab")) / "train.csv")
    assert list(frame.columns) == ["anchor", "target", "context", "score", "rating"]
    assert frame["score"].tolist() == [0, 0.25, 0.5, 0.75, 1] * 2
    assert frame["rating"].tolist() == ["0", "1a", "2a", "3", "4"] * 2
    competition = "id,Anchor,TARGET,context,score\n1,a b,null,H04,.5\n2,a b,nan,h04,5e-1\n"
    frame = data.read_pairs(write(tmp_path, train=competition) / "train.csv")
    assert frame.to_numpy().tolist() == [["a b", "null", "H04", 0.5], ["a b", "nan", "H04", 0.5]]


def test_pairs_to_be_scored_come_as_they_are(tmp_path: Path) -> None:
    text = "note,Target,anchor,context\nx,Fuel  Cell,a,H01M\nx,Fuel  Cell,a,H01M\n"
    frame = data.read_pairs(write(tmp_path, p=text) / "p.csv", scored=False)
    assert frame.to_csv(index=False) == text
    assert data.check_pairs(frame).to_numpy().tolist() == [["a", "fuel cell", "H01"]] * 2


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT, 3.5, ["x"]])
@pytest.mark.parametrize("column", ["anchor", "target", "context"])
def test_a_missing_value_or_number_in_a_frame_is_refused(column: str, value: object) -> None:
    frame = pairs(("a", "b", "H01"), ("a", "c", "H01")).astype(object)
    frame.index = ["first", "second"]
    frame.at["second", column] = value
    with pytest.raises(InputError, match=f"frame, row 'second', column {column}: .* is (missing|no text)"):
        data.check_pairs(frame)


def test_a_frame_is_checked_as_a_file_is() -> None:
    with pytest.raises(InputError, match="column 'context' is missing; there are 'anchor, target'"):
        data.check_pairs(pairs(("a", "b", "H01"))[["anchor", "target"]])
    with pytest.raises(InputError, match="half a character"):
        data.check_pairs(pd.DataFrame([["a", "b\ud800", "H01"]], columns=data.KEY, dtype=object))
    assert data.check_pairs(pairs()).empty
    rows = datasets.Dataset.from_pandas(pairs(("A", "b", "h01")))
    assert data.check_pairs(rows).to_numpy().tolist() == [["a", "b", "H01"]]
    odd = data.check_pairs(pairs(("a", "b", "H99"), ("a", "b", "")), unknown="embedding")
    assert odd["context"].tolist() == ["H99", ""]


def test_class_symbols_are_read_by_their_class_which_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    frame = pairs(*(("a", f"b{i}", text) for i, text in enumerate(["H01", "H01M", "H01M 8/04", " h01 ", "h01m8/04"])))
    with caplog.at_level(logging.WARNING, logger="patsim"):
        for _ in range(2):
            assert set(data.check_pairs(frame, place="p.csv")["context"]) == {"H01"}
    assert [record.getMessage() for record in caplog.records] == [
        "p.csv: 4 contexts are read as their CPC class, such as 'H01M' as H01"
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",b,3,.75,H04", "row 3, column anchor: '' is an empty phrase"),
        ("a,\u200b,3,.75,H04", "row 3, column target: .* is an empty phrase"),
        ("a,b,3,.75,H", "row 3, column context: 'H' is no CPC class"),
        ("a,b,3,.75,H99", "row 3, column context: 'H99' is no CPC class"),
        ("a,b,3,.8,H04", "row 3, column score: '.8' is none of 0, 0.25"),
        ("a,b,3,nan,H04", "row 3, column score: 'nan'"),
        ("a,b,2d,.5,H04", "row 3, column rating: '2d' is none of 4, 3"),
        ("a,b,3,.5,H04", "row 3, column rating: '3' contradicts score '.5'"),
        ("A  PUMP,a thing 0,4,1,F04", "row 3, column target: .* stand in row 2 already .scores '0.00' and '1'"),
        (f"a,{'x' * 500}\x1b,3,.5,H04", "contradicts"),
    ],
)
def test_a_bad_row_is_named_in_one_short_line(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, p=google("a", rows=1) + row + "\n") / "p.csv"
    with pytest.raises(InputError, match=message) as caught:
        data.read_pairs(path)
    assert str(caught.value).startswith(f"{path}, ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.parametrize("name", ["validation.csv", "valid.csv", "val.csv", "dev.csv", "VALID.CSV"])
def test_given_splits_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    write(tmp_path, train=google("abc"), test=google("hi"))
    (tmp_path / name).write_text(google("fg"))
    splits = data.load(tmp_path)
    assert {name: frame["anchor"].nunique() for name, frame in splits.items()} == {
        "train": 3,
        "validation": 2,
        "test": 2,
    }
    write(tmp_path, dev2="", **{"validation" if name != "validation.csv" else "val": google("fg")})
    with pytest.raises(InputError, match="are both there; keep one"):
        data.load(tmp_path)


@pytest.mark.parametrize(("anchors", "held_out"), [(4, 2), (14, 5), (40, 4)])
def test_without_a_validation_file_enough_anchors_are_held_out(tmp_path: Path, anchors: int, held_out: int) -> None:
    text = GOOGLE + "".join(google("@").removeprefix(GOOGLE).replace("@", f"number {i}") for i in range(anchors))
    splits = data.load(write(tmp_path, train=text))
    assert splits["validation"]["anchor"].nunique() == held_out
    assert not set(splits["train"]["anchor"]) & set(splits["validation"]["anchor"])
    assert sum(map(len, splits.values())) == 5 * anchors
    other = data.load(tmp_path, seed=1)
    assert set(other["validation"]["anchor"]) != set(splits["validation"]["anchor"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": google("abc"), "validation": google("f")}, "validation cannot be measured .*at least 2 anchors"),
        ({"train": google("abc"), "validation": google("fg", rows=1)}, "validation cannot be measured .*vary"),
        ({"train": google("abc", rows=1), "validation": google("fg")}, "train cannot be measured"),
        ({"train": google("abc")}, "3 anchors are too few to be split"),
        ({"validation": google("abc")}, r"train\.csv: is missing"),
        ({"train": google("ab"), "validation": google("bc").upper()}, "'b pump' stands in train.csv too .1 shared"),
        ({"train": google("ab"), "validation": GOOGLE}, "no row below its header"),
    ],
)
def test_what_cannot_be_trained_or_measured_is_refused_on_load(tmp_path: Path, files: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.load(write(tmp_path, **files))


def test_only_the_bare_word_is_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sample", train=google("abc"), validation=google("fg"))
    monkeypatch.chdir(tmp_path)
    for name in ("./sample", "sample/", str(tmp_path / "sample"), Path("sample")):
        assert len(data.load(name)["train"]) == 15
    assert len(data.load("sample")["train"]) == 1515
    with pytest.raises(InputError, match="no such folder"):
        data.load(tmp_path / "nothing")


def test_the_unscored_test_file_of_the_competition_is_left_aside(tmp_path: Path) -> None:
    write(tmp_path, train=google("abc"), validation=google("fg"), test='"id","anchor","target","context"\n1,a,b,H04\n')
    assert list(data.load(tmp_path)) == ["train", "validation"]


def test_the_random_protocol_splits_rows_as_the_source_did(tmp_path: Path) -> None:
    write(tmp_path, train=google("abcdefghijklmnopqrstuvw"), validation=google("xy"))
    splits = data.load(tmp_path, protocol="random", seed=42)
    whole = data.read_pairs(tmp_path / "train.csv")
    expected = train_test_split(whole, test_size=0.1, random_state=42)
    assert splits["validation"]["target"].tolist() == expected[1]["target"].tolist()
    assert list(splits) == ["train", "validation"]


def test_equal_rows_have_an_equal_fingerprint(tmp_path: Path) -> None:
    one = data.load(write(tmp_path / "a", train=google("abc"), validation=google("fg")))
    same = data.load(write(tmp_path / "b", train=google("abc").replace(" pump", "  PUMP"), validation=google("fg")))
    other = data.load(write(tmp_path / "c", train=google("abd"), validation=google("fg")))
    assert data.fingerprint(one) == data.fingerprint(same) != data.fingerprint(other)
    assert data.fingerprint(one)["validation"] == data.fingerprint(other)["validation"]


def test_shared_anchors_counts_anchors_and_distinct_pairs() -> None:
    one = pairs(("a", "x", "H01"), ("a", "y", "H01"), ("b", "x", "H01"))
    two = pairs(("a", "x", "F16"), ("a", "z", "H01"), ("c", "x", "H01"))
    found = data.shared_anchors({"train": one, "test": two})
    assert found.iloc[0].tolist() == ["train", "test", 1, 1]


def test_grouped_folds_keep_anchors_together_and_scores_apart(tmp_path: Path) -> None:
    frame = data.read_pairs(write(tmp_path, train=google("abcdefghij")) / "train.csv")
    fold = data.grouped_folds(frame, folds=5)
    assert (pd.Series(fold).groupby(frame["anchor"]).nunique() == 1).all()
    assert np.bincount(fold).tolist() == [10] * 5
    with pytest.raises(InputError, match=r"folds: 11 is not in 2\.\.10"):
        data.grouped_folds(frame, folds=11)


def test_the_sample_is_a_folder_like_any_other(tmp_path: Path) -> None:
    shutil.copytree(data.SAMPLE, tmp_path / "copy")
    for name, frame in data.load(tmp_path / "copy").items():
        pd.testing.assert_frame_equal(frame, data.load("sample")[name])
        assert set(frame["context"]) <= set(cpc.CLASSES)


@pytest.fixture
def kagglehub(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for the package: no account and no network here."""
    module = types.ModuleType("kagglehub")
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return module


def test_kaggle_is_the_folder_that_kagglehub_gives_or_one_line(tmp_path: Path, kagglehub: types.ModuleType) -> None:
    write(tmp_path / "versions", train=google("abc"), validation=google("fg"))
    kagglehub.dataset_download = lambda name: str(tmp_path)
    assert len(data.load("kaggle")["train"]) == 15
    (tmp_path / "versions" / "train.csv").unlink()
    with pytest.raises(InputError, match="should hold one train.csv"):
        data.load("kaggle")

    def fail(name: str) -> str:
        raise RuntimeError("no\nnetwork")

    kagglehub.dataset_download = fail
    with pytest.raises(InputError, match="cannot be fetched .'RuntimeError: no"):
        data.load("kaggle")


def test_the_real_files_load_with_the_known_counts(real_data: Path) -> None:
    splits = data.load(real_data)
    assert {name: (len(frame), frame["anchor"].nunique()) for name, frame in splits.items() if name != "test"} == {
        "train": (36473, 733),
        "validation": (2843, 57),
    }
    leaked = data.load(real_data, protocol="random", seed=42)
    assert set(leaked["validation"]["anchor"]) <= set(leaked["train"]["anchor"])
