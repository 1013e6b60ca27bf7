"""The model: every option, its layouts, save -> load -> the same scores, and damaged folders."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.method import ordinal
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.model import span_mean
from patsim_utils.ratings import RATINGS

LAYOUTS = ("pair", "packed", "repeated")


def build(backbone: str, **options: object) -> Matcher:
    """A small model with noise in the weights that start at zero, so that everything has an effect."""
    torch.manual_seed(0)
    defaults = {"contrast_layer": 1, "precision": "fp32", "rating_weight": 0.0}
    matcher = Matcher(Config(backbone=backbone, **{**defaults, **options}))
    with torch.no_grad():
        for name, parameter in matcher.network.named_parameters():
            if parameter.requires_grad and ("lora_" in name or "fusion.project" in name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    matcher.network.eval()
    return matcher


def test_span_mean_skips_the_padding() -> None:
    states = torch.arange(24.0).view(2, 3, 4)
    span = torch.tensor([[1, 2], [4, -1]])
    expected = torch.stack([(states[0, 1] + states[0, 2]) / 2, states[1, 1]])
    torch.testing.assert_close(span_mean(states, span), expected)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("options", [{"adapter": "lora"}, {"adapter": "full", "layers": 2, "rating_weight": 1.0}])
def test_saved_and_loaded_it_scores_the_same_without_its_backbone(
    tiny_backbone, pairs_frame, tmp_path, kind: str, options: dict
) -> None:
    folder = shutil.copytree(tiny_backbone(kind), tmp_path / "backbone")
    matcher = build(str(folder), **options)
    shutil.rmtree(folder)
    matcher.save(tmp_path / "model")
    suffixes = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt"}  # nothing pickled
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").glob("*.*")} == {0o644}
    loaded, scores = Matcher.load(tmp_path), matcher.score(pairs_frame)
    np.testing.assert_allclose(loaded.score(pairs_frame), scores, atol=1e-6)
    loaded.save(tmp_path / "again")  # whose LoRA is merged by then
    for model in (loaded, Matcher.load(tmp_path / "again")):
        np.testing.assert_allclose(model.score(pairs_frame), scores, atol=1e-6)
    assert np.ptp(scores) > 0
    assert loaded.config == matcher.config.model_copy(update={"data": "sample"})


@pytest.mark.parametrize("fusion", ["add", "gate", "attention", "graph", "none"])
def test_every_fusion_gives_scores_and_gradients(tiny_backbone, pairs_frame, tmp_path, fusion: str) -> None:
    matcher = build(tiny_backbone("bert"), fusion=fusion, contrast_layer=2)
    pairs = matcher.pairs(pairs_frame)
    output = matcher.network(pairs.collate([pairs[np.array([i])] for i in range(12)]))
    assert output.ordinal_logits.shape == (12, 4)
    assert output.contrast_anchor.shape == output.contrast_target.shape == (12, 32)
    (output.ordinal_logits.sum() + output.contrast_anchor.sum() + output.contrast_target.sum()).backward()
    unused = [name for name, p in matcher.network.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    p = matcher.probabilities(pairs_frame)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p @ np.arange(5) / 4, matcher.score(pairs_frame), atol=1e-6)
    matcher.save(tmp_path)
    np.testing.assert_allclose(Matcher.load(tmp_path).score(pairs_frame), matcher.score(pairs_frame), atol=1e-6)


@pytest.mark.parametrize("context_text", ["title", "whole_title", "code", "none"])
def test_the_context_reaches_the_score_by_text_and_by_vector(tiny_backbone, pairs_frame, context_text: str) -> None:
    other = pairs_frame.assign(context="A01")
    for fusion in ("add", "none"):
        matcher = build(tiny_backbone("bert"), fusion=fusion, context_text=context_text)
        same = np.allclose(matcher.score(pairs_frame), matcher.score(other), atol=1e-7)
        assert same == (fusion == "none" and context_text == "none")


def test_an_unknown_context_is_an_error_or_the_text_alone(tiny_backbone, pairs_frame) -> None:
    matcher = build(tiny_backbone("bert"))
    nowhere = pairs_frame.assign(context="")
    with pytest.raises(InputError, match="no CPC"):
        matcher.score(nowhere)
    found = matcher.score(nowhere, unknown="embedding")
    np.testing.assert_array_equal(found, matcher.score(nowhere.assign(context="H"), unknown="embedding"))
    with torch.no_grad():
        matcher.network.fusion.project.weight.zero_()
    matcher.titles = {}
    np.testing.assert_allclose(found, matcher.score(pairs_frame), atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "deberta-v2", "modernbert"])
def test_no_score_depends_on_the_other_targets(tiny_backbone, pairs_frame, kind: str, layout: str) -> None:
    matcher = build(tiny_backbone(kind), layout=layout)
    together = matcher.score(pairs_frame)
    alone = np.concatenate([matcher.score(pairs_frame.iloc[[i]]) for i in range(len(pairs_frame))])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.ptp(together) > 1e-3
    triples = list(pairs_frame[["anchor", "target", "context"]].itertuples(index=False, name=None))
    np.testing.assert_array_equal(matcher.predict(triples), together)
    order = np.random.default_rng(0).permutation(len(pairs_frame))
    np.testing.assert_allclose(matcher.score(pairs_frame.iloc[order]), together[order], atol=1e-5)


def test_a_model_that_learned_ratings_tells_them(tiny_backbone, pairs_frame) -> None:
    matcher = build(tiny_backbone("bert"), rating_weight=0.5)
    found = matcher.ratings(pairs_frame.iloc[::-1]).iloc[::-1]
    assert list(found) == list(RATINGS)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    rank = np.array([int(rating[0]) for rating in RATINGS])
    pairs = matcher.pairs(pairs_frame)
    outputs = matcher.network(pairs.collate([pairs[np.array([i])] for i in range(12)]))
    head = ordinal.score(outputs.ordinal_logits).detach()
    both = (head.numpy() + found.to_numpy() @ rank / 4) / 2
    np.testing.assert_allclose(matcher.score(pairs_frame), both, atol=1e-5)
    with pytest.raises(InputError, match="trained with rating_weight 0"):
        build(tiny_backbone("bert")).ratings(pairs_frame)


def test_an_explanation_agrees_with_the_single_answers(tiny_backbone, pairs_frame) -> None:
    matcher = build(tiny_backbone("bert"), rating_weight=0.5)
    found = matcher.explain(pairs_frame)
    np.testing.assert_allclose(found["score"], matcher.score(pairs_frame))
    np.testing.assert_allclose(found[["0", "0.25", "0.5", "0.75", "1"]], matcher.probabilities(pairs_frame))
    ratings = matcher.ratings(pairs_frame)
    assert found["rating"].tolist() == ratings.idxmax(axis=1).tolist()
    assert "rating" not in build(tiny_backbone("bert")).explain(pairs_frame)


def test_ranking_sorts_the_candidates_as_they_were_given(tiny_backbone) -> None:
    matcher = build(tiny_backbone("bert"), layout="packed")
    candidates = ["Steel", "stout  material", "soft material", "\uff53teel"]
    found = matcher.rank("strong material", candidates, context="E04", top_k=3)
    frame = pd.DataFrame({"anchor": "strong material", "target": candidates, "context": "E04"})
    scores = dict(zip(candidates, matcher.score(frame), strict=True))
    assert found["target"].tolist() == sorted(candidates, key=scores.get, reverse=True)[:3]
    assert found["rank"].tolist() == [1, 2, 3]
    assert scores["Steel"] == pytest.approx(scores["\uff53teel"], abs=1e-6)  # one phrase in two spellings
    assert matcher.rank("strong material", [], context="E04").empty
    with pytest.raises(InputError, match="'steel' is one text"):
        matcher.rank("strong material", "steel", context="E04")


def test_scores_come_in_bf16_close_to_fp32(tiny_backbone, pairs_frame) -> None:
    scores = [build(tiny_backbone("bert"), precision=precision).score(pairs_frame) for precision in ("fp32", "bf16")]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.01


def test_progress_is_told_in_rows(tiny_backbone, pairs_frame) -> None:
    matcher, seen = build(tiny_backbone("bert")), []
    matcher.run(matcher.pairs(pairs_frame), progress=lambda done, n: seen.append((done, n)))
    assert seen[-1] == (12, 12)


def test_cpc_vectors_are_unit_rows(tiny_backbone) -> None:
    vectors = build(tiny_backbone("bert")).cpc_vectors()
    assert vectors.shape == (len(cpc.CODES) - 1, 50)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    with pytest.raises(InputError, match="no CPC vectors"):
        build(tiny_backbone("bert"), fusion="none").cpc_vectors()


def test_a_layer_that_the_backbone_has_not_is_refused(tiny_backbone) -> None:
    with pytest.raises(InputError, match=r"^parameter contrast_layer: 4 is not in 0\.\.3 of this backbone$"):
        Matcher(Config(backbone=tiny_backbone("bert"), contrast_layer=4))
    Matcher(Config(backbone=tiny_backbone("bert"), contrast_layer=4, contrast_weight=0))


@pytest.fixture(scope="module")
def saved(tiny_backbone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    build(tiny_backbone("bert"), fusion="add").save(folder)
    return folder


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def reweighed(change):
    def damage(path: Path) -> None:
        weights = load_file(path)
        change(weights)
        save_file(weights, path)

    return damage


WEIGHT = "/model/model.safetensors: weight"
CHANGED = "/model: a file of tokenizer/, encoder/ or features/ is missing or was changed"


def other_note(**changes: object):
    def damage(path: Path) -> None:
        note = json.loads(path.read_text())
        path.write_text(json.dumps(note | changes))

    return damage


def test_models_of_the_former_format_are_read_unless_their_layout_has_changed(tiny_backbone, tmp_path) -> None:
    matcher = build(tiny_backbone("bert"), layout="packed")
    matcher.save(tmp_path)
    assert Matcher.load(tmp_path).config.layout == "packed"
    note_path = tmp_path / "matcher.json"
    settings = json.loads(note_path.read_text())["config"]
    for layout, today in {"pair": "pair", "repeated": "repeated", "compact": "packed"}.items():
        other_note(format=2, config=settings | {"layout": layout})(note_path)
        assert Matcher.load(tmp_path).config.layout == today
    other_note(format=2, config=settings)(note_path)
    with pytest.raises(InputError) as error:
        Matcher.load(tmp_path)
    reason = "the model was written by another version of patsim, whose layout 'packed' was another one; train it again"
    assert str(error.value) == f"{tmp_path}: {reason}"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", Path.unlink, r"/model/model\.safetensors: the weights may not be read \(.+\)"),
        ("model.safetensors", cut_off, r"/model/model\.safetensors: the weights may not be read \(.+\)"),
        ("model.safetensors", lambda path: path.write_bytes(b""), r".* the weights may not be read \(.+\)"),
        ("model.safetensors", reweighed(lambda w: w.pop("head.first")), f"{WEIGHT} 'head.first' is missing (1 such)"),
        (
            "model.safetensors",
            reweighed(lambda w: w.update(extra=torch.ones(1))),
            f"{WEIGHT} 'extra' is unknown (1 such)",
        ),
        (
            "model.safetensors",
            reweighed(lambda w: w.update({"head.first": torch.ones(2)})),
            f"{WEIGHT} 'head.first' is [2] torch.float32, not [] torch.float32",
        ),
        (
            "model.safetensors",
            reweighed(lambda w: w.update({"head.first": w["head.first"].half()})),
            f"{WEIGHT} 'head.first' is [] torch.float16, not [] torch.float32",
        ),
        (
            "model.safetensors",
            reweighed(lambda w: w.update({"head.first": torch.tensor(torch.nan)})),
            f"{WEIGHT} 'head.first' holds values that are not finite",
        ),
        ("matcher.json", Path.unlink, ": there is no model here; `make study` trains one into runs/sample"),
        ("matcher.json", into_a_folder, "/model/matcher.json: may not be read (Is a directory)"),
        ("matcher.json", cut_off, "/model/matcher.json: is damaged, or of another version of patsim"),
        (
            "matcher.json",
            lambda path: path.write_text("[]"),
            "/model/matcher.json: is damaged, or of another version of patsim",
        ),
        ("matcher.json", other_note(codes=["H04"]), "/model: the model was written by another version of patsim"),
        ("matcher.json", other_note(format=1), "/model: the model was written by another version of patsim"),
        ("matcher.json", other_note(config={"fusion": "sum"}), ".*parameter fusion.*"),
        ("matcher.json", other_note(titles={}), "/model/matcher.json: its titles are not those of the CPC codes"),
        ("tokenizer", shutil.rmtree, CHANGED),
        ("tokenizer/tokenizer.json", cut_off, CHANGED),
        ("encoder/config.json", cut_off, CHANGED),
    ],
)
def test_a_damaged_model_is_refused_with_one_line(saved: Path, tmp_path, name: str, damage, message: str) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    damage(folder / name)
    with pytest.raises(InputError) as caught:
        Matcher.load(tmp_path)
    text = str(caught.value).replace(str(tmp_path), "")
    assert text == message or re.fullmatch(message, text)
    assert text.isprintable()
