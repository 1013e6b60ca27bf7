"""A matcher in the place of a CrossEncoder: sentence-transformers' own evaluators run on it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers.cross_encoder.evaluation import (
    CrossEncoderCorrelationEvaluator,
    CrossEncoderRerankingEvaluator,
)

from patsim_utils.config import Config
from patsim_utils.errors import InputError
from patsim_utils.method.for_class import ForClass
from patsim_utils.method.matcher import Matcher

DOCUMENTS = ["paper", "steel", "robust material", "soft material"]


@pytest.fixture(scope="module")
def matcher(tiny_backbone) -> Matcher:
    torch.manual_seed(0)
    return Matcher(Config(backbone=tiny_backbone("bert"), contrast_layer=1))


@pytest.fixture
def reranker(matcher: Matcher) -> ForClass:
    return matcher.for_class("E04B 1/00")


def scores(matcher: Matcher) -> np.ndarray:
    frame = pd.DataFrame({"anchor": "strong material", "target": DOCUMENTS, "context": "E04"})
    return matcher.score(frame)


def test_predict_gives_what_a_cross_encoder_gives(matcher: Matcher, reranker: ForClass) -> None:
    pairs = [("strong material", document) for document in DOCUMENTS]
    expected = scores(matcher)
    predicted = reranker.predict(pairs, batch_size=2, show_progress_bar=False)
    assert isinstance(predicted, np.ndarray)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    assert torch.equal(reranker.predict(pairs, convert_to_tensor=True), torch.from_numpy(predicted))
    tensors = reranker.predict(pairs, convert_to_numpy=False)
    assert [tensor.item() for tensor in tensors] == predicted.tolist()
    single = reranker.predict(["strong material", "steel"])
    assert single == pytest.approx(expected[1], abs=1e-6)
    assert isinstance(single, np.float32)
    for options in ({"convert_to_tensor": True}, {"convert_to_numpy": False}):
        tensor = reranker.predict(["strong material", "steel"], **options)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.item() == single
    assert reranker.predict([]).shape == (0,)


def test_rank_gives_dicts_by_falling_score(matcher: Matcher, reranker: ForClass) -> None:
    expected = scores(matcher)
    ranked = reranker.rank("strong material", DOCUMENTS, top_k=3, return_documents=True)
    assert [entry["corpus_id"] for entry in ranked] == np.argsort(-expected)[:3].tolist()
    assert [entry["text"] for entry in ranked] == [DOCUMENTS[entry["corpus_id"]] for entry in ranked]
    plain = reranker.rank("strong material", DOCUMENTS)
    assert [set(entry) for entry in plain] == [{"corpus_id", "score"}] * len(DOCUMENTS)
    assert [entry["score"] for entry in plain] == np.sort(
        reranker.predict([("strong material", d) for d in DOCUMENTS])
    )[::-1].tolist()
    assert all(type(entry["score"]) is float for entry in plain)


@pytest.mark.parametrize(
    ("pairs", "shown"),
    [
        (["one phrase"], "['one phrase']"),
        ([("a", "b", "E04")], "('a', 'b', 'E04')"),
        ([("a", "b"), "ab"], "'ab'"),
    ],
)
def test_what_is_no_pair_is_one_line(reranker: ForClass, pairs: list, shown: str) -> None:
    with pytest.raises(InputError) as error:
        reranker.predict(pairs)
    assert str(error.value) == f"pairs: {shown} is no pair of two phrases"


def test_documents_are_no_single_text(reranker: ForClass) -> None:
    with pytest.raises(InputError, match="^documents: 'steel' is one text; needed is a list of phrases$"):
        reranker.rank("strong material", "steel")


def test_a_card_keeps_measures_by_the_name_of_their_evaluator(matcher: Matcher) -> None:
    card = matcher.for_class("E04").model_card_data
    card.set_evaluation_metrics(SimpleNamespace(name="phrases"), {"ndcg": 1.0})
    card.set_evaluation_metrics(SimpleNamespace(name=""), {"ndcg": 0.5})
    card.set_evaluation_metrics(3, {"ndcg": 0.25})
    assert card.metrics == {"phrases": {"ndcg": 1.0}, "SimpleNamespace": {"ndcg": 0.5}, "int": {"ndcg": 0.25}}


def test_no_class_is_refused(matcher: Matcher) -> None:
    with pytest.raises(InputError, match="^context: 'Q1' is no CPC class, such as H04$"):
        matcher.for_class("Q1")


def test_the_librarys_evaluators_take_it(matcher: Matcher, reranker: ForClass, tmp_path: Path) -> None:
    expected = scores(matcher)
    best = DOCUMENTS[int(expected.argmax())]
    others = [document for document in DOCUMENTS if document != best]
    sample = {"query": "strong material", "positive": [best], "negative": others}
    evaluator = CrossEncoderRerankingEvaluator([sample], name="phrases", write_csv=False)
    assert evaluator(reranker)["phrases_ndcg@10"] == pytest.approx(1.0)
    pairs = [("strong material", document) for document in DOCUMENTS]
    correlation = CrossEncoderCorrelationEvaluator(pairs, expected.tolist(), name="pairs", write_csv=False)
    assert correlation(reranker, output_path=str(tmp_path))["pairs_pearson"] == pytest.approx(1.0, abs=1e-4)
    assert set(reranker.model_card_data.metrics) == {"phrases", "pairs"}


def test_rank_takes_no_class_where_score_does(matcher: Matcher) -> None:
    frame = pd.DataFrame({"anchor": "strong material", "target": DOCUMENTS, "context": ""})
    ranked = matcher.rank("strong material", DOCUMENTS, context="", unknown="embedding")
    expected = np.sort(matcher.score(frame, unknown="embedding"))[::-1]
    np.testing.assert_allclose(ranked["score"], expected, atol=1e-6)
    with pytest.raises(InputError, match="context"):
        matcher.rank("strong material", DOCUMENTS, context="")
