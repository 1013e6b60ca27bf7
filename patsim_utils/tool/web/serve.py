"""A service: one model in memory that scores, reranks and searches over HTTP.

The extra `serve` installs what it needs. `/rerank` has the form of text-embeddings-inference, with the class beside it.
"""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, Field

from patsim_utils.data.pairs import check_pairs
from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.search.search import Search

MOST_PAIRS = 1000  # of a request, and of a batch that requests join
MOST_BYTES = 1_000_000  # of a request's body
WAIT = 0.005  # seconds that a request waits for others to be scored with it
PATHS = ("/rerank", "/score", "/search", "/health", "/metrics")  # that are counted by name

Text = Annotated[str, Field(max_length=1000)]


class Rerank(BaseModel):
    """A query and the texts to rank for it, in a class."""

    query: Text
    texts: list[Text] = Field(min_length=1)
    context: Text
    return_text: bool = False


class Pair(BaseModel):
    anchor: Text
    target: Text
    context: Text


class Score(BaseModel):
    pairs: list[Pair] = Field(min_length=1)


class Query(BaseModel):
    query: Text
    context: Text
    top: int = Field(20, ge=1, le=1000)


class Batcher:
    """Scores the pairs of requests that arrive within WAIT seconds in one call, in a thread."""

    def __init__(self, score: Callable[[pd.DataFrame], np.ndarray]) -> None:
        self.score = score
        self.waiting: asyncio.Queue[tuple[pd.DataFrame, asyncio.Future]] = asyncio.Queue()

    async def scores(self, pairs: list[tuple[str, str, str]]) -> np.ndarray:
        """The score of each (anchor, target, class); InputError where one is no phrase or class."""
        if len(pairs) > MOST_PAIRS:
            raise HTTPException(413, f"{len(pairs)} pairs are more than the {MOST_PAIRS} of a request")
        frame = pd.DataFrame(pairs, columns=["anchor", "target", "context"], dtype=object)
        checked = check_pairs(frame, source="request")
        answer: asyncio.Future = asyncio.get_running_loop().create_future()
        await self.waiting.put((checked, answer))
        return await answer

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            batch = await self._batch()
            frames = [frame for frame, _ in batch]
            try:
                scores = await asyncio.to_thread(self.score, pd.concat(frames, ignore_index=True))
            except Exception as error:  # the requests fail, the service goes on
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            ends = np.cumsum([len(frame) for frame in frames])
            for part, (_, answer) in zip(np.split(scores, ends[:-1]), batch, strict=True):
                if not answer.done():  # the client has gone
                    answer.set_result(part)

    async def _batch(self) -> list[tuple[pd.DataFrame, asyncio.Future]]:
        batch = [await self.waiting.get()]
        end = time.monotonic() + WAIT
        while sum(len(frame) for frame, _ in batch) < MOST_PAIRS:
            try:
                batch.append(await asyncio.wait_for(self.waiting.get(), max(0.0, end - time.monotonic())))
            except TimeoutError:
                break
        return batch


def application(matcher: Matcher, *, search: Search | None = None, token: str = "") -> FastAPI:
    """The service of a model and, if there is one, of an index.

    With a token only who sends it is answered.
    """
    batcher = Batcher(matcher.score)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    app = FastAPI(title="patsim", description="How alike two patent phrases are in a CPC class.", lifespan=life)
    _add_guards(app, token)

    @app.post("/rerank")
    async def rerank(request: Rerank) -> list[dict[str, Any]]:
        scores = await batcher.scores([(request.query, text, request.context) for text in request.texts])
        ranked = []
        for index in np.argsort(-scores, kind="stable").tolist():
            entry: dict[str, Any] = {"index": index, "score": round(float(scores[index]), 4)}
            if request.return_text:
                entry["text"] = request.texts[index]
            ranked.append(entry)
        return ranked

    @app.post("/score")
    async def score(request: Score) -> dict[str, list[float]]:
        pairs = [(pair.anchor, pair.target, pair.context) for pair in request.pairs]
        return {"scores": np.round(await batcher.scores(pairs), 4).tolist()}

    @app.post("/search")
    async def find(request: Query) -> list[dict[str, Any]]:
        if search is None:
            raise HTTPException(404, "the service has no index; start it with --corpus")
        answer = await asyncio.to_thread(search, request.query, request.context, top=request.top)
        return answer.to_dict("records")

    return app


def _add_guards(app: FastAPI, token: str) -> None:
    """Limits, token, health, metrics, and errors in one line."""
    registry = CollectorRegistry()
    count = Counter("patsim_requests", "Requests by path and status", ["path", "status"], registry=registry)
    seconds = Histogram("patsim_seconds", "Seconds of a request", ["path"], registry=registry)

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        began = time.perf_counter()
        path = request.url.path if request.url.path in PATHS else "other"
        refused = _refusal(request, token)
        response = _error(*refused) if refused else await answer(request)
        count.labels(path, response.status_code).inc()
        seconds.labels(path).observe(time.perf_counter() - began)
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    @app.exception_handler(InputError)
    async def wrong(_: Request, error: InputError) -> JSONResponse:
        return _error(422, str(error))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _refusal(request: Request, token: str) -> tuple[int, str] | None:
    """Status and reason where a request is not to be read."""
    sent = request.headers.get("authorization", "")
    if token and request.url.path != "/health" and not hmac.compare_digest(sent.encode(), f"Bearer {token}".encode()):
        return 401, "the token is missing or another one"
    if request.method == "POST":
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "the length of the request is missing"
        if int(length) > MOST_BYTES:
            return 413, f"a request has at most {MOST_BYTES:,} bytes"
    return None


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": str(InputError(message))}, status)
