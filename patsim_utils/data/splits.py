"""data.splits: to be written."""

import hashlib
import itertools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from patsim_utils import metrics
from patsim_utils.data.pairs import normalise, read_pairs
from patsim_utils.data.tables import ENDINGS, read_table
from patsim_utils.errors import InputError, clip, named

SAMPLE = Path(__file__).with_name("sample")
KAGGLE = "google/google-patent-phrase-similarity-dataset"
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}  # file stems
GOOGLE = "e3aa06d5201be0aa42d917c2567fffecbd6f3504ff6ed22cf936b72dc46c1686"  # `fingerprint` of train of Google's data


def load(data: str | Path, *, protocol: str = "anchor_disjoint", seed: int = 0) -> dict[str, pd.DataFrame]:
    """The checked splits of a data set: `train`, `validation` and, where the data has one, `test`.

    Each frame has `anchor, target, context` (normalised text), `score` (float64, one of 0, .25, .5, .75, 1), `rating`
    (text, one of `RATINGS`; absent where the file has none) and a RangeIndex.

    Args:
        data: the bare word "sample" (comes with the package) or "kaggle" (fetched with kagglehub), else a folder with
            `train.csv` and, if it has them, `validation.csv` (or valid, val, dev) and `test.csv`, or other of
            `tables.ENDINGS`. The competition's own `test.csv`, which has no scores, is left aside.
        protocol: "anchor_disjoint" takes the files as they are, and without a validation file holds out one of ten
            grouped folds of train, of few anchors more; two splits that share an anchor are an error. "random" splits
            the rows of train 90 to 10 whatever their anchors, as the source of the method did, to show the leak.

    InputError: the data is not there, a row breaks a rule, or a split cannot be measured.
    """
    if protocol not in ("anchor_disjoint", "random"):
        raise InputError(f"parameter protocol: {clip(protocol)} is none of anchor_disjoint, random")
    folder = SAMPLE if data == "sample" else _from_kaggle() if data == "kaggle" else Path(data)
    paths = {name: path for name, path in _split_files(folder).items() if name == "train" or protocol != "random"}
    splits = {name: read_pairs(path) for name, path in paths.items()}
    for _, first, second, anchors, _ in shared_anchors(splits).query("anchors > 0").itertuples():
        row = int(np.argmax(splits[second]["anchor"].isin(splits[first]["anchor"])))
        where = f"{named(paths[second])}, row {read_table(paths[second])[1][row]}, column anchor"
        shared = f"{clip(splits[second]['anchor'].iloc[row])} stands in {paths[first].name} too"
        raise InputError(f"{where}: {shared} ({anchors} shared anchors); splits may share none")
    if "validation" not in splits:
        splits |= _held_out(splits["train"], named(paths["train"]), protocol, seed)
    for name, frame in splits.items():
        try:  # of a perfect prediction, which can be measured where any can
            metrics.pearson_interval(frame["anchor"], frame["score"], frame["score"], seed=seed)
        except ValueError as error:
            raise InputError(f"{named(paths.get(name, folder))}: split {name} cannot be measured ({error})") from error
    return {name: splits[name].reset_index(drop=True) for name in SPLITS if name in splits}


def fingerprint(splits: dict[str, pd.DataFrame]) -> dict[str, str]:
    """sha256 of the rows of each split: equal for equal data, wherever it lies."""
    texts = {name: frame.to_csv(index=False, lineterminator="\n") for name, frame in splits.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def shared_anchors(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The numbers of `anchors` and distinct (anchor, target) `pairs` that each two splits, `first, second`, share."""
    pairs = {name: {*zip(frame["anchor"], frame["target"], strict=True)} for name, frame in splits.items()}
    rows = []
    for one, two in itertools.combinations(splits, 2):
        anchors = {*splits[one]["anchor"]} & {*splits[two]["anchor"]}
        rows.append((one, two, len(anchors), len(pairs[one] & pairs[two])))
    return pd.DataFrame(rows, columns=["first", "second", "anchors", "pairs"])


def grouped_folds(frame: pd.DataFrame, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Fold 0..folds-1 of each row (n,), 2 <= folds <= anchors: an anchor's rows in one, scores spread evenly."""
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


def subset(splits: dict[str, pd.DataFrame], share: float, *, protocol: str, seed: int) -> dict[str, pd.DataFrame]:
    """The splits with a share of the training anchors in (0, 1], drawn from the seed; all rows for a share of 1.

    Where rows are split at random, only the same anchors are held out: else a small share would hide some of the leak.
    """
    if not 0 < share <= 1:
        raise InputError(f"parameter share: {share} is not in (0, 1]")
    anchors = splits["train"]["anchor"].drop_duplicates().sort_values()  # the same ones in whatever order of rows
    kept = anchors.sample(n=max(2, round(share * len(anchors))), random_state=seed) if share < 1 else anchors
    less = splits if protocol == "random" else {"train": splits["train"]}
    return splits | {name: one[one["anchor"].isin(kept)].reset_index(drop=True) for name, one in less.items()}


def _held_out(frame: pd.DataFrame, place: str, protocol: str, seed: int) -> dict[str, pd.DataFrame]:
    """Train and validation: a tenth is held out; of few anchors more, so that an interval over them is defined."""
    anchors = frame["anchor"].nunique()
    if len(frame) < 20 if protocol == "random" else anchors < 4:
        raise InputError(f"{place}: {len(frame)} rows of {anchors} anchors are too few to be split")
    if protocol == "random":
        return dict(zip(SPLITS, train_test_split(frame, test_size=0.1, random_state=seed), strict=False))
    fold = grouped_folds(frame, folds=min(10, max(2, anchors // 4)), seed=seed)
    # drawn, since the splitter puts the largest anchor into fold 0 whatever the seed; one of two anchors or more
    sizes = frame.groupby(fold)["anchor"].nunique()
    usable = sizes.index[(sizes > 1) & (sizes < anchors - 1)]
    held_out = fold == np.random.default_rng(seed).choice(usable if len(usable) else sizes.index)
    return {"train": frame[~held_out], "validation": frame[held_out]}


def _from_kaggle() -> Path:
    """The folder of Google's release, fetched once and then taken from kagglehub's cache."""
    try:
        import kagglehub  # here, since no other source needs it

        found = list(Path(kagglehub.dataset_download(KAGGLE)).rglob("train.csv"))
        if len(found) != 1:
            raise FileNotFoundError(f"it should hold one train.csv, not {len(found)}")
        return found[0].parent
    except Exception as error:  # package, network or account missing: kagglehub passes on errors of many kinds
        reason = f"{KAGGLE} cannot be fetched ({clip(f'{type(error).__name__}: {error}')})"
        raise InputError(f"data 'kaggle': {reason}; download it by hand and give its folder") from error


def _split_files(folder: Path) -> dict[str, Path]:
    """The file of each split in the folder; InputError where one cannot be told, or train is missing."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = f"no such folder, or no right to read it ({clip(getattr(error, 'strerror', None) or error)})"
        raise InputError(f"{named(folder)}: {reason}; data is sample, kaggle or a folder with train.csv") from error
    found: dict[str, Path] = {}
    for split, stems in SPLITS.items():
        names = {stem + ending for stem in stems for ending in ENDINGS}
        here = [path for path in files if path.name.lower() in names]
        if len(here) > 1:
            raise InputError(f"{named(folder)}: {' and '.join(path.name for path in here)} are both there; keep one")
        if here:
            found[split] = here[0]
    if "train" not in found:
        raise InputError(f"{named(folder / 'train.csv')}: is missing; the folder needs it")
    if "test" in found:
        header = {normalise(str(name)) for name in read_table(found["test"])[0].columns}
        if "id" in header and not header & {"score", "rating"}:  # the competition's own
            del found["test"]
    return found
