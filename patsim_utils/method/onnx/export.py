"""From a trained model to what `reader` reads: a graph in ONNX's form, settings and a tokenizer."""

import json
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from torch import Tensor, nn

from patsim_utils import storage
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError, clip
from patsim_utils.layouts.tokens import FILE
from patsim_utils.method import ordinal
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.onnx.reader import GRAPH, SETTINGS, Reader, digest
from patsim_utils.ratings import RATINGS, RELATIONS

INPUTS = ("input_ids", "position_ids", "block", "code", "anchor_span", "target_span")
SPECIAL = ("cls_token_id", "sep_token_id", "pad_token_id", "unk_token_id")
TOLERANCE = 1e-3  # by which a score may differ from the network's


class Graph(nn.Module):
    """The tensors of INPUTS -> score, probability of each score, of each relation (N, 6 or 14)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        members = [[rating in ratings for ratings in RELATIONS.values()] for rating in RATINGS]
        self.register_buffer("relations", torch.tensor(members, dtype=torch.double))

    def forward(self, *tensors: Tensor) -> Tensor:
        outputs = self.network(dict(zip(INPUTS, tensors, strict=True)))
        logits = outputs.combined_logits().double()
        columns = [ordinal.score(logits)[:, None], ordinal.probabilities(logits)]
        if outputs.rating_logits is not None:
            columns.append(outputs.rating_logits.double().softmax(-1) @ self.relations)
        return torch.cat(columns, dim=1)


def write(model: Path, target: Path) -> None:
    """Puts the model of a folder into `target`, where it is only when all of it is there.

    InputError: the model has similarity features, or its graph does not give the network's scores.
    """
    trained = Matcher.load(model)
    if trained.regressor:
        raise InputError("--engine onnx: this model has similarity features; use --engine local")
    trained.network.cpu()
    special = {name: getattr(trained.tokenizer, name) for name in SPECIAL}
    examples = load("sample")["test"]
    fresh = storage.companion(target, "new")
    storage.remove(fresh)  # of an export that was stopped
    fresh.mkdir(parents=True)
    _write_graph(trained, examples.head(40), fresh / GRAPH)
    trained.tokenizer.backend_tokenizer.save(str(fresh / FILE))
    settings = {"pairs": trained.settings_of_pairs(), "special": special, "files": digest(fresh)}
    (fresh / SETTINGS).write_text(json.dumps(settings), "utf-8")
    values = Reader(fresh).values(examples, unknown="error", explain=False)
    difference = np.abs(values[:, 0] - trained.score(examples)).max()
    if not difference <= TOLERANCE:
        reason = f"scores differ by {clip(difference)} from the network's"
        raise InputError(f"--engine onnx: does not suit this model ({reason}); use --engine local")
    storage.swap(fresh, target)


def _write_graph(trained: Matcher, examples: pd.DataFrame, path: Path) -> None:
    """The graph of what the network does with a batch of examples, optimised by ONNX Runtime."""
    pairs = trained.pairs(examples)
    batch = pairs.collate(next(pairs.batches(tokens=2000)))
    axes = {name: {axis: f"{name}_{axis}" for axis in range(batch[name].ndim)} for name in INPUTS}
    plain = path.with_suffix(".plain")
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch has a newer exporter, which needs three more packages
        tensors = tuple(batch[name] for name in INPUTS)
        graph = Graph(trained.network).eval()
        torch.onnx.export(graph, tensors, plain, input_names=list(INPUTS), dynamic_axes=axes, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(str(plain), options)
    plain.unlink()
