"""Read, normalise, check and split phrase pairs: a row rates how alike an anchor and a target are in one CPC class.

Two forms of tables are read: Google's release (anchor, target, rating, score, context) and the Kaggle competition
(id, anchor, target, context, score). The data set is Google's Patent Phrase Similarity, CC BY 4.0 (Aslanyan and
Wetherbee 2022, arXiv 2208.01171); the sample in the package was written for this project.
"""

import hashlib
import itertools
import logging
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from patsim_utils import cpc, metrics
from patsim_utils.errors import InputError, clip
from patsim_utils.ordinal import RATINGS
from patsim_utils.tables import ENDINGS, read_table

SAMPLE = Path(__file__).with_name("sample")
KAGGLE = "google/google-patent-phrase-similarity-dataset"
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}  # file stems
KEY = ["anchor", "target", "context"]
SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)


def normalise(text: str) -> str:
    """The identity of a phrase: Unicode NFKC, lower case, single spaces, without characters that cannot be seen."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    seen = (letter for letter in text if unicodedata.category(letter) != "Cf")  # such as zero-width spaces
    return " ".join("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in seen).split())


def load(data: str | Path, *, protocol: str = "anchor_disjoint", seed: int = 0) -> dict[str, pd.DataFrame]:
    """The checked splits of a data set: `train`, `validation` and, where the data has one, `test`.

    Each frame has `anchor, target, context` (normalised text), `score` (float64, one of 0, .25, .5, .75, 1), `rating`
    (text, one of `RATINGS`; absent where the file has none) and a RangeIndex.

    Args:
        data: the bare word "sample" (comes with the package) or "kaggle" (fetched with kagglehub), else a folder with
            `train.csv` and, if it has them, `validation.csv` (or valid, val, dev) and `test.csv`, in any of the forms
            of `tables.ENDINGS`. The competition's own `test.csv`, which has no scores, is left aside.
        protocol: "anchor_disjoint" takes the files as they are, and without a validation file holds out one of ten
            grouped folds of `train.csv`; two splits that share an anchor are an error. "random" splits the rows of
            `train.csv` 90 to 10 whatever their anchors, as the source of the method did, to show the leak.
        seed: of either split.

    Raises:
        InputError: the data is not there, a row breaks a rule, or a split cannot be measured.
    """
    folder = SAMPLE if data == "sample" else _from_kaggle() if data == "kaggle" else Path(data)
    if not folder.is_dir():
        raise InputError(f"{clip(str(folder))}: no such folder; data is sample, kaggle or a folder with train.csv")
    paths = _split_files(folder)
    if protocol == "random":
        frame = read_pairs(paths["train"])
        if len(frame) < 20:
            raise InputError(f"{paths['train']}: {len(frame)} rows are too few to be split 90 to 10")
        parts = dict(
            zip(("train", "validation"), train_test_split(frame, test_size=0.1, random_state=seed), strict=True)
        )
        splits = {name: part.reset_index(drop=True) for name, part in parts.items()}
    else:
        splits = {name: read_pairs(path) for name, path in paths.items()}
        _check_disjoint(splits, paths)
        if "validation" not in splits:
            splits |= _split_by_anchor(splits["train"], paths["train"], seed)
    for name, frame in splits.items():
        _check_measurable(name, frame, paths.get(name, paths["train"]), seed)
    return {name: splits[name] for name in SPLITS if name in splits}


def read_pairs(path: str | Path, *, scored: bool = True, unknown: str = "error") -> pd.DataFrame:
    """One table of pairs, every row checked.

    Args:
        scored: True for rated data: returns the normalised `anchor, target, context, score` and, if there, `rating`;
            refuses a pair that stands twice in a class. False for pairs to be scored: returns the file's own columns,
            rows and values as they are; `check_pairs` of it gives what is to be scored.
        unknown: "error" refuses a context that is no CPC class, "embedding" takes any, also an empty one.

    Raises:
        InputError: names the file and the first row, column and value that break the first broken rule.
    """
    path = Path(path)
    frame, lines = read_table(path)
    checked = check_pairs(frame, unknown=unknown, place=str(path), lines=lines, scored=scored)
    if checked.empty:
        raise InputError(f"{path}: has no row below its header")
    return checked if scored else frame


def check_pairs(
    frame: Any,
    *,
    unknown: str = "error",
    place: str = "frame",
    lines: Sequence[int] | None = None,
    scored: bool = False,
) -> pd.DataFrame:
    """The rows of a frame (or of a datasets.Dataset) with normalised phrases and classes, in their order and index.

    Header names count in any case. A class symbol such as `h01` or `H01M 8/04` becomes its class, which is said once.

    Args:
        unknown: as in `read_pairs`. place, lines: how messages call the table and its rows.
        scored: whether the rows are rated: `score`, and `rating` where there is one, are checked and returned, too.

    Raises:
        InputError: a column is missing, or the first row, column and value that break the first broken rule.
    """
    if hasattr(frame, "to_pandas"):
        frame = frame.to_pandas()
    needed = [*KEY, "score"] if scored else KEY
    columns = _columns(frame, needed, place)

    def refuse(row: int, column: str, complaint: str) -> NoReturn:
        where = lines[row] if lines is not None else clip(frame.index[row])
        raise InputError(f"{place}, row {where}, column {column}: {clip(columns[column].iloc[row])} {complaint}")

    found = pd.DataFrame(index=frame.index)
    for column in KEY:
        values = columns[column].to_list()
        for row, value in enumerate(values):
            if not isinstance(value, str):
                refuse(row, column, "is missing" if pd.api.types.is_scalar(value) and pd.isna(value) else "is no text")
        if column == "context":
            continue
        known = {value: normalise(value) for value in dict.fromkeys(values)}
        for row, value in enumerate(values):
            if not known[value]:
                refuse(row, column, "is an empty phrase")
            if any(unicodedata.category(letter) == "Cs" for letter in value):
                refuse(row, column, "holds half of a letter (a lone surrogate)")
        found[column] = pd.Series([known[value] for value in values], index=frame.index, dtype=str)
    found["context"] = _classes(columns["context"], unknown, place, refuse)
    return _scores(found, columns, place, lines, refuse) if scored else found


def _columns(frame: pd.DataFrame, needed: list[str], place: str) -> dict[str, pd.Series]:
    names = [str(name).strip().lower() for name in frame.columns]
    for name in sorted({name for name in names if names.count(name) > 1}):
        if name in (*KEY, "score", "rating", ""):
            raise InputError(f"{place}: column {clip(name)} stands {names.count(name)} times")
    for name in needed:
        if name not in names:
            raise InputError(f"{place}: column {name!r} is missing; there are {clip(', '.join(names))}")
    return {name: frame.iloc[:, i] for i, name in enumerate(names)}


def _classes(contexts: pd.Series, unknown: str, place: str, refuse: Any) -> pd.Series:
    """The class of each context; one that has none is refused, or stays as it is."""
    if unknown not in ("error", "embedding"):
        raise InputError(f"parameter unknown: {clip(unknown)} is none of error, embedding")
    classes = {text: cpc.class_of(text) for text in dict.fromkeys(contexts)}
    if unknown == "error":
        for row, text in enumerate(contexts):
            if classes[text] is None:
                refuse(row, "context", "is no CPC class (a section letter and two digits, such as H04)")
    if changed := [text for text, code in classes.items() if code not in (None, text)]:
        message = "%s: %d contexts are read by their class, such as %s as %s"
        count = int(contexts.isin(changed).sum())
        logging.getLogger("patsim").warning(message, place, count, clip(changed[0]), classes[changed[0]])
    return pd.Series([classes[text] or text for text in contexts], index=contexts.index, dtype=str)


def _scores(found: pd.DataFrame, columns: dict, place: str, lines: Sequence[int] | None, refuse: Any) -> pd.DataFrame:
    """The pairs with their scores and ratings; a pair that stands twice in a class is refused."""
    texts = columns["score"]
    score = texts.map({text: _number(text) for text in texts.unique()}).astype(np.float64)
    if (row := _first(~score.isin(SCORES))) is not None:
        refuse(row, "score", "is none of 0, 0.25, 0.5, 0.75, 1")
    found = found.assign(score=score)
    if "rating" in columns:
        rating = columns["rating"].astype(str).str.strip().str.lower()
        if (row := _first(~rating.isin(RATINGS))) is not None:
            refuse(row, "rating", f"is none of {', '.join(RATINGS)}")
        if (row := _first(rating.str[0].astype(int) != 4 * score)) is not None:
            refuse(row, "rating", f"contradicts score {texts.iloc[row]}: its first digit is four times the score")
        found = found.assign(rating=rating)
    if (row := _first(found.duplicated(KEY))) is not None:
        first = _first((found[KEY] == found[KEY].iloc[row]).all(axis=1))
        rows = [lines[i] if lines is not None else found.index[i] for i in (first, row)]
        pair = ", ".join(clip(text, 60) for text in found[KEY].iloc[row])
        raise InputError(
            f"{place}, row {rows[1]}, columns {', '.join(KEY)}: {pair} stand in row {rows[0]} already"
            f" (scores {texts.iloc[first]} and {texts.iloc[row]}); once is allowed"
        )
    return found


def fingerprint(splits: dict[str, pd.DataFrame]) -> dict[str, str]:
    """sha256 of the rows of each split: equal for equal data, wherever it lies."""
    return {
        name: hashlib.sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()).hexdigest()
        for name, frame in splits.items()
    }


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


def _split_by_anchor(frame: pd.DataFrame, path: Path, seed: int) -> dict[str, pd.DataFrame]:
    """A tenth of the anchors is held out, of few anchors a larger part, so that an interval over them is defined."""
    anchors = frame["anchor"].nunique()
    if anchors < 4:
        raise InputError(f"{path}: {anchors} anchors are too few to be split; add a validation.csv with other anchors")
    held_out = grouped_folds(frame, folds=min(10, max(2, anchors // 4)), seed=seed) == 0
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


def _split_files(folder: Path) -> dict[str, Path]:
    """The file of each split in the folder; InputError where one cannot be told, or train is missing."""
    found: dict[str, Path] = {}
    for split, stems in SPLITS.items():
        names = {stem + ending for stem in stems for ending in ENDINGS}
        here = sorted(path for path in folder.iterdir() if path.name.lower() in names and path.is_file())
        if len(here) > 1:
            raise InputError(
                f"{clip(str(folder))}: {' and '.join(path.name for path in here)} are both there; keep one"
            )
        if here:
            found[split] = here[0]
    if "train" not in found:
        raise InputError(f"{clip(str(folder / 'train.csv'))}: is missing; the folder needs it")
    if "test" in found:  # the competition's own has ids, but no scores
        header = {name.lower() for name in read_table(found["test"])[0].columns}
        if "id" in header and not header & {"score", "rating"}:
            del found["test"]
    return found


def _check_disjoint(splits: dict[str, pd.DataFrame], paths: dict[str, Path]) -> None:
    """InputError with the first row whose anchor stands in an earlier split."""
    for overlap in shared_anchors(splits).itertuples():
        if overlap.anchors:
            later = splits[overlap.second]["anchor"]
            row = _first(later.isin(splits[overlap.first]["anchor"]))
            _, lines = read_table(paths[overlap.second])
            raise InputError(
                f"{paths[overlap.second]}, row {lines[row]}, column anchor: {clip(later.iloc[row])} stands in "
                f"{paths[overlap.first].name} too ({overlap.anchors} shared anchors); splits may share none"
            )


def _check_measurable(name: str, frame: pd.DataFrame, path: Path, seed: int) -> None:
    """InputError with the reason where a split has too little that varies for a correlation with an interval."""
    try:
        metrics.check_measurable(frame, seed=seed)
    except ValueError as error:
        raise InputError(f"{path}: the split {name} cannot be measured ({clip(str(error))})") from error


def _number(text: object) -> float:
    """The number that a value spells, or infinity, which no rule allows."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("inf")


def _first(broken: pd.Series) -> int | None:
    """Position of the first True."""
    return int(broken.to_numpy().argmax()) if broken.any() else None
