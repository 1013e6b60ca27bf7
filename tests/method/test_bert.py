"""MiniLM without transformers gives what transformers gives."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch

from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.layouts import positions
from patsim_utils.method import encoder
from patsim_utils.method.matcher import Matcher

STRANGE = ["", " ", "Üßölung", "half-life 3.5 µm", "漢字", "e\u0301", "a\u200bb", "x" * 300, "[SEP] [MASK]", "😀"]


@pytest.fixture(scope="module")
def own() -> tuple:
    return encoder.load_to_score("minilm")


@pytest.fixture(scope="module")
def theirs() -> tuple:
    return encoder.load_backbone("minilm").eval(), encoder.load_tokenizer("minilm")


@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_those_of_transformers(own: tuple, theirs: tuple, special: bool) -> None:
    phrases = [*load("sample")["train"]["target"].head(500), *STRANGE, " ".join(["steel"] * 600)]
    found, expected = (model[1](phrases, add_special_tokens=special)["input_ids"] for model in (own, theirs))
    assert found == expected
    cut, expected = (model[1](phrases, truncation=True, max_length=512)["input_ids"] for model in (own, theirs))
    assert cut == expected
    for name in ("cls_token", "sep_token", "pad_token", "unk_token"):
        assert getattr(own[1], name) == getattr(theirs[1], name)
        assert getattr(own[1], f"{name}_id") == getattr(theirs[1], f"{name}_id")
    assert len(own[1]) == len(theirs[1])
    assert own[1].get_vocab() == theirs[1].get_vocab()


@pytest.mark.parametrize("block", [[0] * 8, [0, 0, 0, 1, 1, 2, -1, -1]])
def test_states_are_those_of_transformers(own: tuple, theirs: tuple, block: list[int]) -> None:
    tokens = torch.randint(1000, 20_000, (3, 8), generator=torch.Generator().manual_seed(0))
    batch = {"block": torch.tensor([block] * 3), "position_ids": torch.arange(8).expand(3, -1)}
    batch["block"][1, 6:] = -1
    with torch.inference_mode():
        embeddings = own[0].get_input_embeddings()(tokens)
        torch.testing.assert_close(embeddings, theirs[0].get_input_embeddings()(tokens), rtol=0, atol=0)
        found, expected = (encoder.hidden_states(model, embeddings, batch) for model, _ in (own, theirs))
    assert len(found) == len(expected) == 7
    real = batch["block"] >= 0
    for ours, other in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[real], other[real], rtol=1e-5, atol=1e-5)


def test_the_lowest_layers_are_kept(own: tuple) -> None:
    lowest, _ = encoder.load_to_score("minilm", layers=2)
    assert lowest.config.num_hidden_layers == len(lowest.encoder["layer"]) == 2
    ids = torch.tensor([[101, 3886, 102]])
    states = own[0](ids, attention_mask=torch.ones_like(ids)).hidden_states
    torch.testing.assert_close(lowest(ids, attention_mask=torch.ones_like(ids)).last_hidden_state, states[2])
    with pytest.raises(InputError, match="^parameter layers: 7 is more than the 6 of backbone 'minilm'$"):
        encoder.load_to_score("minilm", layers=7)


def test_a_model_that_was_loaded_is_saved_whole_for_transformers(tmp_path) -> None:
    small = Matcher.load("small")
    small.save(tmp_path, form="full")
    again = Matcher.load(tmp_path)
    assert type(again.network.encoder).__name__ == "BertModel"
    assert positions.first_position(again.network.encoder.config) == 0
    frame = load("sample")["test"].head(20)
    torch.testing.assert_close(torch.tensor(again.score(frame)), torch.tensor(small.score(frame)), atol=1e-5, rtol=0)


QUICK = """
import json, sys
import pandas as pd
from patsim_utils.method.matcher import Matcher
scores = Matcher.load("small").score(pd.read_json(sys.argv[1]))
slow = {"transformers", "torch._dynamo", "sympy", "scipy", "peft", "sklearn"} & sys.modules.keys()
print(json.dumps([sorted(slow), scores.tolist()]))
"""


def test_scoring_imports_nothing_slow(tmp_path) -> None:
    pair = pd.DataFrame({"anchor": ["strong material"], "target": ["steel"], "context": ["E04"]})
    pair.to_json(tmp_path / "pair.json")
    command = [sys.executable, "-c", QUICK, str(tmp_path / "pair.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    slow, scores = json.loads(done.stdout)
    assert slow == []
    assert scores == pytest.approx(Matcher.load("small").score(pair).tolist(), abs=1e-6)
