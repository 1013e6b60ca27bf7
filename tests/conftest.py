"""Fixtures that several test files share: the real data where a machine has it, small frames and encoders."""

import importlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModel

from patsim_utils.experiments.processes import Ended, Processes
from patsim_utils.method import encoder

SHARED = Path(__file__).parents[2] / "shared" / "data"


def shared(variable: str, pattern: str) -> Path:
    """What an environment variable names, or what lies beside the repository; else the test is skipped."""
    places = [Path(os.environ[variable])] if os.environ.get(variable) else []
    for place in [*places, *sorted(SHARED.glob(pattern))]:
        if place.exists():
            return place
    pytest.skip(f"neither in ${variable} nor as ../shared/data/{pattern}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real phrase pairs."""
    return shared("PATSIM_DATA", "patent_phrase_similarity")


@pytest.fixture(scope="session")
def cpc_zip() -> Path:
    """The official CPC title list."""
    return shared("PATSIM_CPC", "cpc/*.zip")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`tiny_backbone("bert")` -> folder of a small encoder of that kind, random weights, MiniLM's tokenizer."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    tokens = {"vocab_size": 30522, "pad_token_id": 0}
    extra = {
        "bert": {},
        "roberta": {"max_position_embeddings": 514},
        "deberta-v2": {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        "mpnet": {"max_position_embeddings": 514, "pad_token_id": 1},
        "modernbert": {
            "local_attention": 8,
            "global_attn_every_n_layers": 2,
            "reference_compile": False,
            "cls_token_id": 101,
            "sep_token_id": 102,
        },
    }

    @cache
    def build(kind: str) -> str:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(kind)
        model = AutoModel.from_config(AutoConfig.for_model(kind, **(sizes | tokens | extra[kind])))
        model.save_pretrained(folder)
        encoder.load_tokenizer("minilm").save_pretrained(folder)
        return str(folder)

    return build


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`Processes.run` runs a module's `main` here, which spares a start; gives the plain method."""

    def run(self: Processes, module: str, folder: Path, **_: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [module, str(folder)])
        try:
            importlib.import_module(f"patsim_utils.experiments.{module}").main()
        except Exception as error:
            return Ended(1, str(error))
        return Ended(0, "done")

    plain = Processes.run
    monkeypatch.setattr(Processes, "run", run)
    return plain


@pytest.fixture
def pairs_frame() -> pd.DataFrame:
    """Twelve rated pairs: three anchors, one of them in two classes."""
    rows = [
        ("strong material", "steel", "E04", 0.5),
        ("strong material", "stout material", "E04", 1.0),
        ("strong material", "soft material", "E04", 0.25),
        ("strong material", "high strength concrete mix with fibres", "E04", 0.5),
        ("strong material", "steel", "H01", 0.0),
        ("strong material", "robust material", "H01", 0.75),
        ("battery cell", "accumulator", "H01", 0.75),
        ("battery cell", "cell wall", "H01", 0.0),
        ("battery cell", "lithium cell", "H01", 0.5),
        ("null", "nan", "G06", 0.25),
        ("null", "null pointer", "G06", 0.5),
        ("null", "zero", "G06", 0.75),
    ]
    return pd.DataFrame(rows, columns=["anchor", "target", "context", "score"])
