"""Similarity features against plain computations, and the regressor that is blended in."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from patsim_utils.config import Config
from patsim_utils.data.pairs import is_one_phrase
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method import encoder, features, ordinal
from patsim_utils.method.features import Regressor
from patsim_utils.method.matcher import Matcher
from patsim_utils.training.fit import fit


def test_overlap_counts_what_two_phrases_share() -> None:
    numbers = features.overlap("strong material", "strong materials test")
    assert numbers["words"] == pytest.approx(1 / len({"strong", "material", "materials", "test"}))
    assert numbers["stems"] == pytest.approx(2 / len({"stro", "mate", "test"}))
    assert numbers["shared_words"] == 1 / 4
    assert numbers["other_words_of_anchor"] == 1 / 4
    assert numbers["other_words_of_target"] == 2 / 4
    assert [name for name, value in numbers.items() if value is True] == ["first_word_equal"]
    last = features.overlap("a b c d", "b b d")
    assert [name for name, value in last.items() if value is True] == ["last_word_equal"]
    inside = features.overlap("b c", "a b c")
    assert [name for name, value in inside.items() if value is True] == ["last_word_equal", "target_ends_with_anchor"]
    before = features.overlap("a b", "a b c")
    assert [name for name, value in before.items() if value is True] == [
        "first_word_equal",
        "target_starts_with_anchor",
    ]
    equal = features.overlap("a b", "a b")
    shares = ["words", "stems", "letters", "letters_of_anchor", "letters_of_target"]
    assert [equal[name] for name in shares] == [1, 1, 1, 1, 1]
    assert [value for value in equal.values() if value is True] == [True] * 4


def test_the_order_of_the_features_is_that_of_saved_regressors(pairs_frame: pd.DataFrame) -> None:
    """A saved regressor takes the features by their places, so that the names may not move."""
    names = list(features.overlap("a b", "b c"))
    assert names[:5] == ["words", "stems", "letters", "letters_of_anchor", "letters_of_target"]
    assert names[5:8] == ["shared_words", "other_words_of_anchor", "other_words_of_target"]
    assert names[8:] == [
        "first_word_equal",
        "last_word_equal",
        "target_starts_with_anchor",
        "target_ends_with_anchor",
    ]


def test_alignment_matches_one_pair_at_a_time(tiny_backbone, pairs_frame: pd.DataFrame) -> None:
    tokenizer, model = (load(tiny_backbone("bert")) for load in (encoder.load_tokenizer, encoder.load_backbone))
    model.eval()
    columns, vectors = features.alignment(pairs_frame, tokenizer=tokenizer, model=model)
    found = np.stack([*columns.values()], axis=1)
    sentences = encoder.sentence_vectors([*vectors], tokenizer=tokenizer, model=model)
    torch.testing.assert_close(torch.stack([*vectors.values()]), sentences, atol=1e-5, rtol=0)
    with torch.inference_mode():
        for row, (anchor, target) in enumerate(zip(pairs_frame["anchor"], pairs_frame["target"], strict=True)):
            a, t = (
                normalize(model(**tokenizer(phrase, return_tensors="pt")).last_hidden_state[0, 1:-1], dim=-1)
                for phrase in (anchor, target)
            )
            cosine = a @ t.T
            whole = torch.nn.functional.cosine_similarity(a.mean(0), t.mean(0), dim=0)
            best = [cosine.amax(1).mean(), cosine.amax(1).min(), cosine.amax(0).mean(), cosine.amax(0).min()]
            expected = torch.stack([whole, *best, cosine[0, 0], cosine[-1, -1]])
            np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_standing_against_a_slow_loop() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    anchor, targets = vectors[0], vectors[1:]
    columns = features.standing(targets @ anchor, targets @ targets.T)
    found = np.stack([*columns.values()], axis=1)
    for i in range(5):
        others = [j for j in range(5) if j != i]
        c = np.array([targets[i] @ targets[j] for j in others])
        s = np.array([targets[j] @ anchor for j in others])
        means = [np.mean([targets[j] @ targets[k] for k in range(5) if k != j]) for j in others]
        near, far = np.exp(c / 0.1), np.exp(-s / 0.1)
        likeness = targets[i] @ anchor
        expected = [c.mean(), c.max(), np.sort(c)[1:].mean(), c.std(), (far * c).sum() / far.sum(), s.mean()]
        expected += [(near * s).sum() / near.sum(), (likeness > s).mean(), (c.mean() > np.array(means)).mean()]
        np.testing.assert_allclose(found[i], expected, atol=1e-12)
    alone = features.standing(np.ones(1), np.ones((1, 1)))
    assert list(alone) == list(columns)
    assert all((column == 0).all() for column in alone.values())


def test_numbers_of_a_group_know_no_other_group(pairs_frame: pd.DataFrame, monkeypatch) -> None:
    phrases = pd.unique(np.concatenate([pairs_frame["anchor"], pairs_frame["target"]]))
    vectors = normalize(torch.randn(len(phrases), 5, generator=torch.Generator().manual_seed(0)), dim=1).numpy()

    def numbers(frame: pd.DataFrame) -> np.ndarray:
        return np.stack([*features.group_features(frame, phrases, vectors).values()], axis=1)

    together = numbers(pairs_frame)
    order = np.random.default_rng(0).permutation(len(pairs_frame))
    np.testing.assert_allclose(numbers(pairs_frame.iloc[order]), together[order], atol=1e-6)
    for _, group in pairs_frame.groupby(["anchor", "context"]):
        np.testing.assert_allclose(numbers(group), together[group.index], atol=1e-6)
        assert (together[group.index, -1] == len(group) / features.TYPICAL_GROUP).all()
    first = pairs_frame[(pairs_frame[["anchor", "context"]] == pairs_frame[["anchor", "context"]].iloc[0]).all(axis=1)]
    of_words = [set(target.split()) for target in first["target"]]
    shared = [len(of_words[0] & other) / (len(of_words[0]) * len(other)) ** 0.5 for other in of_words[1:]]
    assert together[0, 9] == pytest.approx(np.mean(shared), abs=1e-6)
    of_letters = [{f" {word} "[i : i + 3] for word in words for i in range(len(word))} for words in of_words]
    shared = [len(of_letters[0] & other) / (len(of_letters[0]) * len(other)) ** 0.5 for other in of_letters[1:]]
    assert together[0, 18] == pytest.approx(np.mean(shared), abs=1e-6)
    monkeypatch.setattr(features, "LARGEST_GROUP", 1)  # a part of a large group is a group
    alone = numbers(pairs_frame)
    assert (alone[:, :-1] == 0).all()
    assert (alone[:, -1] == 1 / features.TYPICAL_GROUP).all()


def test_the_regressor_is_blended_into_every_score(tiny_backbone, tmp_path) -> None:
    sample = load("sample")
    splits = {"train": sample["train"][::6].reset_index(drop=True), "validation": sample["test"]}
    config = Config(backbone=tiny_backbone("bert"), epochs=1, contrast_layer=1, features="group", precision="fp32")
    result = fit(splits, config, tmp_path / "run")
    model = Matcher.load(tmp_path / "run")
    rows = splits["validation"]
    alone, blended = model.run(model.pairs(rows)).logits, model.score(rows)
    regressor = model.regressor(rows)
    assert (regressor.diff(dim=-1) <= 0).all()
    weight = features.BLEND_WEIGHT["group"]
    expected = (1 - weight) * ordinal.score(alone) + weight * regressor.mean(-1)
    expected[np.flatnonzero(is_one_phrase(rows["anchor"], rows["target"]))] = 1.0
    np.testing.assert_allclose(blended, expected, atol=1e-5)
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv", keep_default_na=False)
    np.testing.assert_allclose(blended, predictions["prediction"], atol=1e-6)
    # the words of the sample tell something that a random tiny encoder does not
    assert result["baselines"]["features"]["validation"]["pearson"] > 0.15
    assert result["validation"]["pearson"] > result["epochs"][0]["pearson"]
    pair = Regressor.fit(rows.head(100), config.model_copy(update={"features": "similarity"}))
    torch.testing.assert_close(pair(rows[3:4]), pair(rows)[3:4], atol=1e-5, rtol=0)  # it knows no other pair
    network = tmp_path / "run" / "model" / "features" / "network.safetensors"
    for damage in (lambda: network.write_bytes(b"x"), network.unlink, network.parent.rmdir):
        damage()
        with pytest.raises(InputError, match="features/ is missing or was changed"):
            Matcher.load(tmp_path / "run")
