"""The retriever that ships: what a training has changed of MiniLM is written small, and read again as it was."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from patsim_utils.errors import InputError
from patsim_utils.method import backbones
from patsim_utils.search import retriever

PHRASES = ["steel", "a strong material", "wireless handset", "cordless phone", "steel"]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """MiniLM as a training of rank 2 would leave it."""
    folder = tmp_path / "trained"
    shutil.copytree(backbones.path("minilm"), folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, value in weights.items():
        if name.endswith("query.weight"):
            up, down = (torch.randn(384, 2, generator=generator) for _ in range(2))
            weights[name] = value + 0.02 * up @ down.T
        elif name.endswith("output.LayerNorm.bias"):
            weights[name] = value + 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_was_trained_is_written_small_and_read_as_it_was(trained: Path, tmp_path: Path) -> None:
    update = tmp_path / "update.safetensors"
    retriever.write_update(trained, update, rank=2)
    assert update.stat().st_size < 100_000
    found = retriever.vectors(retriever.MeanPooled(update), PHRASES, precision="fp32")
    again = retriever.vectors(retriever.MeanPooled(update), PHRASES, precision="fp32")
    np.testing.assert_array_equal(found, again)
    expected = retriever.vectors(retriever.load(trained, "trained"), PHRASES, precision="fp32")
    np.testing.assert_allclose(found, expected, atol=1e-3)
    pretrained = retriever.vectors(retriever.MeanPooled(), PHRASES, precision="fp32")
    assert np.abs(pretrained - expected).max() > 0.02
    os.truncate(update, 1000)
    with pytest.raises(InputError, match="the weights may not be read"):
        retriever.MeanPooled(update)


def test_a_retriever_with_a_users_file_is_not_trained_anew(tmp_path: Path) -> None:
    frame = pd.DataFrame({"anchor": ["pump"], "target": ["hose"], "context": ["F04"], "score": [1.0]})
    folder = tmp_path / "retriever"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "training.json").write_text("of other pairs")
    (folder / "notes.md").write_text("mine")
    with pytest.raises(InputError, match=r"notes.md: is no part of a retriever"):
        retriever.train(frame, folder)
    assert (folder / "notes.md").read_text() == "mine"


def test_the_retriever_that_ships_is_small_and_has_its_card() -> None:
    files = {path.name: path.stat().st_size for path in retriever.TUNED.iterdir()}
    assert files.keys() == {"README.md", "model.safetensors"}
    assert sum(files.values()) < 3_000_000
    card = ModelCard.load(retriever.TUNED / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.datasets == ["google/google-patent-phrase-similarity-dataset"]
    assert "python tools/ship_retriever.py" in card.content
    assert "CC BY 4.0, Aslanyan and Wetherbee 2022" in card.content


def test_the_retriever_that_ships_brings_synonyms_nearer() -> None:
    own, pretrained = (
        retriever.vectors(retriever.load(folder, retriever.identity_of(folder)), PHRASES, precision="fp32")
        for folder in map(retriever.folder_of, ("tuned", "minilm"))
    )
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(own[0], own[4])
    assert own[2] @ own[3] > pretrained[2] @ pretrained[3]
