"""The backbone: loading, adapters, precision, hidden states, the pretrained cosine."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.method import backbones, encoder
from patsim_utils.method.weights import adapters


@pytest.mark.parametrize(
    "content", [None, "{}", '{"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}', "{"]
)
def test_a_backbone_that_cannot_be_loaded_is_one_line_and_runs_nothing(tmp_path, content: str | None) -> None:
    if content:
        (tmp_path / "config.json").write_text(content)
        (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    folder = str(tmp_path if content else tmp_path / "nothing")
    for load, what in ((encoder.load_backbone, "encoder"), (encoder.load_tokenizer, "tokenizer")):
        message = rf"^backbone '{folder}': (no {what} can be loaded \(.+\)|no such folder)$"
        with pytest.raises(InputError, match=message) as caught:
            load(folder)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "words",
    [
        {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]},
        {
            "type": "WordPiece",
            "unk_token": "[NONE]",
            "vocab": {"a": 0},
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    ],
)
def test_damaged_models_a_tokenizer_that_lost_its_words_is_refused(tiny_backbone, tmp_path, words: dict) -> None:
    shutil.copytree(tiny_backbone("bert"), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": words}))
    with pytest.raises(InputError, match="no tokenizer can be loaded") as caught:
        encoder.load_tokenizer(str(tmp_path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_an_encoder_is_the_same_by_the_names_of_a_model_with_a_head(tiny_backbone, tmp_path, prefix: str) -> None:
    folder = Path(tiny_backbone("bert"))
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    renamed = {f"{prefix}{name}": value for name, value in weights.items()}
    save_file(renamed | {"cls.bias": torch.ones(3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = encoder.load_backbone(str(tmp_path))
    assert not loaded.training
    state = loaded.state_dict()
    assert state
    assert all(torch.equal(value, weights[name]) for name, value in state.items())


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_weights_of_half_precision_are_read_as_float32(tiny_backbone, tmp_path, prefix: str) -> None:
    folder = Path(tiny_backbone("bert"))
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    halves = {f"{prefix}{name}": value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halves, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = encoder.load_backbone(str(tmp_path))
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    name, value = next(iter(loaded.named_parameters()))
    torch.testing.assert_close(value.data, halves[f"{prefix}{name}"].float())
    assert loaded.pooler is None


def test_pickled_weights_are_not_read(tiny_backbone, tmp_path) -> None:
    shutil.copytree(tiny_backbone("bert"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="no encoder can be loaded"):
        encoder.load_backbone(str(tmp_path))


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])
def test_the_lowest_layers_alone_give_the_states_of_the_whole(tiny_backbone, kind: str) -> None:
    whole, part = (encoder.load_backbone(tiny_backbone(kind), layers=layers).eval() for layers in (0, 2))
    batch = {"block": torch.zeros(1, 6, dtype=torch.long), "position_ids": torch.arange(6)[None]}
    tokens = torch.randn(1, 6, 32)
    with torch.inference_mode():
        expected, found = (encoder.hidden_states(model, tokens, batch) for model in (whole, part))
    assert len(found) == 3
    torch.testing.assert_close(found[1], expected[1])
    assert part.config.num_hidden_layers == 2
    assert len(getattr(part.config, "layer_types", None) or [1, 2]) == 2
    folder = tiny_backbone(kind)
    with pytest.raises(InputError, match=f"^parameter layers: 4 is more than the 3 of backbone '{folder}'$"):
        encoder.load_backbone(folder, layers=4)


def test_lora_freezes_the_encoder_and_starts_as_it(tiny_backbone) -> None:
    plain = encoder.load_backbone(tiny_backbone("bert")).eval()
    ids = torch.randint(1000, 2000, (2, 7))
    before = plain(ids).last_hidden_state
    adapted = adapters.adapt(plain, Config(lora_rank=4)).eval()
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    torch.testing.assert_close(adapted(ids).last_hidden_state, before)
    full = adapters.adapt(encoder.load_backbone(tiny_backbone("bert")), Config(adapter="full", dropout=0.3))
    assert all(p.requires_grad for p in full.parameters())
    for model, rate in ((full, 0.3), (adapted, 0.1)):
        dropouts = {(type(module), module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)}
        assert dropouts - {(adapters.ByteDropout, 0.0)} == {(adapters.ByteDropout, rate)}


def test_an_encoder_without_query_and_key_cannot_have_lora() -> None:
    decoder = AutoModel.from_config(AutoConfig.for_model("gpt2", n_embd=8, n_layer=1, n_head=2, vocab_size=9))
    with pytest.raises(InputError, match=r"^adapter 'lora' does not work with gpt2 \(.*not found.*\)$"):
        adapters.adapt(decoder, Config())


@pytest.mark.parametrize(("rate", "dtype"), [(0.1, torch.float32), (0.5, torch.bfloat16), (0.999, torch.float32)])
def test_dropout_by_bytes_is_dropout(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape, dropout = (301, 333), adapters.ByteDropout(rate)  # no multiple of eight elements
    tokens = torch.ones(shape, dtype=dtype, requires_grad=True)
    found = dropout(tokens)
    found.sum().backward()
    torch.testing.assert_close(tokens.grad, found.detach())  # what is dropped has no gradient, the rest the same scale
    kept = found.detach().float() > 0
    exact = min(round(rate * 256), 255) / 256
    assert found.dtype is dtype
    assert torch.allclose(found[kept].float(), torch.tensor(1 / (1 - exact)), rtol=4e-3)
    for share in (kept.float().mean(), kept[:, ::8].float().mean(), kept[:, 7::8].float().mean()):
        assert abs(share - (1 - exact)) < 0.006
    assert not torch.equal(dropout(tokens) > 0, kept)
    plain = torch.nn.functional.dropout(tokens.detach(), exact)
    assert abs(found.float().mean() - plain.float().mean()) < max(0.02, 0.02 / (1 - rate))
    assert torch.equal(dropout.eval()(tokens), tokens)


@pytest.mark.parametrize("packed", [False, True])
def test_training_in_bf16_attends_as_the_fused_kernel_does(tiny_backbone, packed: bool) -> None:
    model = encoder.load_backbone(tiny_backbone("bert")).eval()  # no dropout, gradients all the same
    block = torch.tensor([[0, 0, 1, 1, 2, 2]]) if packed else torch.zeros(1, 6, dtype=torch.long)
    batch = {"block": block, "position_ids": torch.tensor([[0, 1, 2, 3, 2, 3]])}
    tokens, allowed = torch.randn(1, 6, 32, requires_grad=True), []
    note = lambda *_: allowed.append(torch.backends.cuda.flash_sdp_enabled())  # noqa: E731 (the CPU's switch, too)
    model.encoder.layer[0].register_forward_pre_hook(note)
    with encoder.autocast("bf16", torch.device("cpu")):
        with torch.inference_mode():
            fused = encoder.hidden_states(model, tokens, batch)[-1]
        trained = encoder.hidden_states(model, tokens, batch)[-1]
    assert allowed == [True, False]
    torch.testing.assert_close(trained, fused, atol=0.03, rtol=0.03)
    trained.sum().backward()
    assert torch.isfinite(tokens.grad).all()


def test_a_gpu_attends_without_a_plan_for_every_shape() -> None:
    switches = torch.backends.cuda
    before = switches.cudnn_sdp_enabled()
    with encoder._attention_kernel(torch.device("cuda")):
        assert not switches.cudnn_sdp_enabled()
        assert switches.mem_efficient_sdp_enabled()
        assert switches.math_sdp_enabled()
    assert switches.cudnn_sdp_enabled() == before


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_states_are_those_of_the_plain_model_on_ids(tiny_backbone, kind: str) -> None:
    model = AutoModel.from_pretrained(tiny_backbone(kind)).eval()
    ids = torch.randint(1000, 2000, (2, 6))
    batch = {"block": torch.zeros(2, 6, dtype=torch.long), "position_ids": torch.arange(6).expand(2, -1)}
    with torch.inference_mode():
        expected = model(ids).last_hidden_state
        found = encoder.hidden_states(model, model.get_input_embeddings()(ids), batch)[-1]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("able", "has_it"), [("amx_bf16", True), ("avx512_bf16", True), ("avx512_f", False)])
def test_auto_precision_is_bf16_where_the_device_multiplies_it_fast(monkeypatch, able: str, has_it: bool) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {able: True})
    for device in (cpu, gpu):
        assert encoder.uses_bf16("auto", device) == has_it
        assert encoder.uses_bf16("bf16", device)
        assert not encoder.uses_bf16("fp32", device)


def test_the_pretrained_cosine_is_that_of_sentence_embeddings(pairs_frame: pd.DataFrame) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(backbones.path("minilm"), device="cpu")
    anchor, target = (
        model.encode(pairs_frame[column].to_list(), normalize_embeddings=True) for column in ("anchor", "target")
    )
    np.testing.assert_allclose(encoder.pretrained_cosine(pairs_frame), (anchor * target).sum(1), atol=1e-5)


def test_token_counts(pairs_frame: pd.DataFrame) -> None:
    counts = encoder.token_counts(pairs_frame, titles={code: "" for code in cpc.CODES})
    assert counts[0] == len(["[CLS]", "strong", "material", "[SEP]", "steel", "[SEP]"])
