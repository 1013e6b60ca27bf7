"""The splits of a data set, read or held out, so that no two of them share an anchor."""

import hashlib
import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils import metrics
from patsim_utils.data.pairs import normalise, read_pairs
from patsim_utils.data.tables import ENDINGS, read_table
from patsim_utils.errors import InputError, clip, named

SAMPLE = Path(__file__).with_name("sample")
KAGGLE = "google/google-patent-phrase-similarity-dataset"
SPLITS = {  # names of files, without their ending
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
PROTOCOLS = ("anchor_disjoint", "random")
# `fingerprint` of Google's data
GOOGLE = {
    "train": "e3aa06d5201be0aa42d917c2567fffecbd6f3504ff6ed22cf936b72dc46c1686",
    "validation": "7e73c8088ff84b17be3bead7fcd262af18199e80d2878275a9839f36cbca1ee5",
}
HELD_OUT = 10  # one of so many parts of train is held out where there is no validation file


def is_google(prints: Mapping[str, str]) -> bool:
    """Whether a split is of Google's data, by what `fingerprint` gives of all; a student's train has more pairs."""
    return any(prints.get(split) == digest for split, digest in GOOGLE.items())


def load(data: str | Path, *, protocol: str = "anchor_disjoint", seed: int = 0) -> dict[str, pd.DataFrame]:
    """The checked splits of a data set: `train`, `validation` and, where the data has one, `test`.

    Each frame has `anchor, target, context` (normalised text), `score` (float64, one of 0, .25, .5,
    .75, 1), `rating` (text, one of `RATINGS`; absent where the file has none) and a RangeIndex.

    Args:
        data: the bare word "sample" (comes with the package) or "kaggle" (fetched with kagglehub),
            else a folder with `train.csv` and, if it has them, `validation.csv` (or valid, val,
            dev) and `test.csv`, or other of `tables.ENDINGS`. The competition's own `test.csv`,
            which has no scores, is left aside.
        protocol: "anchor_disjoint" takes the files as they are, and without a validation file holds
            out one of ten grouped folds of train, of few anchors more; two splits that share an
            anchor are an error. "random" splits the rows of train 90 to 10 whatever their anchors,
            as the source of the method did, to show the leak.

    InputError: the data is not there, a row breaks a rule, or a split cannot be measured.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"parameter protocol: {clip(protocol)} is none of {', '.join(PROTOCOLS)}")
    folder = _folder_of(data)
    paths = _split_files(folder)
    if protocol == "random":
        paths = {"train": paths["train"]}
    splits = {name: read_pairs(path) for name, path in paths.items()}
    _refuse_shared_anchors(splits, paths)
    if "validation" not in splits:
        splits |= _held_out(splits["train"], named(paths["train"]), protocol, seed)
    for name, frame in splits.items():
        _refuse_unmeasurable(frame, f"{named(paths.get(name, folder))}: split {name}", seed)
    return {name: splits[name].reset_index(drop=True) for name in SPLITS if name in splits}


def fingerprint(splits: dict[str, pd.DataFrame]) -> dict[str, str]:
    """sha256 of the rows of each split: equal for equal data, wherever it lies."""
    digests = {}
    for name, frame in splits.items():
        text = frame.to_csv(index=False, lineterminator="\n")
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def shared_anchors(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How many `anchors` and distinct (anchor, target) `pairs` each two splits share."""
    rows = []
    for first, second in itertools.combinations(splits, 2):
        anchors = set(splits[first]["anchor"]) & set(splits[second]["anchor"])
        pairs = _distinct_pairs(splits[first]) & _distinct_pairs(splits[second])
        rows.append((first, second, len(anchors), len(pairs)))
    return pd.DataFrame(rows, columns=["first", "second", "anchors", "pairs"])


def grouped_folds(frame: pd.DataFrame, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Fold 0..folds-1 of each row (n,): an anchor's rows in one, scores spread evenly.

    InputError where `folds` is below 2 or above the number of anchors.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # here, since it takes a while

    anchors = frame["anchor"].nunique()
    if not 2 <= folds <= anchors:
        raise InputError(f"parameter folds: {folds} is not in 2..{anchors} (the number of anchors)")
    stratum = frame["score"].astype(str)
    if stratum.value_counts().max() < folds:
        stratum[:] = ""  # a handful of rows cannot be stratified
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.empty(len(frame), dtype=np.int64)
    with warnings.catch_warnings():
        # A rare score just misses some folds
        warnings.filterwarnings("ignore", "The least populated class")
        for number, (_, rows) in enumerate(splitter.split(frame, stratum, frame["anchor"])):
            fold[rows] = number
    return fold


def subset(splits: dict[str, pd.DataFrame], share: float, *, protocol: str, seed: int) -> dict[str, pd.DataFrame]:
    """The splits with a share of the training anchors in (0, 1], drawn from the seed.

    Where rows are split at random, only the same anchors are held out: else a small share would
    hide some of the leak.
    """
    if not 0 < share <= 1:
        raise InputError(f"parameter share: {share} is not in (0, 1]")
    if share == 1:
        return splits
    # Sorted, so that the order of the rows does not count
    anchors = splits["train"]["anchor"].drop_duplicates().sort_values()
    kept = anchors.sample(n=max(2, round(share * len(anchors))), random_state=seed)
    smaller = dict(splits)
    for name in splits if protocol == "random" else ("train",):
        frame = splits[name]
        smaller[name] = frame[frame["anchor"].isin(kept)].reset_index(drop=True)
    return smaller


def _distinct_pairs(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(frame["anchor"], frame["target"], strict=True))


def _refuse_shared_anchors(splits: dict[str, pd.DataFrame], paths: dict[str, Path]) -> None:
    for shared in shared_anchors(splits).to_dict("records"):
        if not shared["anchors"]:
            continue
        anchors = splits[shared["second"]]["anchor"]
        position = int(np.argmax(anchors.isin(splits[shared["first"]]["anchor"])))
        first_path = paths[shared["first"]]
        second_path = paths[shared["second"]]
        _, lines = read_table(second_path)
        where = f"{named(second_path)}, row {lines[position]}, column anchor"
        complaint = f"{clip(anchors.iloc[position])} stands in {first_path.name} too"
        count = f"{shared['anchors']} shared anchors"
        raise InputError(f"{where}: {complaint} ({count}); splits may share none")


def _refuse_unmeasurable(frame: pd.DataFrame, where: str, seed: int) -> None:
    """A perfect prediction can be measured where any can."""
    try:
        metrics.pearson_interval(frame["anchor"], frame["score"], frame["score"], seed=seed)
    except ValueError as error:
        raise InputError(f"{where} cannot be measured ({error})") from error


def _held_out(frame: pd.DataFrame, table: str, protocol: str, seed: int) -> dict[str, pd.DataFrame]:
    """Train and validation, a tenth of the rows or anchors; of few anchors more, for an interval."""
    anchors = frame["anchor"].nunique()
    enough = len(frame) >= 20 if protocol == "random" else anchors >= 4
    if not enough:
        raise InputError(f"{table}: {len(frame)} rows of {anchors} anchors are too few to be split")
    if protocol == "random":
        return _random_rows(frame, seed)
    folds = min(HELD_OUT, max(2, anchors // 4))
    fold = grouped_folds(frame, folds=folds, seed=seed)
    sizes = frame.groupby(fold)["anchor"].nunique()
    # Each split needs two anchors or more. One of those folds is drawn, since the splitter puts
    # the largest anchor into fold 0 whatever the seed.
    usable = sizes.index[(sizes > 1) & (sizes < anchors - 1)]
    if not len(usable):
        usable = sizes.index
    held_out = fold == np.random.default_rng(seed).choice(usable)
    return {"train": frame[~held_out], "validation": frame[held_out]}


def _random_rows(frame: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    from sklearn.model_selection import train_test_split  # here, since it takes a while

    train, validation = train_test_split(frame, test_size=1 / HELD_OUT, random_state=seed)
    return {"train": train, "validation": validation}


def _folder_of(data: str | Path) -> Path:
    if data == "sample":
        return SAMPLE
    if data == "kaggle":
        return _from_kaggle()
    return Path(data)


def _from_kaggle() -> Path:
    """The folder of Google's release, fetched once and then taken from kagglehub's cache."""
    try:
        import kagglehub  # here, since no other source needs it

        files = list(Path(kagglehub.dataset_download(KAGGLE)).rglob("train.csv"))
        if len(files) != 1:
            raise FileNotFoundError(f"it should hold one train.csv, not {len(files)}")
        return files[0].parent
    except Exception as error:  # no package, network or account: errors of many kinds
        reason = f"{KAGGLE} cannot be fetched ({clip(f'{type(error).__name__}: {error}')})"
        advice = "download it by hand and give its folder"
        raise InputError(f"data 'kaggle': {reason}; {advice}") from error


def _split_files(folder: Path) -> dict[str, Path]:
    """The file of each split in the folder.

    InputError where one cannot be told, or train is missing.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        cause = clip(getattr(error, "strerror", None) or error)
        reason = f"no such folder, or no right to read it ({cause})"
        advice = "data is sample, kaggle or a folder with train.csv"
        raise InputError(f"{named(folder)}: {reason}; {advice}") from error
    paths = {}
    for split, stems in SPLITS.items():
        names = {stem + ending for stem, ending in itertools.product(stems, ENDINGS)}
        candidates = [path for path in files if path.name.lower() in names]
        if len(candidates) > 1:
            both = " and ".join(path.name for path in candidates)
            raise InputError(f"{named(folder)}: {both} are both there; keep one")
        if candidates:
            paths[split] = candidates[0]
    if "train" not in paths:
        raise InputError(f"{named(folder / 'train.csv')}: is missing; the folder needs it")
    if "test" in paths and not _is_rated(paths["test"]):
        del paths["test"]
    return paths


def _is_rated(path: Path) -> bool:
    """Whether a test table has scores: the competition's own, with a column id, has none."""
    frame, _ = read_table(path)
    header = {normalise(str(name)) for name in frame.columns}
    return "id" not in header or bool(header & {"score", "rating"})
