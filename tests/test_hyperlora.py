"""HyperLoRA: plain LoRA at the start, the formula once trained, and nothing where there is no class."""

import copy

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from patsim_utils.errors import InputError
from patsim_utils.matcher import Architecture, Matcher


def build(backbone: str, adapter: str, **options: object) -> Matcher:
    """A small model whose LoRA updates are no longer zero; equal seeds give equal weights."""
    torch.manual_seed(0)
    matcher = Matcher(Architecture(backbone=backbone, adapter=adapter, contrast_layer=1, lora_rank=4, **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(matcher.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return matcher.eval()


@pytest.mark.parametrize("layout", ["pair", "packed"])
def test_it_starts_exactly_as_plain_lora(tiny_backbone, pairs_frame, layout: str) -> None:
    backbone = tiny_backbone("bert")
    plain, hyper = build(backbone, "lora", layout=layout), build(backbone, "hyperlora", layout=layout)
    plain.load_state_dict({k: v for k, v in hyper.state_dict().items() if not k.startswith("hyperlora.")})
    np.testing.assert_array_equal(hyper.score(pairs_frame), plain.score(pairs_frame))


def test_each_sequence_gets_the_update_of_its_class(tiny_backbone) -> None:
    """One adapted layer by hand: W x + s B diag(1 + V c) A x, for two classes in one batch."""
    matcher = build(tiny_backbone("bert"), "hyperlora")
    torch.nn.init.normal_(matcher.hyperlora.project.weight)
    layer = next(module for module in matcher.encoder.modules() if isinstance(module, LoraLayer))
    x, c = torch.randn(2, 5, layer.in_features), torch.nn.functional.normalize(torch.randn(2, 50), dim=-1)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with matcher.hyperlora.of(c):
        found = layer(x)
    for i in range(2):
        scale = 1 + matcher.hyperlora.project.weight[:4] @ c[i]
        update = layer.scaling["default"] * b @ torch.diag(scale) @ a
        torch.testing.assert_close(found[i], layer.base_layer(x[i]) + x[i] @ update.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + layer.scaling["default"] * x @ a.T @ b.T)


def test_the_class_matters_learns_is_saved_and_unknown_is_plain_lora(tiny_backbone, pairs_frame, tmp_path) -> None:
    matcher = build(tiny_backbone("bert"), "hyperlora", context_text="none")
    other, nowhere = pairs_frame.assign(context="A01"), pairs_frame.assign(context="")
    np.testing.assert_array_equal(matcher.score(pairs_frame), matcher.score(other))  # fusion and V start at zero
    torch.nn.init.normal_(matcher.hyperlora.project.weight)
    assert np.abs(matcher.score(pairs_frame) - matcher.score(other)).max() > 1e-4
    plain = copy.deepcopy(matcher.score(nowhere, unknown="embedding"))
    torch.nn.init.normal_(matcher.hyperlora.project.weight)
    np.testing.assert_array_equal(matcher.score(nowhere, unknown="embedding"), plain)
    pairs = matcher.pairs(pairs_frame)
    matcher(pairs.collate([pairs[np.array([i])] for i in range(12)])).cumulative.sum().backward()
    assert matcher.hyperlora.project.weight.grad.abs().max() > 0
    assert matcher.fusion.embedding.table.weight.grad.abs().max() > 0
    matcher.save(tmp_path)
    np.testing.assert_array_equal(Matcher.load(tmp_path).score(pairs_frame), matcher.score(pairs_frame))


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_it_works_in_other_encoders_and_does_not_depend_on_the_batch(tiny_backbone, pairs_frame, kind: str) -> None:
    matcher = build(tiny_backbone(kind), "hyperlora")
    torch.nn.init.normal_(matcher.hyperlora.project.weight)
    alone = np.concatenate([matcher.score(pairs_frame.iloc[[i]]) for i in range(len(pairs_frame))])
    np.testing.assert_allclose(matcher.score(pairs_frame), alone, atol=1e-5)


def test_deberta_cannot_have_it(tiny_backbone) -> None:
    with pytest.raises(InputError, match="hyperlora' does not work with deberta-v2"):
        build(tiny_backbone("deberta-v2"), "hyperlora")


def test_it_needs_class_vectors() -> None:
    with pytest.raises(InputError, match="needs class vectors"):
        Architecture(adapter="hyperlora", fusion="none")
