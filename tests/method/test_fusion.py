"""The CPC vector's way into the tokens and into LoRA's ranks."""

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.method.fusion import CpcEmbedding, CpcGraph, Fusion
from patsim_utils.method.matcher import Matcher

FUSIONS = ("add", "gate", "attention", "graph", "none")

TITLES = torch.nn.functional.normalize(
    torch.randn(len(cpc.CODES), 7, generator=torch.Generator().manual_seed(3)), dim=-1
)
CODES = torch.tensor([cpc.code_index("H04"), cpc.code_index("A61"), 0])


def trained(kind: str) -> Fusion:
    """A fusion whose last projection is no longer zero."""
    torch.manual_seed(0)
    fusion = Fusion(kind, width=12, dim=5, titles=TITLES)
    if kind != "none":
        torch.nn.init.normal_(fusion.project.weight)
    return fusion


def test_vectors_have_length_one_and_unknown_has_length_zero() -> None:
    vectors = CpcEmbedding(50)(torch.arange(len(cpc.CODES)))
    torch.testing.assert_close(vectors[1:].norm(dim=-1), torch.ones(len(cpc.CODES) - 1))
    assert vectors[0].abs().max() == 0


def test_the_path_goes_from_the_section_to_the_class() -> None:
    embedding = CpcEmbedding(5)
    path = embedding.path(CODES)
    torch.testing.assert_close(path[:, 1], embedding(CODES))
    torch.testing.assert_close(path[0, 0], embedding(torch.tensor(cpc.code_index("H"))))
    assert path[2].abs().max() == 0


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion_starts_as_the_text_alone(kind: str) -> None:
    tokens = torch.randn(3, 4, 12)
    torch.testing.assert_close(Fusion(kind, width=12, dim=5, titles=TITLES)(tokens, CODES), tokens, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["add", "gate", "attention", "graph"])
def test_the_class_matters_once_trained_and_unknown_leaves_the_text_alone(kind: str) -> None:
    tokens = torch.randn(3, 4, 12)
    changed = trained(kind)(tokens, CODES) - tokens
    assert changed[0].abs().max() > 1e-3
    assert not torch.allclose(changed[0], changed[1])
    assert changed[2].abs().max() == 0


def test_add_is_the_projected_unit_vector_on_every_token() -> None:
    fusion, tokens = trained("add"), torch.randn(3, 4, 12)
    row = fusion.embedding.table.weight[CODES[0]]
    expected = tokens[0] + fusion.project.weight @ (row / row.norm())
    torch.testing.assert_close(fusion(tokens, CODES)[0], expected)


def test_gate_and_attention_match_their_formulas() -> None:
    tokens = torch.randn(3, 4, 12)
    gate = trained("gate")
    c = gate.embedding(CODES)[0].expand(4, -1)
    expected = tokens[0] + torch.sigmoid(gate.gate(torch.cat([tokens[0], c], -1))) * gate.project(c)
    torch.testing.assert_close(gate(tokens, CODES)[0], expected)
    attention = trained("attention")
    path = attention.embedding.path(CODES)[0]
    weight = (attention.query(tokens[0]) @ attention.key(path).T / 5**0.5).softmax(-1)
    expected = tokens[0] + attention.project(weight @ attention.value(path))
    torch.testing.assert_close(attention(tokens, CODES)[0], expected)


@pytest.mark.parametrize("kind", ["add", "gate", "attention"])
def test_the_embedding_learns_and_unknown_stays_zero(kind: str) -> None:
    fusion = trained(kind)
    fusion(torch.randn(3, 4, 12), CODES).square().sum().backward()
    gradient = fusion.embedding.table.weight.grad
    assert gradient[CODES[0]].abs().max() > 0
    assert gradient[0].abs().max() == 0


def test_the_graph_passes_messages_along_the_tree() -> None:
    """Two steps by hand, neighbour by neighbour: a class sees itself, its section and, through it, its siblings."""
    torch.manual_seed(0)
    graph = CpcGraph(TITLES, dim=5)
    codes = cpc.CODES[1:]
    pairs = [(code, other) for code in codes for other in codes if code in (other, cpc.parent(other))]
    neighbours = {code: {a for a, b in pairs if b == code} | {b for a, b in pairs if a == code} for code in codes}
    x = {code: graph.first.weight @ TITLES[i] for i, code in enumerate(cpc.CODES) if i}

    def passed(nodes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            code: sum(nodes[other] / (len(around) * len(neighbours[other])) ** 0.5 for other in around)
            for code, around in neighbours.items()
        }

    nodes = {code: torch.nn.functional.gelu(node) for code, node in passed(x).items()}
    found = passed({code: graph.second.weight @ node for code, node in nodes.items()})["H04"]
    torch.testing.assert_close(graph(CODES)[0], found / found.norm())
    assert graph(CODES)[2].abs().max() == 0
    before = graph(CODES)
    graph.titles[cpc.code_index("H01")] += 1  # a sibling of H04, two steps away
    assert (graph(CODES)[0] - before[0]).abs().max() > 1e-6
    torch.testing.assert_close(graph(CODES)[1], before[1])  # A61 is further away


def build(backbone: str, adapter: str, **options: object) -> Matcher:
    """A small model whose LoRA updates are no longer zero; equal seeds give equal weights."""
    torch.manual_seed(0)
    sizes = {"contrast_layer": 1, "lora_rank": 4, "precision": "fp32", "rating_weight": 0}
    matcher = Matcher(Config(backbone=backbone, adapter=adapter, **sizes, **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(matcher.network.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    matcher.network.eval()
    return matcher


@pytest.mark.parametrize("layout", ["pair", "packed"])
def test_hyperlora_starts_exactly_as_plain_lora_on_all_layers(tiny_backbone, pairs_frame, layout: str) -> None:
    backbone = tiny_backbone("bert")
    plain, hyper = build(backbone, "lora_all", layout=layout), build(backbone, "hyperlora", layout=layout)
    plain.network.load_state_dict(
        {k: v for k, v in hyper.network.state_dict().items() if not k.startswith("hyperlora.")}
    )
    np.testing.assert_array_equal(hyper.score(pairs_frame), plain.score(pairs_frame))


def test_each_sequence_gets_the_update_of_its_class(tiny_backbone) -> None:
    """One adapted layer by hand: W x + s B diag(1 + V c) A x, for two classes in one batch."""
    matcher = build(tiny_backbone("bert"), "hyperlora")
    torch.nn.init.normal_(matcher.network.hyperlora.project.weight)
    layer = next(module for module in matcher.network.encoder.modules() if isinstance(module, LoraLayer))
    x, c = torch.randn(2, 5, layer.in_features), torch.nn.functional.normalize(torch.randn(2, 50), dim=-1)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with matcher.network.hyperlora.adapted_to(c):
        found = layer(x)
    for i in range(2):
        scale = 1 + matcher.network.hyperlora.project.weight[:4] @ c[i]
        update = layer.scaling["default"] * b @ torch.diag(scale) @ a
        torch.testing.assert_close(found[i], layer.base_layer(x[i]) + x[i] @ update.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + layer.scaling["default"] * x @ a.T @ b.T)


def test_the_class_matters_learns_is_saved_and_unknown_is_plain_lora(tiny_backbone, pairs_frame, tmp_path) -> None:
    matcher = build(tiny_backbone("bert"), "hyperlora", context_text="none")
    other, nowhere = pairs_frame.assign(context="A01"), pairs_frame.assign(context="")
    np.testing.assert_array_equal(matcher.score(pairs_frame), matcher.score(other))  # fusion and V start at zero
    torch.nn.init.normal_(matcher.network.hyperlora.project.weight)
    assert np.abs(matcher.score(pairs_frame) - matcher.score(other)).max() > 1e-4
    plain = matcher.score(nowhere, unknown="embedding")
    torch.nn.init.normal_(matcher.network.hyperlora.project.weight)
    np.testing.assert_array_equal(matcher.score(nowhere, unknown="embedding"), plain)
    pairs = matcher.pairs(pairs_frame)
    matcher.network(pairs.collate([pairs[np.array([i])] for i in range(12)])).ordinal_logits.sum().backward()
    assert matcher.network.hyperlora.project.weight.grad.abs().max() > 0
    assert matcher.network.fusion.embedding.table.weight.grad.abs().max() > 0
    matcher.save(tmp_path)
    np.testing.assert_array_equal(Matcher.load(tmp_path).score(pairs_frame), matcher.score(pairs_frame))


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_hyperlora_works_in_other_encoders_and_does_not_depend_on_the_batch(
    tiny_backbone, pairs_frame, kind: str
) -> None:
    matcher = build(tiny_backbone(kind), "hyperlora")
    torch.nn.init.normal_(matcher.network.hyperlora.project.weight)
    alone = np.concatenate([matcher.score(pairs_frame.iloc[[i]]) for i in range(len(pairs_frame))])
    np.testing.assert_allclose(matcher.score(pairs_frame), alone, atol=1e-5)


def test_deberta_cannot_have_hyperlora(tiny_backbone) -> None:
    with pytest.raises(InputError, match="hyperlora' does not work with deberta-v2"):
        build(tiny_backbone("deberta-v2"), "hyperlora")
