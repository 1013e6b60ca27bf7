"""A service: one model in memory that scores, reranks and searches over HTTP.

The extra `serve` installs what it needs. `/rerank` has the form of text-embeddings-inference, with the class beside it;
for clients that know no class it stands in the path: `/H04/rerank`.
"""

import asyncio
import hmac
import os
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.search.search import Search
from patsim_utils.tool.web.batches import MOST_PAIRS, Batcher

MOST_BYTES = 1_000_000  # of a request's body
LENGTH_DIGITS = 20  # of a stated length
PATHS = ("rerank", "score", "search", "health", "metrics")  # that are counted by name

Text = Annotated[str, Field(max_length=1000)]


class Rerank(BaseModel):
    query: Text
    texts: list[Text] = Field(min_length=1, max_length=MOST_PAIRS)
    context: Text = ""  # the class, where it does not stand in the path
    return_text: bool = False


class Pair(BaseModel):
    anchor: Text
    target: Text
    context: Text


class Score(BaseModel):
    pairs: list[Pair] = Field(min_length=1, max_length=MOST_PAIRS)


class Query(BaseModel):
    query: Text
    context: Text
    top: int = Field(20, ge=1, le=1000)


def application(matcher: Matcher, *, search: Search | None = None, token: str = "") -> FastAPI:
    """The service of a model and, if there is one, of an index.

    With a token only who sends it is answered.
    """
    batcher = Batcher(matcher.score)
    app = FastAPI(title="patsim", description="How alike two patent phrases are in a CPC class.")
    _add_guards(app, token)

    @app.post("/rerank")
    @app.post("/{context}/rerank")
    async def rerank(request: Rerank, context: str = "") -> list[dict[str, Any]]:
        scores = await batcher.scores([(request.query, text, request.context or context) for text in request.texts])
        ranked = []
        for index in np.argsort(-scores, kind="stable").tolist():
            entry: dict[str, Any] = {"index": index, "score": round(float(scores[index]), 4)}
            if request.return_text:
                entry["text"] = request.texts[index]
            ranked.append(entry)
        return ranked

    @app.post("/score")
    async def score(request: Score) -> dict[str, list[float]]:
        scores = await batcher.scores([(pair.anchor, pair.target, pair.context) for pair in request.pairs])
        return {"scores": scores.round(4).tolist()}

    @app.post("/search")
    async def find(request: Query) -> list[dict[str, Any]]:
        if search is None:
            raise HTTPException(404, "the service has no index; start it with --corpus")
        answer = await asyncio.to_thread(search, request.query, request.context, top=request.top)
        return answer.to_dict("records")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _add_guards(app: FastAPI, token: str) -> None:
    """Limits, token, metrics, and errors in one line."""
    registry = CollectorRegistry()
    seconds = Histogram("patsim_seconds", "Seconds of a request", ["path", "status"], registry=registry)

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        began = time.perf_counter()
        response = _refusal(request, token) or await answer(request)
        name = request.url.path.rpartition("/")[2]
        path = name if name in PATHS else "other"
        seconds.labels(path, response.status_code).observe(time.perf_counter() - began)
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    @app.exception_handler(InputError)
    async def wrong(_: Request, error: InputError) -> JSONResponse:
        return _error(422, str(error))

    @app.exception_handler(StarletteHTTPException)  # also of what is no JSON, and of other paths and methods
    async def refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _refusal(request: Request, token: str) -> JSONResponse | None:
    """The answer where a request is not to be read."""
    sent = request.headers.get("authorization", "").encode("latin-1")  # the bytes that came
    is_known = hmac.compare_digest(sent, b"Bearer " + os.fsencode(token))
    if token and not is_known and request.url.path != "/health":
        return _error(401, "the token is missing or another one")
    length = request.headers.get("content-length", "")
    is_short = length.isdecimal() and len(length) <= LENGTH_DIGITS and int(length) <= MOST_BYTES
    if request.method == "POST" and not is_short:
        return _error(413, f"a request states its length, at most {MOST_BYTES:,} bytes")
    return None


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": str(InputError(message))}, status)
