"""Read, check and split phrase pairs: a row rates how alike an anchor and a target are in one CPC class.

Two forms of CSV are read: Google's release (anchor, target, rating, score, context) and the Kaggle
competition (id, anchor, target, context, score). The data set is Google's Patent Phrase Similarity, CC BY 4.0
(Aslanyan and Wetherbee 2022, arXiv 2208.01171); the sample in the package was written for this project.
"""

import csv
import io
import itertools
import warnings
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from patsim_utils import cpc
from patsim_utils.errors import InputError

SAMPLE = Path(__file__).with_name("sample")
KAGGLE = "google/google-patent-phrase-similarity-dataset"
SPLITS = ("train", "validation", "test")
PROTOCOLS = ("anchor_disjoint", "random")
KEY = ["anchor", "target", "context"]
SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)
RATINGS = ("4", "3", "2a", "2b", "2c", "1a", "1b", "1c", "1d", "0")  # the first digit is four times the score


def load(data: str | Path, *, protocol: str = "anchor_disjoint", seed: int = 0) -> dict[str, pd.DataFrame]:
    """The checked splits of a data set: `train`, `validation` and, where the data has one, `test`.

    Each frame has `anchor, target, context` (text), `score` (float64, one of 0, .25, .5, .75, 1), `rating`
    (text, one of `RATINGS`; absent where the file has none) and a RangeIndex.

    Args:
        data: "sample" (comes with the package), "kaggle" (fetched with kagglehub) or a folder with
            `train.csv` and, if it has them, `validation.csv` and `test.csv`. The competition's own
            `test.csv`, which has no scores, is left aside.
        protocol: "anchor_disjoint" takes the files as they are, and without `validation.csv` holds out one
            of ten grouped folds of `train.csv`; two splits that share an anchor are an error. "random" splits
            the rows of `train.csv` 90 to 10 whatever their anchors, as the source of the method did: it is
            there only to show the leak.
        seed: of either split.

    Raises:
        InputError: the data is not there, or a row breaks a rule; names file, row, column and value.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"parameter protocol: {protocol!r} is none of {', '.join(PROTOCOLS)}")
    folder = SAMPLE if data == "sample" else _from_kaggle() if data == "kaggle" else Path(data)
    paths = {name: folder / f"{name}.csv" for name in SPLITS}
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; data is 'sample', 'kaggle' or a folder with train.csv")
    if not paths["train"].is_file():
        raise InputError(f"{paths['train']}: is missing; the folder needs it")
    if protocol == "random":
        return _split_at_random(read_pairs(paths["train"]), paths["train"], seed)
    present = [name for name in SPLITS if paths[name].is_file() and not _is_unscored(paths[name])]
    splits = {name: read_pairs(paths[name]) for name in present}
    _check_disjoint(splits, paths)
    if "validation" not in splits:
        splits |= _split_by_anchor(splits["train"], paths["train"], seed)
    return {name: splits[name] for name in SPLITS if name in splits}


def read_pairs(path: str | Path, *, scored: bool = True, unknown: str = "error") -> pd.DataFrame:
    """One CSV (UTF-8, comma, header), every row checked.

    Phrases stay as they are but for outer and repeated white space; "null" and "nan" are words like others.
    Row numbers in messages are lines of the file: the header is 1; quoted line breaks and empty lines count.

    Args:
        scored: True for rated data: returns `anchor, target, context, score` and, if there, `rating`; refuses
            a pair that stands twice in a class. False for pairs to be scored: returns the file's columns in
            their order, all as text, and takes repeated pairs.
        unknown: "error" refuses a context that is no CPC class, "embedding" takes any, also an empty one.

    Raises:
        InputError: names the file and the first row, column and value that break the first broken rule.
    """
    path = Path(path)
    needed = [*KEY, "score"] if scored else KEY
    frame, lines = _read_csv(path, needed)

    def refuse(row: int, column: str, complaint: str) -> NoReturn:
        value = frame[column].iloc[row]
        raise InputError(f"{path}, row {lines[row]}, column {column}: {value!r} {complaint}")

    for column in KEY:
        frame[column] = pd.Series([" ".join(text.split()) for text in frame[column].to_list()], dtype=str)
    for column in ("anchor", "target"):
        if (row := _first(frame[column] == "")) is not None:
            refuse(row, column, "is an empty phrase")
    if unknown == "error" and (row := _first(~frame["context"].isin(cpc.CLASSES))) is not None:
        refuse(row, "context", "is no CPC class (a section letter and two digits, such as H04)")
    if not scored:
        return frame

    texts = frame["score"]
    score = texts.map({text: _number(text) for text in texts.unique()}).astype(np.float64)
    if (row := _first(~score.isin(SCORES))) is not None:
        refuse(row, "score", "is none of 0, 0.25, 0.5, 0.75, 1")
    columns = needed
    if "rating" in frame.columns:
        columns = [*needed, "rating"]
        if (row := _first(~frame["rating"].isin(RATINGS))) is not None:
            refuse(row, "rating", f"is none of {', '.join(RATINGS)}")
        fourths = frame["rating"].map({rating: int(rating[0]) for rating in RATINGS})
        if (row := _first(fourths != 4 * score)) is not None:
            refuse(row, "rating", f"contradicts score {texts.iloc[row]}: its first digit is four times the score")
    if (row := _first(frame.duplicated(KEY))) is not None:
        pair = frame[KEY].iloc[row]
        first = _first((frame[KEY] == pair).all(axis=1))
        raise InputError(
            f"{path}, row {lines[row]}, columns {', '.join(KEY)}: {', '.join(map(repr, pair))} stand in row "
            f"{lines[first]} already (scores {texts.iloc[first]} and {texts.iloc[row]}); once is allowed"
        )
    frame["score"] = score
    return frame[columns]


def shared_anchors(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How far the splits overlap, a row each two splits: `first, second, anchors, pairs` (numbers shared).

    `pairs` counts distinct (anchor, target), whatever their context.
    """
    rows = []
    for (first, one), (second, two) in itertools.combinations(splits.items(), 2):
        shared = set(one["anchor"]) & set(two["anchor"])
        # only rows of shared anchors can be shared pairs: usually none, so this costs nothing
        candidates = [frame.loc[frame["anchor"].isin(shared), ["anchor", "target"]] for frame in (one, two)]
        pairs = pd.merge(*[frame.drop_duplicates() for frame in candidates])
        rows.append((first, second, len(shared), len(pairs)))
    return pd.DataFrame(rows, columns=["first", "second", "anchors", "pairs"])


def grouped_folds(frame: pd.DataFrame, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Fold 0..folds-1 of each row (n,): an anchor's rows in one fold, the scores spread evenly over all.

    Raises:
        InputError: fewer than two folds, or more folds than anchors.
    """
    anchors = frame["anchor"].nunique()
    if not 2 <= folds <= anchors:
        raise InputError(f"parameter folds: {folds} is not in 2..{anchors} (the number of anchors)")
    stratum = frame["score"].astype(str)
    if stratum.value_counts().max() < folds:
        stratum[:] = ""  # a handful of rows cannot be stratified
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.empty(len(frame), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # a rare score just misses some folds
        for number, (_, rows) in enumerate(splitter.split(frame, stratum, frame["anchor"])):
            fold[rows] = number
    return fold


def subset(frame: pd.DataFrame, share: float, *, seed: int) -> pd.DataFrame:
    """The rows of a share of the anchors, drawn from the seed; all rows for a share of 1."""
    anchors = frame["anchor"].drop_duplicates()
    kept = anchors.sample(n=max(2, round(share * len(anchors))), random_state=seed) if share < 1 else anchors
    return frame[frame["anchor"].isin(kept)].reset_index(drop=True)


def _split_at_random(frame: pd.DataFrame, path: Path, seed: int) -> dict[str, pd.DataFrame]:
    if len(frame) < 2:
        raise InputError(f"{path}: one row cannot be split")
    train, validation = train_test_split(frame, test_size=0.1, random_state=seed)
    return {"train": train.reset_index(drop=True), "validation": validation.reset_index(drop=True)}


def _split_by_anchor(frame: pd.DataFrame, path: Path, seed: int) -> dict[str, pd.DataFrame]:
    anchors = frame["anchor"].nunique()
    if anchors < 2:
        raise InputError(f"{path}: one anchor cannot be split; add a validation.csv with other anchors")
    held_out = grouped_folds(frame, folds=min(10, anchors), seed=seed) == 0
    parts = {"train": frame[~held_out], "validation": frame[held_out]}
    return {name: part.reset_index(drop=True) for name, part in parts.items()}


def _from_kaggle() -> Path:
    """The folder of Google's release, fetched once and then taken from kagglehub's cache."""
    try:
        import kagglehub  # here, since no other source needs it

        folder = Path(kagglehub.dataset_download(KAGGLE))
    except Exception as error:  # package, network or account missing: kagglehub passes on errors of many kinds
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"data 'kaggle': {KAGGLE} cannot be fetched ({type(error).__name__}: {reason}); "
            "download it by hand and give its folder"
        ) from error
    found = sorted(folder.rglob("train.csv"))
    if len(found) != 1:
        names = ", ".join(sorted(path.name for path in folder.rglob("*") if path.is_file()))
        raise InputError(f"data 'kaggle': {folder} should hold one train.csv, but holds {names or 'no file'}")
    return found[0].parent


def _is_unscored(path: Path) -> bool:
    """Whether this is the competition's own test.csv: it has ids, but no score and no rating."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = set(file.readline().strip().split(","))
    return path.name == "test.csv" and "id" in header and not header & {"score", "rating"}


def _check_disjoint(splits: dict[str, pd.DataFrame], paths: dict[str, Path]) -> None:
    """InputError with the first row whose anchor stands in an earlier split."""
    for overlap in shared_anchors(splits).itertuples():
        if overlap.anchors:
            later = splits[overlap.second]["anchor"]
            row = _first(later.isin(splits[overlap.first]["anchor"]))
            _, lines = _read_csv(paths[overlap.second], KEY)
            raise InputError(
                f"{paths[overlap.second]}, row {lines[row]}, column anchor: {later.iloc[row]!r} stands in "
                f"{paths[overlap.first].name} too ({overlap.anchors} shared anchors); splits may share none"
            )


def _read_csv(path: Path, needed: list[str]) -> tuple[pd.DataFrame, list[int]]:
    """A CSV as text, one column a header name, and the line of the file where each row begins.

    By the csv module, not pandas: it counts lines, and neither fills nor shifts rows of a wrong length.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, row {line}: byte {content[error.start]:#04x} is not UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if row:  # an empty line gives no values
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, row {line}: is no CSV ({error})") from error
    if not rows:
        raise InputError(f"{path}: is empty; needed are the columns {', '.join(needed)}")
    header, top = [name.strip() for name in rows.pop(0)], lines.pop(0)
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"{path}, row {top}: column {name!r} stands {header.count(name)} times")
    for name in needed:
        if name not in header:
            raise InputError(f"{path}, row {top}: column {name!r} is missing; there are {', '.join(header)}")
    if not rows:
        raise InputError(f"{path}: has no row below its header")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise InputError(f"{path}, row {line}: has {len(row)} values, the header {len(header)}")
    return pd.DataFrame(rows, columns=header, dtype=str), lines


def _number(text: str) -> float:
    """The number that a text spells, or infinity, which no rule allows."""
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _first(broken: pd.Series) -> int | None:
    """Position of the first True."""
    return int(broken.to_numpy().argmax()) if broken.any() else None
