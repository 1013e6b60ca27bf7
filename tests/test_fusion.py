"""The CPC vector's way into the tokens."""

import pytest
import torch

from patsim_utils import cpc
from patsim_utils.fusion import FUSIONS, CpcEmbedding, CpcGraph, Fusion

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


@pytest.mark.parametrize("kind", ["add", "gate", "attention", "graph", "pooled"])
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
    neighbours = {
        code: [code] + ([cpc.parent(code)] if cpc.parent(code) else [c for c in cpc.CODES[1:] if cpc.parent(c) == code])
        for code in cpc.CODES[1:]
    }
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


def test_an_unknown_fusion_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="add, gate, attention, graph, pooled, none"):
        Fusion("sum", width=12, dim=5)
