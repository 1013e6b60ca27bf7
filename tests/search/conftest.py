"""A small retriever and a small run, which several files of these tests share."""

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from patsim_utils.config import Config
from patsim_utils.method.matcher import Matcher


@pytest.fixture(scope="session")
def small_retriever(tiny_backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retriever of random weights, 32 wide; it is not to be changed."""
    transformer = Transformer(tiny_backbone("bert"))
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    folder = tmp_path_factory.mktemp("retriever")
    SentenceTransformer(modules=[transformer, pooling]).save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="session")
def run(tiny_backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a matcher of random weights."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    settings = {"backbone": tiny_backbone("bert"), "layout": "packed", "contrast_layer": 1, "precision": "fp32"}
    Matcher(Config.parse(settings)).save(folder / "model")
    return folder
