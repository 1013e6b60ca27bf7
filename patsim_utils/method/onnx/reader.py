"""A model in ONNX Runtime: it scores pairs, and neither torch nor transformers is imported."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd

from patsim_utils import storage
from patsim_utils.data.pairs import check_pairs, is_one_phrase
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.layouts.tokens import FILE, Tokens
from patsim_utils.ratings import RELATIONS, SCORES

GRAPH = "model.onnx"
SETTINGS = "settings.json"
BATCH_TOKENS = 1024
# What is said of equal phrases: score, probability of each score, of each relation
CERTAIN = np.array(
    [1, *(score == 1 for score in SCORES), *(name == "same_or_synonym" for name in RELATIONS)], dtype=float
)


def digest(folder: Path) -> str:
    """sha256 of the graph and the tokenizer, by which one that was changed since the export is known."""
    return storage.digest(folder / GRAPH, folder / FILE)


class Reader:
    """Scores pairs, from a folder that `export.write` has made, with OMP_NUM_THREADS threads."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
        if settings["files"] != digest(folder):
            raise ValueError("the graph or the tokenizer was changed")
        self.settings = settings["pairs"]
        self.tokenizer = Tokens(folder / FILE, settings["special"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))  # 0: all cores
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # `export` has done it
        self.session = onnxruntime.InferenceSession(str(folder / GRAPH), options)
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]

    def values(
        self, frame: pd.DataFrame, *, unknown: str, explain: bool, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """What `scale.values` gives for a matcher."""
        frame = check_pairs(frame, unknown=unknown)
        pairs = Pairs(frame, self.tokenizer, unknown=unknown, **self.settings)
        rows = []
        parts = []
        for sequences in pairs.batches(tokens=BATCH_TOKENS):
            batch = pairs.arrays(sequences)
            parts += self.session.run(None, {name: batch[name] for name in self.inputs})
            rows += batch["rows"].tolist()
            if progress:
                progress(len(rows), len(pairs))
        values = np.concatenate(parts)[np.argsort(rows)]
        equal = is_one_phrase(frame["anchor"], frame["target"]).to_numpy(bool)
        values[equal] = CERTAIN[: values.shape[1]]
        return values if explain else values[:, :1]
