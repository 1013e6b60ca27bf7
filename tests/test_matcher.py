"""The model: every option, its layouts, and save -> load -> the same scores."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils import cpc, data, encoder, ordinal, packing
from patsim_utils.errors import InputError
from patsim_utils.fusion import FUSIONS
from patsim_utils.matcher import POOLINGS, Architecture, Matcher, span_mean
from patsim_utils.packing import LAYOUTS

KINDS = ("bert", "roberta", "deberta-v2", "modernbert")


def build(backbone: str, **options: object) -> Matcher:
    """A small model with noise in the weights that start at zero, so that everything has an effect."""
    torch.manual_seed(0)
    matcher = Matcher(Architecture(backbone=backbone, **options))
    with torch.no_grad():
        for name, parameter in matcher.named_parameters():
            if parameter.requires_grad and ("lora_" in name or "fusion.project" in name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return matcher.eval()


def test_span_mean_skips_the_padding() -> None:
    states = torch.arange(24.0).view(2, 3, 4)
    span = torch.tensor([[1, 2], [4, -1]])
    expected = torch.stack([(states[0, 1] + states[0, 2]) / 2, states[1, 1]])
    torch.testing.assert_close(span_mean(states, span), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_saved_and_loaded_it_scores_the_same(tiny_backbone, pairs_frame, tmp_path, kind: str, adapter: str) -> None:
    matcher = build(tiny_backbone(kind), adapter=adapter, contrast_layer=1)
    matcher.save(tmp_path / "model")
    suffixes = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md", ".txt"}  # nothing pickled
    loaded = Matcher.load(tmp_path)
    scores = matcher.score(pairs_frame)
    np.testing.assert_allclose(loaded.score(pairs_frame), scores, atol=1e-6)
    np.testing.assert_array_equal(Matcher.load(tmp_path).score(pairs_frame), loaded.score(pairs_frame))
    assert np.ptp(scores) > 0
    assert loaded.architecture == matcher.architecture


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_fusion_and_pooling_gives_scores_and_gradients(
    tiny_backbone, pairs_frame, fusion: str, pooling: str
) -> None:
    matcher = build(tiny_backbone("bert"), fusion=fusion, pooling=pooling, contrast_layer=2)
    pairs = matcher.pairs(pairs_frame)
    output = matcher(pairs.collate([pairs[np.array([i])] for i in range(12)]))
    assert output.cumulative.shape == (12, 4)
    assert output.anchor.shape == output.target.shape == (12, 32)
    (output.cumulative.sum() + output.anchor.sum() + output.target.sum()).backward()
    unused = [
        name
        for name, p in matcher.named_parameters()
        # the head's four thresholds and the layers above the last one used always take part
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]
    assert unused == []
    p = matcher.probabilities(pairs_frame)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p @ np.arange(5) / 4, matcher.score(pairs_frame), atol=1e-6)


@pytest.mark.parametrize("context_text", ["title", "code", "none"])
def test_the_context_reaches_the_score_by_text_and_by_vector(tiny_backbone, pairs_frame, context_text: str) -> None:
    other = pairs_frame.assign(context="A01")
    for fusion in ("add", "none"):
        matcher = build(tiny_backbone("bert"), fusion=fusion, context_text=context_text)
        same = np.allclose(matcher.score(pairs_frame), matcher.score(other), atol=1e-7)
        assert same == (fusion == "none" and context_text == "none")


def test_an_unknown_context_is_an_error_or_the_text_alone(tiny_backbone, pairs_frame) -> None:
    matcher = build(tiny_backbone("bert"))
    nowhere = pairs_frame.assign(context="")
    with pytest.raises(InputError, match="no CPC section or class"):
        matcher.score(nowhere)
    found = matcher.score(nowhere, unknown="embedding")
    with torch.no_grad():
        matcher.fusion.project.weight.zero_()
    matcher.titles = {}
    np.testing.assert_allclose(found, matcher.score(pairs_frame), atol=1e-6)


@pytest.mark.parametrize("target_sep", [True, False])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_packed_score_does_not_depend_on_its_company(tiny_backbone, pairs_frame, kind: str, target_sep: bool) -> None:
    matcher = build(tiny_backbone(kind), layout="packed", target_sep=target_sep)
    together = matcher.score(pairs_frame)
    alone = np.concatenate([matcher.score(pairs_frame.iloc[[i]]) for i in range(len(pairs_frame))])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(pairs_frame))
    np.testing.assert_allclose(matcher.score(pairs_frame.iloc[order]), together[order], atol=1e-5)
    split = matcher.cumulative(matcher.pairs(pairs_frame), batch_tokens=40)
    np.testing.assert_allclose(split.sigmoid().mean(-1), together, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{"adapter": "full"}, {"adapter": "hyperlora"}, {"separate_layers": 3}])
def test_leaving_out_what_nobody_reads_changes_neither_scores_nor_gradients(
    tiny_backbone, pairs_frame, monkeypatch, kind: str, layout: str, options: dict
) -> None:
    matcher = build(tiny_backbone(kind), layout=layout, **options).double()
    pairs = matcher.pairs(pairs_frame)
    batch = pairs.collate([pairs[rows] for rows in pairs.sequences(largest=3)])
    last, plain = matcher.encoder.encoder.layer[-1], encoder.hidden_states
    worked: list[int] = []
    last.intermediate.register_forward_hook(lambda _, inputs, __: worked.append(inputs[0].shape[1]))

    def outcome() -> dict[str, torch.Tensor]:
        matcher.zero_grad()
        output = matcher(batch)
        (output.cumulative.square().sum() + output.anchor.sum() + output.target.sum()).backward()
        gradients = {name: p.grad for name, p in matcher.named_parameters() if p.grad is not None}
        return {"cumulative": output.cumulative, "anchor": output.anchor, "target": output.target, **gradients}

    found = outcome()
    assert "forward" not in vars(last)
    monkeypatch.setattr(encoder, "hidden_states", lambda *args, spans_only, **rest: plain(*args, **rest))
    expected = outcome()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-9, rtol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
    assert worked == [packing.span_places(batch).shape[1], batch["block"].shape[1]]
    assert worked[0] < worked[1]


def test_every_layer_drops_as_much_of_its_attention(tiny_backbone, pairs_frame, monkeypatch) -> None:
    matcher = build(tiny_backbone("bert"), adapter="full", backbone_dropout=0.25)
    pairs = matcher.pairs(pairs_frame)
    batch = pairs.collate([pairs[rows] for rows in pairs.sequences(largest=3)])
    dropped: list[float] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def note(*args: torch.Tensor, dropout_p: float = 0.0, **rest: object) -> torch.Tensor:
        dropped.append(dropout_p)
        return plain(*args, dropout_p=dropout_p, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", note)
    matcher.train()(batch)
    matcher.eval()(batch)
    assert dropped == [0.25] * 3 + [0.0] * 3


@pytest.mark.parametrize("layout", ["pair", "packed", "list"])
def test_in_separate_layers_the_anchor_has_not_met_its_target(tiny_backbone, pairs_frame, layout: str) -> None:
    """At the contrast layer the anchor's states are the same whatever the target and the class, and no further up."""
    kept = {"fusion": "none", "layout": layout, "contrast_layer": 2}
    for separate_layers, met in ((2, False), (1, True)):
        matcher = build(tiny_backbone("bert"), separate_layers=separate_layers, **kept)
        pairs = matcher.pairs(pairs_frame)
        first, *others = (matcher(pairs.collate([pairs[np.array([i])]])).anchor for i in (0, 1, 4))
        changed = max((first - other).abs().max().item() for other in others)
        assert (changed > 1e-4) == met


def test_a_model_that_learned_ratings_tells_them(tiny_backbone, pairs_frame, tmp_path) -> None:
    matcher = build(tiny_backbone("bert"), rating_weight=0.5)
    matcher.save(tmp_path / "model")
    loaded, shuffled = Matcher.load(tmp_path), pairs_frame.iloc[::-1]
    found = loaded.ratings(shuffled)
    assert list(found) == list(data.RATINGS)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    pd.testing.assert_frame_equal(found.sort_index(), matcher.ratings(pairs_frame), atol=1e-5)
    rank = np.array([int(rating[0]) for rating in data.RATINGS])
    pairs = matcher.pairs(pairs_frame)
    head = ordinal.score(matcher(pairs.collate([pairs[np.array([i])] for i in range(12)])).cumulative).detach()
    both = (head.numpy() + matcher.ratings(pairs_frame).to_numpy() @ rank / 4) / 2
    np.testing.assert_allclose(matcher.score(pairs_frame), both, atol=1e-5)
    with pytest.raises(InputError, match="trained with rating_weight 0"):
        build(tiny_backbone("bert")).ratings(pairs_frame)


def test_a_list_score_does_depend_on_its_company(tiny_backbone, pairs_frame) -> None:
    matcher = build(tiny_backbone("bert"), layout="list")
    together = matcher.score(pairs_frame)
    alone = np.concatenate([matcher.score(pairs_frame.iloc[[i]]) for i in range(len(pairs_frame))])
    assert np.abs(together - alone).max() > 1e-5
    pairs = matcher.pairs(pairs_frame)
    sequences = [rows for k in range(4) for rows in pairs.sequences(largest=128, generator=np.random.default_rng(k))]
    one_by_one = torch.zeros(12, 4)
    for rows in sequences:
        one_by_one[rows] += matcher(pairs.collate([pairs[rows]])).cumulative.detach() / 4
    torch.testing.assert_close(matcher.cumulative(pairs), one_by_one, atol=1e-5, rtol=1e-5)


def test_scores_do_not_depend_on_the_batch(tiny_backbone, pairs_frame) -> None:
    matcher = build(tiny_backbone("bert"))
    seen = []
    small = matcher.cumulative(
        matcher.pairs(pairs_frame), batch_tokens=1, progress=lambda done, n: seen.append((done, n))
    )
    torch.testing.assert_close(small, matcher.cumulative(matcher.pairs(pairs_frame)), atol=1e-5, rtol=1e-5)
    assert seen[-1] == (12, 12)


def test_cpc_vectors_are_unit_rows(tiny_backbone) -> None:
    vectors = build(tiny_backbone("bert"), cpc_dim=7).cpc_vectors()
    assert vectors.shape == (len(cpc.CODES) - 1, 7)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    with pytest.raises(InputError, match="no CPC vectors"):
        build(tiny_backbone("bert"), fusion="none").cpc_vectors()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, "fusion: 'sum' is none of add"),
        ({"pooling": "cls", "layout": "packed"}, "needs layout 'pair'"),
        ({"target_sep": False}, "target_sep: false needs layout 'packed' or 'list'"),
        ({"adapter": "prefix"}, "adapter: 'prefix' is none of lora, hyperlora, full"),
        ({"lora_rank": 0}, "lora_rank: 0 is less than 1"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"contrast_layer": 4}, "contrast_layer: 4 is not in 0..3"),
        ({"separate_layers": -1}, "separate_layers: -1 is not in 0..3"),
    ],
)
def test_what_cannot_work_is_said(tiny_backbone, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Matcher(Architecture(backbone=tiny_backbone("bert"), **{"contrast_layer": 1, **options}))


def test_a_folder_without_a_model_and_a_foreign_model_are_refused(tiny_backbone, tmp_path) -> None:
    with pytest.raises(InputError, match=r"matcher\.json is missing"):
        Matcher.load(tmp_path)
    build(tiny_backbone("bert")).save(tmp_path)
    note = json.loads((tmp_path / "matcher.json").read_text())
    (tmp_path / "matcher.json").write_text(json.dumps({**note, "codes": note["codes"][:-1]}))
    with pytest.raises(InputError, match="another list of CPC codes"):
        Matcher.load(tmp_path)


def test_an_adapter_of_another_shape_is_refused(tiny_backbone, tmp_path) -> None:
    build(tiny_backbone("bert"), lora_rank=4).save(tmp_path / "four")
    build(tiny_backbone("bert"), lora_rank=8).save(tmp_path / "eight")
    shutil.copytree(tmp_path / "four" / "backbone", tmp_path / "eight" / "backbone", dirs_exist_ok=True)
    with pytest.raises((InputError, RuntimeError), match="adapter|size mismatch"):
        Matcher.load(tmp_path / "eight")


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_model_of_fewer_layers_is_saved_as_it_is(tiny_backbone, pairs_frame, tmp_path, adapter: str) -> None:
    matcher = build(tiny_backbone("bert"), layers=2, contrast_layer=1, adapter=adapter)
    matcher.save(tmp_path / "model")
    loaded = Matcher.load(tmp_path)
    assert len(loaded.encoder.encoder.layer) == 2
    np.testing.assert_allclose(loaded.score(pairs_frame), matcher.score(pairs_frame), atol=1e-6)


def test_the_real_backbone_scores_real_pairs_in_every_layout(pairs_frame: pd.DataFrame) -> None:
    for layout in ("pair", "packed", "list"):
        scores = Matcher(Architecture(layout=layout)).eval().score(pairs_frame)
        assert scores.shape == (12,)
        assert (scores >= 0).all()
        assert (scores <= 1).all()
