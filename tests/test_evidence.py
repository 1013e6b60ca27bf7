"""Evidence: shared words by hand, similarities against a slow loop, one row at a time, and through a whole model."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from patsim_utils import company, cpc, data, encoder, evidence
from patsim_utils.errors import InputError
from patsim_utils.evidence import ALIGNED, WORDS, Evidence, Similarity
from patsim_utils.matcher import Architecture, Matcher
from patsim_utils.packing import Pairs


def pairs_of(frame: pd.DataFrame, backbone: str = "minilm") -> Pairs:
    return Pairs(frame, encoder.load_tokenizer(backbone), titles=cpc.titles(), unknown="embedding")


def test_shared_words_stems_and_letters_by_hand() -> None:
    rows = {"anchor": ["gear box", "gears"], "target": ["gear box oil", "gear"], "context": "F16"}
    found = evidence.words(pairs_of(pd.DataFrame(rows)))
    # all 8 trigrams of " gear box " are among the 12 of " gear box oil "
    np.testing.assert_allclose(found[0], [2 / 3, 2 / 3, 8 / 12, 1, 8 / 12, 2 / 4, 0, 1 / 4, 1, 0, 1, 0], rtol=1e-6)
    # " gears ": " ge gea ear ars rs "; " gear ": " ge gea ear ar "
    np.testing.assert_allclose(found[1], [0, 1, 3 / 6, 3 / 5, 3 / 4, 0, 1 / 4, 1 / 4, 0, 0, 0, 0], rtol=1e-6)


def slowly(similarity: Similarity, backbone: str, anchor: str, target: str, title: str) -> list[float]:
    """One row by loops over tokens, with an encoder that reads one phrase at a time."""
    model = encoder.load_backbone(backbone).eval()
    table = model.get_input_embeddings().weight.detach()

    def levels(phrase: str) -> list[torch.Tensor]:
        ids = similarity.tokenizer(phrase, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state[0, 1:-1]
        return [F.normalize(x, dim=-1) for x in (table[ids[0, 1:-1]] - table.mean(0), states)]

    def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
        return F.cosine_similarity(x, y, dim=0).item()

    a, t, c = levels(anchor), levels(target), levels(title)
    found = []
    for one, other in zip(a, t, strict=True):
        found.append(cosine(one.mean(0), other.mean(0)))
        for from_, to in ((one, other), (other, one)):
            best = [max(cosine(x, y) for y in to) for x in from_]
            found += [sum(best) / len(best), min(best)]
        found += [cosine(one[0], other[0]), cosine(one[-1], other[-1])]
    return [*found, cosine(a[1].mean(0), c[1].mean(0)), cosine(t[1].mean(0), c[1].mean(0))]


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_similarities_are_those_of_a_slow_loop(tiny_backbone, pairs_frame, kind: str) -> None:
    backbone = tiny_backbone(kind)
    similarity, pairs = Similarity(backbone, read=True), pairs_of(pairs_frame, backbone)
    found = similarity(pairs, pairs.groups())
    rows = zip(pairs_frame["anchor"], pairs_frame["target"], pairs_frame["context"].map(cpc.titles()), strict=True)
    expected = [slowly(similarity, backbone, *row) for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    pieces = Similarity(backbone, read=False)(pairs, pairs.groups())
    np.testing.assert_allclose(pieces, np.array(expected)[:, :ALIGNED], atol=1e-5)


def test_a_group_stands_on_the_vectors_of_its_whole_phrases(tiny_backbone, pairs_frame, monkeypatch) -> None:
    monkeypatch.setattr(evidence, "ROWS", 5)
    backbone = tiny_backbone("bert")
    pairs = pairs_of(pairs_frame, backbone)
    found = Similarity(backbone, read=True, grouped=True)(pairs, pairs.groups())
    plain = Similarity(backbone, read=True)(pairs, pairs.groups())
    torch.testing.assert_close(found[:, : plain.shape[1]], plain)
    model, tokenizer = encoder.load_backbone(backbone).eval(), encoder.load_tokenizer(backbone)
    for rows in pairs.groups():
        phrases = [pairs_frame["anchor"][rows[0]], *pairs_frame["target"][rows]]
        ids = [tokenizer(phrase, return_tensors="pt")["input_ids"] for phrase in phrases]
        with torch.no_grad():
            states = [F.normalize(model(input_ids=i).last_hidden_state[0, 1:-1], dim=-1).mean(0) for i in ids]
        vectors = F.normalize(torch.stack(states), dim=-1)
        expected = company.standing(vectors[0], vectors[1:])
        torch.testing.assert_close(found[rows, -company.STANDING :], expected, atol=1e-4, rtol=0)


def test_a_row_has_the_same_evidence_alone_and_in_company(tiny_backbone, pairs_frame, monkeypatch) -> None:
    monkeypatch.setattr(evidence, "ROWS", 5)
    monkeypatch.setattr(evidence, "PHRASES", 3)
    backbone = tiny_backbone("bert")
    network = Evidence("all", backbone=backbone)
    together = network.of(pairs_of(pairs_frame, backbone))
    for i in range(len(pairs_frame)):
        alone = network.of(pairs_of(pairs_frame.iloc[[i]], backbone))
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


def test_a_long_list_of_candidates_is_compared_in_parts(tiny_backbone, monkeypatch) -> None:
    monkeypatch.setattr(evidence, "ROWS", 4)
    sizes, standing = [], company.standing
    monkeypatch.setattr(company, "standing", lambda a, t: sizes.append(len(t)) or standing(a, t))
    count, backbone = 10, tiny_backbone("bert")
    frame = pd.DataFrame({"anchor": "gear", "target": [f"gear {i}" for i in range(count)], "context": "F16"})
    network = Evidence("group", backbone=backbone)
    found = network.of(pairs_of(frame, backbone))
    assert sum(sizes) == 4 * count  # four levels of likeness
    assert max(sizes) == 4
    parts = [network.of(pairs_of(part, backbone)) for part in (frame[:4], frame[4:7], frame[7:])]
    torch.testing.assert_close(found, torch.cat(parts))


def test_a_phrase_without_tokens_has_finite_evidence(tiny_backbone) -> None:
    """An unknown class has no text, and the tokenizer drops some characters altogether."""
    backbone = tiny_backbone("bert")
    frame = pd.DataFrame({"anchor": ["steel", "\u200b"], "target": ["\u200b", "\u200b"], "context": ""})
    numbers = Evidence("all", backbone=backbone).of(pairs_of(frame, backbone))
    assert numbers.isfinite().all()
    assert numbers[:, -2:].eq(0).all()  # nothing is like a class text that is not there
    assert Evidence("group", backbone=backbone).of(pairs_of(frame, backbone)).isfinite().all()


@pytest.mark.parametrize(("kind", "moves"), [("all", False), ("group", True)])
@pytest.mark.parametrize("stack", [0, 2])
def test_only_the_evidence_of_the_group_depends_on_the_company(
    tiny_backbone, pairs_frame, kind: str, moves: bool, stack: int
) -> None:
    torch.manual_seed(0)
    matcher = Matcher(Architecture(backbone=tiny_backbone("bert"), evidence=kind, stack=stack)).eval()
    together = matcher.score(pairs_frame)
    assert (np.abs(matcher.score(pairs_frame.iloc[[0]]) - together[0]).max() > 1e-5) == moves


@pytest.mark.parametrize("layout", ["pair", "packed", "list"])
def test_a_stack_stands_beside_every_layout(tiny_backbone, pairs_frame, layout: str) -> None:
    torch.manual_seed(0)
    options = {"backbone": tiny_backbone("bert"), "layout": layout, "evidence": "all", "rating_weight": 1.0}
    matcher = Matcher(Architecture(stack=2, **options)).eval()
    before = matcher.score(pairs_frame)
    assert np.isfinite(before).all()
    _disturb(matcher.judges[1])
    assert np.abs(matcher.score(pairs_frame) - before).max() > 1e-5


def test_a_stack_needs_absolute_positions(tiny_backbone) -> None:
    with pytest.raises(InputError, match="parameter stack: its judges read packed groups, which the relative"):
        Matcher(Architecture(backbone=tiny_backbone("deberta-v2"), evidence="all", stack=2))


def _disturb(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))


@pytest.mark.parametrize("kind", ["all", "group"])
def test_a_row_is_compared_by_the_reader_that_has_not_seen_it_or_by_all(tiny_backbone, pairs_frame, kind: str) -> None:
    torch.manual_seed(0)
    network, pairs = Evidence(kind, backbone=tiny_backbone("bert"), readers=3), pairs_of(pairs_frame)
    for reader in network.readers:
        _disturb(reader)
    network.grouped = False  # the numbers themselves, without those that are made of them
    unseen = pairs.anchor % 3
    size = network.similarity.read_size
    by = [network.similarity.by(reader.eval(), pairs, pairs.groups()) for reader in network.readers]
    assert (by[0] - by[1]).abs().max() > 1e-2
    trained, fresh = network.train().of(pairs, unseen=unseen)[:, -size:], network.train().of(pairs)[:, -size:]
    for row, reader in enumerate(unseen):
        torch.testing.assert_close(trained[row], by[reader][row], atol=1e-3, rtol=0)  # a deviation near 0
    torch.testing.assert_close(fresh, sum(by) / 3, atol=1e-3, rtol=0)


def test_an_untouched_reader_finds_what_the_backbone_finds(tiny_backbone, pairs_frame) -> None:
    backbone = tiny_backbone("bert")
    pairs, network = pairs_of(pairs_frame), Evidence("all", backbone=backbone, readers=2)
    numbers = network.of(pairs)
    assert numbers.shape[1] == WORDS + 3 * ALIGNED + 4
    torch.testing.assert_close(numbers[:, -ALIGNED - 2 :], numbers[:, WORDS + ALIGNED : WORDS + 2 * ALIGNED + 2])


@pytest.mark.parametrize(("stack", "evidence"), [(1, "all"), (2, "pieces"), (2, "none"), (-1, "all")])
def test_a_stack_that_cannot_be_is_refused(stack: int, evidence: str) -> None:
    with pytest.raises(InputError, match=f"parameter stack: {stack}; use 0, or 2 or more"):
        Architecture(stack=stack, evidence=evidence)


def test_numbers_are_measured_in_the_units_of_the_training_data() -> None:
    network = Evidence("words", backbone="minilm").eval()
    numbers = torch.rand(100, WORDS) * 3 + 1
    numbers[:, 4] = 0.5  # the same in all rows
    network.standardise(numbers)
    seen = []
    network.network[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert network(numbers).shape == (100, Evidence.width)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(WORDS), atol=1e-5, rtol=0)
    expected = torch.ones(WORDS)
    expected[4] = 0
    torch.testing.assert_close(seen[0].std(0), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "stack"), [("words", 0), ("pieces", 0), ("all", 0), ("group", 0), ("all", 3), ("group", 2)]
)
def test_it_moves_the_score_and_comes_back_from_disk(
    tiny_backbone, pairs_frame, tmp_path, kind: str, stack: int
) -> None:
    torch.manual_seed(0)
    architecture = Architecture(backbone=tiny_backbone("bert"), evidence=kind, stack=stack, rating_weight=1.0)
    matcher = Matcher(architecture).eval()
    for reader in matcher.evidence.readers:
        _disturb(reader)
    matcher.evidence.standardise(matcher.pairs(pairs_frame).evidence)
    assert not any(weight.requires_grad for weight in matcher.evidence.parameters())
    scores = matcher.score(pairs_frame)
    matcher.save(tmp_path / "model")
    assert not any("similarity" in name for name in matcher.state_dict())
    np.testing.assert_allclose(Matcher.load(tmp_path).score(pairs_frame), scores, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(pairs_frame))
    np.testing.assert_allclose(matcher.score(pairs_frame.iloc[order]), scores[order], atol=1e-5)
    with torch.no_grad():
        matcher.evidence.network[0].weight.zero_()
    assert np.abs(matcher.score(pairs_frame) - scores).max() > 1e-4


@pytest.mark.parametrize(
    ("kind", "stack", "share"), [("words", 0, 1 / 5), ("group", 0, 1 / 3), ("all", 2, 1 / 2), ("group", 2, 1 / 2)]
)
def test_a_part_of_the_score_is_the_judgement_of_the_evidence(
    tiny_backbone, pairs_frame, kind: str, stack: int, share: float
) -> None:
    torch.manual_seed(0)
    architecture = Architecture(backbone=tiny_backbone("bert"), evidence=kind, stack=stack, rating_weight=1.0)
    matcher = Matcher(architecture).eval()
    pairs = matcher.pairs(pairs_frame)
    with torch.no_grad():
        output = matcher(pairs.collate([pairs[np.array([i])] for i in range(12)]))
    rated = torch.tensor([int(name[0]) / 4 for name in data.RATINGS])
    beside = matcher.evidence
    with torch.no_grad():
        features = beside(pairs.evidence)
        alone = (beside.head(features).sigmoid().mean(-1) + beside.rating_head(features).softmax(-1) @ rated) / 2
    np.testing.assert_allclose(beside.score(pairs.evidence), alone, atol=1e-6)
    encoders = (output.cumulative.sigmoid().mean(-1) + output.ratings.softmax(-1) @ rated) / 2
    np.testing.assert_allclose(matcher.score(pairs_frame), encoders * (1 - share) + alone * share, atol=1e-5)
