"""Read, normalise, check and split phrase pairs: a row rates how alike an anchor and a target are in one CPC class.

Read are Google's Patent Phrase Similarity (CC BY 4.0, Aslanyan and Wetherbee 2022, arXiv 2208.01171: anchor, target,
rating, score, context) and its Kaggle competition's form (id, anchor, target, context, score). The sample is our own.
"""

import hashlib
import itertools
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from patsim_utils import cpc, metrics
from patsim_utils.errors import InputError, clip, named
from patsim_utils.ordinal import RATINGS
from patsim_utils.tables import COLUMNS, ENDINGS, read_table

SAMPLE = Path(__file__).with_name("sample")
KAGGLE = "google/google-patent-phrase-similarity-dataset"
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}  # file stems
KEY = ["anchor", "target", "context"]
SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)
GOOGLE = "e3aa06d5201be0aa42d917c2567fffecbd6f3504ff6ed22cf936b72dc46c1686"  # `fingerprint` of train of Google's data
# What Unicode tells programs not to show, such as zero-width spaces, joiners, fillers and soft hyphens
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
_SAID: set[str] = set()  # the tables of which it was said that their class symbols are read as classes


def normalise(text: str) -> str:
    """The identity of a phrase: NFKC, lower case, single spaces, nothing unseen; control characters count as spaces."""
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFKC", re.sub(r"[\0-\x1f\x7f-\x9f]", " ", _UNSEEN.sub("", text)))
        text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text.lower()))
    return " ".join(text.lower().split())


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


def read_pairs(path: str | Path) -> pd.DataFrame:
    """The rated pairs of one table as `check_pairs` gives them, of which none may stand twice in a class."""
    frame, lines = read_table(path)
    checked = check_pairs(frame, place=named(path), lines=lines, scored=True)
    if checked.empty:
        raise InputError(f"{named(path)}: has no row below its header")
    return checked


class _Rows(NamedTuple):
    """The columns of a table that mean something, and what messages call the table and its rows."""

    place: str
    labels: pd.Index | list[int]
    columns: dict[str, list]

    def refuse(self, row: int, column: str, complaint: str, **more: object) -> NoReturn:
        values = {name: clip(values[row]) for name, values in self.columns.items()}
        where = f"{self.place}, row {clip(self.labels[row])}, column {column}"
        raise InputError(f"{where}: {complaint.format(values[column], **values, **more)}")

    def refuse_any(self, broken: pd.Series, column: str, complaint: str) -> None:
        if broken.any():
            self.refuse(int(np.argmax(broken)), column, complaint)

    def read(self, column: str, read: Callable[[str], str | None], complaint: str) -> list[str]:
        """`read` of each value; the first that is missing, is no text, or of which it makes None, is refused."""
        known: dict[str, str | None] = {}
        for row, value in enumerate(self.columns[column]):
            if not isinstance(value, str):
                missing = pd.api.types.is_scalar(value) and pd.isna(value)
                self.refuse(row, column, "the value is missing" if missing else "{} is no text")
            if value not in known:
                known[value] = read(value)
                if known[value] is None or re.search("[\ud800-\udfff]", value):
                    self.refuse(row, column, complaint if known[value] is None else "{} holds half a character")
        return [known[value] for value in self.columns[column]]


def check_pairs(
    frame: Any, *, unknown: str = "error", place: str = "frame", lines: list[int] | None = None, scored: bool = False
) -> pd.DataFrame:
    """`anchor, target, context` of a DataFrame or datasets.Dataset, normalised, in their order and with their index.

    Header names count in any case. A class symbol such as `h01` or `H01M 8/04` becomes its class, which is said once a
    place, as a warning of the logger "patsim". InputError: a column is missing, or the first row that breaks a rule.

    Args:
        unknown: "error" refuses a context that is no CPC class, "embedding" leaves any as it is, also an empty one.
        place, lines: what messages call the table and its rows (else by the index).
        scored: `score`, and `rating` if there, are checked and returned, too.
    """
    if unknown not in ("error", "embedding"):
        raise InputError(f"parameter unknown: {clip(unknown)} is none of error, embedding")
    frame = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{place}: is of type {type(frame).__name__}; needed is a DataFrame or a datasets.Dataset")
    names, columns = [normalise(str(name)) for name in frame.columns], {}
    for name in COLUMNS:
        if names.count(name) > 1:
            raise InputError(f"{place}: column {name!r} stands {names.count(name)} times, capitals aside")
        if name in names:
            columns[name] = frame.iloc[:, names.index(name)].to_list()
        elif name in KEY or (scored and name == "score"):
            raise InputError(f"{place}: column {name!r} is missing; there are {clip(', '.join(names))}")
    rows = _Rows(place, frame.index if lines is None else lines, columns)
    empty, no_class = "{} is an empty phrase", "{} is no CPC class that pairs are rated in, such as H04"
    found = {name: rows.read(name, lambda text: normalise(text) or None, empty) for name in ("anchor", "target")}
    kept = {"error": lambda text: None, "embedding": str.strip}[unknown]
    found["context"] = rows.read("context", lambda text: cpc.class_of(normalise(text)) or kept(text), no_class)
    changed = [pair for pair in zip(columns["context"], found["context"], strict=True) if pair[0].strip() != pair[1]]
    if changed and place not in _SAID:
        _SAID.add(place)
        text = f"{place}: {len(changed)} contexts are read as their CPC class, such as"
        logging.getLogger("patsim").warning(f"{text} {clip(changed[0][0])} as {changed[0][1]}")
    checked = pd.DataFrame(found, index=frame.index, dtype=str)
    return _with_scores(checked, rows) if scored else checked


def _with_scores(pairs: pd.DataFrame, rows: _Rows) -> pd.DataFrame:
    """The pairs with their scores and ratings; a pair that stands twice in a class is refused."""
    texts, ratings = rows.columns["score"], rows.columns.get("rating")
    pairs["score"] = pd.to_numeric([str(text) for text in texts], errors="coerce") + 0.0  # no negative zero
    rows.refuse_any(~pairs["score"].isin(SCORES), "score", "{} is none of 0, 0.25, 0.5, 0.75, 1")
    if ratings is not None:
        pairs["rating"] = pd.Series([str(rating).strip().lower() for rating in ratings], pairs.index, dtype=str)
        rows.refuse_any(~pairs["rating"].isin(RATINGS), "rating", "{} is none of " + ", ".join(RATINGS))
        broken = pairs["rating"].str[0].astype(int) != 4 * pairs["score"]
        rows.refuse_any(broken, "rating", "{} contradicts score {score}: its first digit is four times the score")
    if (twice := pairs.duplicated(KEY)).any():
        row = int(np.argmax(twice))
        first = int(np.argmax((pairs[KEY] == pairs[KEY].iloc[row]).all(axis=1)))
        complaint = "{anchor}, {target}, {context} stand in row {first} already (scores {earlier} and {score})"
        rows.refuse(row, "target", complaint, first=clip(rows.labels[first]), earlier=clip(texts[first]))
    return pairs


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
