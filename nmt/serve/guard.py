"""What surrounds the handlers: CORS, rate limit, request counts and error responses."""

from __future__ import annotations

import logging
import time
import traceback
from collections import OrderedDict

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from nmt.serve.batching import Batcher, QueueFullError
from nmt.serve.contract import RequestError
from nmt.serve.metrics import Metrics

logger = logging.getLogger(__name__)

_MAX_CLIENTS = 10_000  # whose requests are counted for the rate limit
_MAX_IN_FLIGHT = 1000  # requests
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Expose-Headers": "Authorization",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Max-Age": "1728000",
}
_DISCONNECTED = 499  # status in the metrics if the client closed the connection
_RETRY = {"Retry-After": "1"}


class RateLimit:
    """A limit of requests per client and minute, as a token bucket."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # time, tokens

    def check(self, client: str) -> None:
        """Count a request.

        Raises:
            RequestError: status 429, with the time after which a request is accepted.
        """
        now = time.monotonic()
        before, tokens = self._buckets.pop(client, (now, float(self._per_minute)))
        tokens = min(self._per_minute, tokens + (now - before) * self._per_minute / 60)
        is_allowed = tokens >= 1
        self._buckets[client] = (now, tokens - is_allowed)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not is_allowed:
            seconds = max(1, round((1 - tokens) * 60 / self._per_minute))
            message = f"Slowdown: {self._per_minute} per 1 minute"
            raise RequestError(429, message, {"Retry-After": str(seconds)})


class Guard:
    """ASGI middleware around the whole application.

    Adds the CORS headers to each response, answers OPTIONS, counts requests, and answers
    unexpected exceptions with status 500. The log has the place of an exception but not its
    message, which could contain text of a user.

    Attributes:
        batcher: of the application; the server stops it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str], batcher: Batcher) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths
        self.batcher = batcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        status = _DISCONNECTED

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_ENCODED_CORS]
            await send(message)

        self._metrics.in_flight += 1
        try:
            if scope["method"] == "OPTIONS":
                await PlainTextResponse("")(scope, receive, send_with_headers)
            elif self._metrics.in_flight > _MAX_IN_FLIGHT:
                await _busy()(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception as error:
            # Starlette has sent the response with status 500.
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.error(f"{type(error).__name__} in {place.filename}:{place.lineno}")
        finally:
            self._metrics.in_flight -= 1
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.observe_request(path, status, time.perf_counter() - begin)


_ENCODED_CORS = [(name.lower().encode(), value.encode()) for name, value in _CORS.items()]


def _busy() -> JSONResponse:
    return JSONResponse({"error": "Service Unavailable: the queue is full"}, 503, _RETRY)


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"error": error.message}, error.status, error.headers)


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _answer_full_queue(_request: Request, _error: Exception) -> Response:
    return _busy()


async def _answer_internal_error(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "Internal Server Error"}, 500)


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_DISCONNECTED)


EXCEPTION_HANDLERS: dict[object, ExceptionHandler] = {
    RequestError: _answer_error,
    HTTPException: _answer_http_error,
    QueueFullError: _answer_full_queue,
    ClientDisconnect: _answer_nobody,
    Exception: _answer_internal_error,
}
