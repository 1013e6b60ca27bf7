"""Random inputs against oracles: `python -m tests.fuzz --inputs 10000 --seed 0`.

Tables, frames, ratings and damaged models go through the entry points. Each must give the right answer or one clear
line; anything else is counted and shown.
"""

import argparse
import collections
import contextlib
import csv
import gzip
import io
import json
import logging
import math
import random
import re
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig

from patsim_utils.config import Config
from patsim_utils.data import cpc, tables
from patsim_utils.data.pairs import KEY, check_pairs, read_pairs
from patsim_utils.errors import InputError
from patsim_utils.method import encoder
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RATINGS
from tests import fuzz_folders, fuzz_kept, fuzz_tables
from tests.fuzz_tables import WrongError, check

ROOT = Path(__file__).resolve().parents[1]
LETTERS = [*"abZéß $_='-1\t😀\u00a0\u200b\uff21", "  ", "null"]
CONTEXTS = ["H01", "h04", "A61K", "G06F 17/30", " B05", "Y02", "H", "H99", "", "I01", "H01;", "nan"]
TOLERANCE = 1e-5
WEIGHTS = (12, 12, 12, 8, 8, 4, 4, 1, 4, 4, 4, 4, 2, 4, 8, 2)  # how often each family is drawn, in the order of `run`


def phrase(draw: random.Random) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randint(0, 6)))


def identity(text: str) -> str:
    """The oracle of `data.normalise`, letter by letter."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    kept = [letter for letter in text if unicodedata.category(letter) != "Cf"]
    spaced = (" " if unicodedata.category(letter) == "Cc" else letter for letter in kept)
    return " ".join("".join(spaced).split())


def code(text: str) -> str | None:
    found = re.fullmatch(r"\s*([a-hyA-HY]\d\d)\s*([A-Za-z](\s*\d+(\s*/\s*\d+)?)?)?\s*", text)
    return found[1].upper() if found and found[1].upper() in cpc.CLASSES else None


def rows(draw: random.Random) -> list[list[str]]:
    sane = draw.random() < 0.6
    contexts = CONTEXTS[:6] if sane else CONTEXTS
    made = [[phrase(draw), phrase(draw), draw.choice(contexts)] for _ in range(draw.randint(1, 5))]
    return [[anchor + "x", target + "y", context] for anchor, target, context in made] if sane else made


def table(draw: random.Random, folder: Path) -> None:
    """A file of pairs in some form, whole or broken; the rows that come in are those that were written."""
    pairs, name = rows(draw), draw.choice(["t.csv", "t.csv.gz", "t.tsv", "t.parquet", "t.xlsx"])
    header = draw.choice([["anchor", "target", "context"], ["Anchor", " TARGET", "Context"]])
    path, frame = folder / name, pd.DataFrame(pairs, columns=header)
    if name == "t.parquet":
        frame.to_parquet(path)
    elif name == "t.xlsx":
        frame.to_excel(path, index=False)
    else:
        text = io.StringIO()
        end, separator = draw.choice(["\n", "\r\n"]), "\t" if name == "t.tsv" else ","
        rows_of = csv.writer(text, lineterminator=end, delimiter=separator, quoting=draw.choice([0, 1]))
        rows_of.writerows([header, *pairs])
        encoded = text.getvalue().encode(draw.choice(["utf-8", "utf-8-sig", "utf-16"]))
        path.write_bytes(gzip.compress(encoded) if name.endswith(".gz") else encoded)
    broken = draw.random() < 0.3
    if broken:
        content = bytearray(path.read_bytes())
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content[: draw.randint(1, len(content))])
    found = check_pairs(tables.read_table(path)[0])
    if not broken:
        expected = [[identity(a), identity(t), code(c)] for a, t, c in pairs]
        check(all(all(row) for row in expected), f"accepted {pairs}")
        check(found.to_numpy().tolist() == expected, f"{pairs} became {found.to_numpy().tolist()}")


def frame(draw: random.Random, folder: Path) -> None:
    """A frame with values of any type: taken where all are phrases and classes, else refused."""
    odd = [None, math.nan, pd.NA, 3, 2.5, True, b"x", ["x"], "\ud800"]
    pairs = [[draw.choice(odd) if draw.random() < 0.05 else value for value in row] for row in rows(draw)]
    fine = all(isinstance(v, str) and v != "\ud800" for row in pairs for v in row)
    fine = fine and all(identity(a) and identity(t) and code(c) for a, t, c in pairs)
    with contextlib.nullcontext() if fine else refused("a frame with a bad value"):
        found = check_pairs(pd.DataFrame(pairs, columns=KEY, dtype=object))
    check(found["target"].tolist() == [identity(target) for _, target, _ in pairs], f"{pairs}")


@contextlib.contextmanager
def refused(what: str):
    try:
        yield
    except InputError:
        raise
    raise WrongError(f"accepted {what}")


def rated(draw: random.Random, folder: Path) -> None:
    """Scores, ratings and repeated pairs: a contradiction is always refused."""
    lines, seen, fine = ["anchor,target,context,rating,score"], set(), True
    for _ in range(draw.randint(1, 6)):
        pair = draw.choice("abc"), draw.choice(["x", "X", " x ", "y", "z"])
        rating, score = draw.choice(RATINGS), draw.choice(["0", ".25", "0.5", "0.75", "1", "1.0"])
        if draw.random() < 0.7:
            score = str(int(rating[0]) / 4)
        fine = fine and float(score) == int(rating[0]) / 4 and (pair[0], pair[1].strip().lower()) not in seen
        seen.add((pair[0], pair[1].strip().lower()))
        lines.append(f"{pair[0]},{pair[1]},H01,{rating},{score}")
    path = folder / "r.csv"
    path.write_text("\n".join(lines))
    if not fine:
        with refused(f"{lines}"):
            read_pairs(path)
    check(len(read_pairs(path)) == len(lines) - 1, "rows")


def models(folder: Path) -> Callable[[random.Random, Path], None]:
    """A small model, damaged in some way: refused, or its scores are those of before."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    backbone = folder / "backbone"
    AutoModel.from_config(BertConfig(**sizes)).save_pretrained(backbone)
    encoder.load_tokenizer("minilm").save_pretrained(backbone)
    config = Config(backbone=str(backbone), contrast_layer=1, precision="fp32", layout="packed")
    for name in ("whole", "other"):
        Matcher(config).save(folder / name)
    pairs = pd.DataFrame({"anchor": "a pump", "target": ["pumps", "a valve", "null"], "context": ["F04", "F16", "F04"]})
    whole = Matcher.load(folder / "whole")
    expected = whole.score(pairs)

    def damaged(draw: random.Random, work: Path) -> None:
        shutil.rmtree(work / "model", ignore_errors=True)
        model = shutil.copytree(folder / "whole", work / "model")
        victim = draw.choice(sorted(path for path in model.rglob("*") if path.is_file()))
        kind = draw.choice(["cut", "flip", "delete", "weight", "note"])
        if kind == "delete":
            victim.unlink()
        elif kind == "weight":
            weights = load_file(model / "model.safetensors")
            name = draw.choice(sorted(weights))
            changes = [torch.full_like(weights[name], math.nan), weights[name].half(), weights[name][None], None]
            change = draw.choice(changes)
            weights = {key: value for key, value in weights.items() if key != name or change is not None}
            save_file(weights | ({name: change} if change is not None else {}), model / "model.safetensors")
            with refused(f"weight {name}"):
                Matcher.load(work)
        elif kind == "note":
            note = json.loads((model / "matcher.json").read_text())
            key = draw.choice(sorted(note))
            note[key] = draw.choice([value for value in (None, -3, [], {}, "x") if value != note[key]])
            (model / "matcher.json").write_text(json.dumps(note))
            with refused("a note"):
                Matcher.load(work)
        else:
            content = bytearray(victim.read_bytes())
            if kind == "cut":
                content = content[: draw.randrange(len(content))]
            elif victim.suffix == ".safetensors":
                content[draw.randrange(8)] ^= 0xFF  # of the header's length: a weight's own bits cannot be told
            else:
                content[draw.randrange(len(content))] ^= 0x20
            victim.write_bytes(content)
        found = Matcher.load(work).score(pairs)
        check(np.abs(found - expected).max() < TOLERANCE, f"{victim.name} {kind}: {found} for {expected}")

    def alone(draw: random.Random, place: Path) -> None:
        """The score of a pair is the same alone, in another order and in another spelling."""
        frame = pd.DataFrame([[f"{a}x", f"{t}y", "H01"] for a, t, _ in rows(draw)], columns=KEY)
        together, row = whole.score(frame), draw.randrange(len(frame))
        again = frame.iloc[[row]].assign(anchor=frame["anchor"].str.upper().str.replace(" ", "  "), context="h01")
        # capitals of some letters are others (ß, SS), so that the identity is what counts
        same = identity(again["anchor"].iloc[0]) == identity(frame["anchor"].iloc[row])
        single = whole.score(again if same else frame.iloc[[row]])
        check(abs(single[0] - together[row]) < TOLERANCE, f"{frame.iloc[row].tolist()}: {single[0]}, {together[row]}")

    again = fuzz_folders.scored_again(folder / "whole", folder / "other")
    return {"damaged models": damaged, "scores alone": alone, "scored again": again}


def run(inputs: int, seed: int) -> collections.Counter:
    draw, counts = random.Random(seed), collections.Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        families = {
            "tables": table,
            "frames": frame,
            "ratings": rated,
            "carried columns": fuzz_tables.carried,
            "quotes": fuzz_tables.quotes,
            "encodings": fuzz_tables.encodings,
            "swaps": fuzz_tables.swaps,
            "hostile files": fuzz_folders.hostile,
            "names": fuzz_kept.names,
            "damaged runs": fuzz_kept.damaged_runs,
            "files of a user's": fuzz_kept.users_files,
            "sheets": fuzz_tables.sheets,
            "moments": fuzz_tables.moments,
        } | models(folder)
        for _ in range(inputs):
            name = draw.choices(list(families), WEIGHTS)[0]
            counts["inputs"] += 1
            try:
                families[name](draw, folder)
                counts["right answers"] += 1
            except InputError as error:
                clear = str(error).isprintable() and len(str(error)) < 1000 and str(error).strip()
                counts["clear refusals" if clear else "unclear refusals"] += 1
                if not clear:
                    print(f"{name}: {error!r}")
            except WrongError as error:
                counts["silent wrong answers"] += 1
                print(f"{name}: {error}")
            except Exception as error:
                counts["tracebacks"] += 1
                print(f"{name}: {type(error).__name__}: {error}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("patsim").setLevel(logging.ERROR)  # what is said once a file would be said thousands of times
    counts = run(given.inputs, given.seed)
    bad = ("unclear refusals", "tracebacks", "silent wrong answers")
    for name in ("inputs", "right answers", "clear refusals", *bad):
        print(f"{name}: {counts[name]:,}")
    sys.exit(any(counts[name] for name in bad))


if __name__ == "__main__":
    main()
