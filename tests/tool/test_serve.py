"""The service: its answers are the model's, requests share batches, limits and errors are one line."""

import runpy
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.method.matcher import Matcher
from patsim_utils.tool import cli

testclient = pytest.importorskip("fastapi.testclient", reason="the extra serve is not installed")
serve = pytest.importorskip("patsim_utils.tool.web.serve", reason="the extra serve is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")

ROOT = Path(__file__).parents[2]
TEXTS = ["paper", "steel", "robust material"]


@pytest.fixture(scope="module")
def matcher(tiny_backbone) -> Matcher:
    torch.manual_seed(0)
    return Matcher(Config(backbone=tiny_backbone("bert"), contrast_layer=1, precision="fp32"))


@pytest.fixture
def client(matcher: Matcher) -> Iterator:
    with testclient.TestClient(serve.application(matcher)) as client:
        yield client


def expected(matcher: Matcher) -> np.ndarray:
    return matcher.score(pd.DataFrame({"anchor": "strong material", "target": TEXTS, "context": "E04"}))


def test_answers_are_those_of_the_model(matcher: Matcher, client) -> None:
    scores = expected(matcher)
    body = {"query": "strong material", "texts": TEXTS, "context": "E04", "return_text": True}
    ranked = client.post("/rerank", json=body).json()
    assert [entry["index"] for entry in ranked] == np.argsort(-scores).tolist()
    assert [entry["text"] for entry in ranked] == [TEXTS[entry["index"]] for entry in ranked]
    np.testing.assert_allclose([entry["score"] for entry in ranked], np.sort(scores)[::-1], atol=6e-5)
    pairs = [{"anchor": "strong material", "target": text, "context": "e04b"} for text in TEXTS]
    np.testing.assert_allclose(client.post("/score", json={"pairs": pairs}).json()["scores"], scores, atol=6e-5)
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/openapi.json").json()["info"]["title"] == "patsim"


@pytest.mark.parametrize(("most", "batches"), [(1000, [3]), (2, [2, 1])])
def test_requests_that_come_together_are_scored_together(matcher: Matcher, monkeypatch, most, batches) -> None:
    monkeypatch.setattr("patsim_utils.tool.web.batches.WAIT", 0.5)
    monkeypatch.setattr("patsim_utils.tool.web.batches.MOST_PAIRS", most)  # at which a batch is full
    sizes: list[int] = []
    score = matcher.score

    def counted(frame: pd.DataFrame) -> np.ndarray:
        sizes.append(len(frame))
        return score(frame)

    monkeypatch.setattr(matcher, "score", counted)
    bodies = [{"query": "strong material", "texts": [text], "context": "E04"} for text in TEXTS]
    with testclient.TestClient(serve.application(matcher)) as client, ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda body: client.post("/rerank", json=body).json()[0]["score"], bodies))
    assert sizes == batches
    monkeypatch.undo()
    np.testing.assert_allclose(answers, expected(matcher), atol=6e-5)


def test_a_model_that_fails_fails_its_requests_and_the_service_goes_on(matcher: Matcher, monkeypatch) -> None:
    body = {"query": "strong material", "texts": TEXTS, "context": "E04"}
    with testclient.TestClient(serve.application(matcher), raise_server_exceptions=False) as client:
        with monkeypatch.context() as broken:
            broken.setattr(matcher.network, "forward", None)
            assert client.post("/rerank", json=body).status_code == 500
        assert client.post("/rerank", json=body).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/rerank", {"query": "a", "texts": ["b"]}, 422, "column context: '' is no CPC class"),
        ("/rerank", {"query": "a", "texts": ["b"], "context": "Q1"}, 422, "'Q1' is no CPC class"),
        ("/rerank", {"query": "a", "texts": [" "], "context": "E04"}, 422, "' ' is an empty phrase"),
        (
            "/rerank",
            {"query": "a", "texts": ["b"] * 1001, "context": "E04"},
            422,
            "texts: List should have at most 1000",
        ),
        ("/score", {"pairs": []}, 422, "pairs: List should have at least 1 item"),
        ("/search", {"query": "a", "context": "E04"}, 404, "the service has no index"),
        ("/score", {"pairs": ["x" * 2_000_000]}, 413, "at most 1,000,000 bytes"),
        ("/rerank", {"query": "a" * 1001, "texts": ["b"], "context": "E04"}, 422, "query: String should have at most"),
    ],
)
def test_what_is_wrong_is_one_line(client, path: str, body: dict, status: int, said: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert answer.json()["error"].isprintable()
    assert f'patsim_seconds_count{{path="{path[1:]}",status="{status}"}} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "content", "length", "status", "said"),
    [
        ("POST", "/score", b"[" * 100_000, None, 400, "parsing the body"),
        ("POST", "/rerank", b'{"query": "\xff"}', None, 400, "parsing the body"),
        ("POST", "/search", b'{"query": "a", "context": "H04", "top": NaN}', None, 422, "finite number"),
        ("POST", "/rerank", b'{"query": "\\ud800", "texts": ["a"], "context": "H04"}', None, 422, "valid string"),
        ("POST", "/score", b"{}", "9" * 5000, 413, "at most 1,000,000 bytes"),
        ("POST", "/score", b"{}", "-2", 413, "at most 1,000,000 bytes"),
        ("GET", "/score", b"", None, 405, "Method Not Allowed"),
        ("GET", "/nothing", b"", None, 404, "Not Found"),
    ],
)
def test_a_request_of_another_shape_is_one_line(
    client, method: str, path: str, content: bytes, length: str | None, status: int, said: str
) -> None:
    headers = {"content-type": "application/json"} | ({} if length is None else {"content-length": length})
    answer = client.request(method, path, content=content, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize("token", ["secret", "geheimnisvoll \u00f6"])
def test_a_token_is_asked_for_where_there_is_one(matcher: Matcher, token: str) -> None:
    with testclient.TestClient(serve.application(matcher, token=token)) as client:
        body = {"query": "strong material", "texts": TEXTS, "context": "E04"}
        assert client.post("/rerank", json=body).status_code == 401
        assert (
            client.post("/rerank", json=body, headers={"Authorization": f"Bearer {token}".encode()}).status_code == 200
        )
        assert client.get("/health").status_code == 200


@pytest.fixture
def address(matcher: Matcher) -> Iterator[str]:
    """Where a running service answers."""
    server = uvicorn.Server(uvicorn.Config(serve.application(matcher), port=0, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_the_load_test_counts_requests_that_fail(address: str) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "load_test.py"))
    first, second = tool["bodies"](2, candidates=3)
    assert first != second
    assert tool["send"](address, first) > 0
    assert np.isnan(tool["send"](address, first[:-1]))


@pytest.mark.filterwarnings("default")  # those of other libraries
def test_clients_of_text_embeddings_inference_work_unchanged(matcher: Matcher, address: str) -> None:
    rerankers = pytest.importorskip("rerankers", reason="rerankers is not installed")
    scores = expected(matcher)
    best = np.argsort(-scores).tolist()
    options = {"model_type": "APIRanker", "api_provider": "text-embeddings-inference", "api_key": "none", "verbose": 0}
    ranker = rerankers.Reranker("patsim", url=f"{address}/E04/rerank", **options)
    ranked = ranker.rank("strong material", TEXTS)
    assert [result.doc_id for result in ranked.results] == best
    assert [result.score for result in ranked.results] == pytest.approx(np.sort(scores)[::-1], abs=6e-5)
    documents = pytest.importorskip("langchain_core.documents", reason="langchain-core is not installed")
    texts = [documents.Document(page_content=text) for text in TEXTS]
    compressor = ranker.as_langchain_compressor(k=2)
    kept = compressor.compress_documents(texts, "strong material")
    assert [document.page_content for document in kept] == [TEXTS[index] for index in best[:2]]


def test_where_nothing_can_listen_is_one_line_before_a_model_is_loaded(run: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host, reason in (("127.0.0.1", "Address already in use"), ("999.1.1.1", "Name or service not known")):
            assert cli.main(["serve", "--run", str(run), "--host", host, "--port", str(port)]) == 2
            assert capsys.readouterr().err == f"error: {host}:{port}: nothing can listen there ({reason})\n"
