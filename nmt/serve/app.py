"""The HTTP application: LibreTranslate's interface, metrics and the page."""

# Over 400 lines: all routes share the state of one application.
from __future__ import annotations

import asyncio
import hmac
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from nmt.config.schema import SearchConfig
from nmt.serve import languages
from nmt.serve.batching import Batcher, Engine
from nmt.serve.contract import (
    Limits,
    RequestError,
    TranslateRequest,
    check_target,
    parse_texts,
    read_parameters,
)
from nmt.serve.guard import EXCEPTION_HANDLERS, Guard, RateLimit
from nmt.serve.languages import Detection
from nmt.serve.markup import translate_html
from nmt.serve.metrics import Metrics
from nmt.translate.types import Translation

Result = TypeVar("Result")
Handler = Callable[[Request], Awaitable[Response]]

_MAX_CELLS = 1 << 16  # of the attention matrix of a line in a response
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_MEDIA_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript"}


class ServedTranslator(Engine, Protocol):
    """The part of `Translator` that the application uses."""

    search: SearchConfig


@dataclass(frozen=True)
class Settings:
    """What the options of ``nmt serve`` set.

    Attributes:
        char_limit: characters of a request; None is unlimited.
        batch_limit: texts of a request; None is unlimited.
        rate_limit: requests of a client per minute; None is unlimited.
        api_keys: a request needs one of them, if there are any.
    """

    char_limit: int | None = None
    batch_limit: int | None = None
    rate_limit: int | None = None
    api_keys: tuple[str, ...] = ()


def create_app(translator: ServedTranslator, settings: Settings) -> Guard:
    """Return the ASGI application; its lifespan runs the worker thread."""
    metrics = Metrics()
    batcher = Batcher(translator, metrics)
    service = Service(translator, batcher, metrics, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        batcher.start()
        yield
        batcher.stop(wait=1.0)

    routes = [Route(path, handler, methods=[method]) for method, path, handler in service.routes()]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
    )
    return Guard(app, metrics, {route.path for route in routes}, batcher)


class Service:
    """The handlers of the routes."""

    def __init__(
        self,
        translator: ServedTranslator,
        batcher: Batcher,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._translator = translator
        self._batcher = batcher
        self._metrics = metrics
        self._settings = settings
        self._limits = Limits(settings.char_limit, settings.batch_limit)
        self._keys = [key.encode() for key in settings.api_keys]
        self._rate = None if settings.rate_limit is None else RateLimit(settings.rate_limit)
        self._spec = json.loads(_read("spec.json"))
        self._assets = {name: _read(f"page/{name}") for name in ("page.js", "index.html")}
        colours = resources.files("nmt.viz").joinpath("templates/colours.css").read_bytes()
        self._assets["page.css"] = colours + _read("page/page.css")

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return method, path and handler of each route."""
        return [
            ("POST", "/translate", self.translate),
            ("POST", "/detect", self.detect),
            ("GET", "/languages", self.languages),
            ("GET", "/frontend/settings", self.frontend_settings),
            ("GET", "/health", self.health),
            ("GET", "/spec", self.spec),
            ("GET", "/metrics", self.metrics),
            ("POST", "/translate_file", self.translate_file),
            ("POST", "/suggest", self.suggest),
            ("GET", "/", self.page),
            ("GET", "/static/{name}", self.asset),
        ]

    async def translate(self, request: Request) -> Response:
        """Translate one text or a list."""
        parameters = await self._admit(request)
        parsed = TranslateRequest.parse(parameters, self._limits)
        return JSONResponse(await _while_connected(request, self._translate(parsed)))

    async def detect(self, request: Request) -> Response:
        """Detect the language of a text."""
        parameters = await self._admit(request)
        if not parameters.get("q"):
            raise RequestError(400, "Invalid request: missing q parameter")
        texts, _ = parse_texts(parameters["q"])
        return JSONResponse([languages.detect("\n".join(texts)).as_json()])

    async def languages(self, _: Request) -> Response:
        """List the languages."""
        return JSONResponse(
            [
                {"code": item.code, "name": item.name, "targets": languages.targets(item)}
                for item in languages.LANGUAGES
            ]
        )

    async def frontend_settings(self, _: Request) -> Response:
        """Return what a front end needs."""
        limit = self._settings.char_limit
        source, target = languages.CHINESE, languages.ENGLISH
        return JSONResponse(
            {
                "charLimit": -1 if limit is None else limit,
                "frontendTimeout": 500,
                "apiKeys": bool(self._keys),
                "keyRequired": bool(self._keys),
                "suggestions": False,
                "filesTranslation": False,
                "supportedFilesFormat": [],
                "language": {
                    "source": {"code": source.code, "name": source.name},
                    "target": {"code": target.code, "name": target.name},
                },
            }
        )

    async def health(self, _: Request) -> Response:
        """Return ``ok`` while the server runs."""
        return JSONResponse({"status": "ok"})

    async def spec(self, _: Request) -> Response:
        """Return the interface as a Swagger 2 document."""
        return JSONResponse(self._spec)

    async def metrics(self, _: Request) -> Response:
        """Return the metrics for Prometheus."""
        return PlainTextResponse(self._metrics.render(), media_type="text/plain; version=0.0.4")

    async def translate_file(self, _: Request) -> Response:
        """Refuse to translate a file."""
        raise RequestError(403, "Files translation are disabled on this server.")

    async def suggest(self, _: Request) -> Response:
        """Refuse a suggested translation."""
        raise RequestError(403, "Suggestions are disabled on this server.")

    async def page(self, _: Request) -> Response:
        """Return the page."""
        return self._asset("index.html")

    async def asset(self, request: Request) -> Response:
        """Return a script or style sheet of the page."""
        return self._asset(request.path_params["name"])

    def _asset(self, name: str) -> Response:
        if name not in self._assets:
            raise HTTPException(404)
        return Response(
            self._assets[name],
            media_type=_MEDIA_TYPES[name.rpartition(".")[2]],
            headers=_PAGE_HEADERS,
        )

    async def _admit(self, request: Request) -> dict[str, Any]:
        """Check rate limit and API key; return the parameters."""
        if self._rate is not None:
            self._rate.check(request.client.host if request.client else "")
        parameters = await read_parameters(request)
        if self._keys:
            header = request.headers.get("authorization", "").removeprefix("Bearer ")
            key = parameters.get("api_key") or header
            offered = str(key).encode("utf-8", "replace")
            if not any(hmac.compare_digest(offered, key) for key in self._keys):
                raise RequestError(403, "Invalid API key")
        return parameters

    async def _translate(self, request: TranslateRequest) -> dict[str, Any]:
        """Return the object that ``/translate`` answers."""
        if request.source is None:
            detections = [languages.detect(text) for text in request.texts]
        else:
            detections = [Detection(request.source, 100.0)] * len(request.texts)
        for detection in detections:
            check_target(detection.language, request.target)
        translated = [
            detection.language != request.target and not languages.is_symbolic(text)
            for text, detection in zip(request.texts, detections, strict=True)
        ]
        texts = list(itertools.compress(request.texts, translated))
        translate = self._translate_html if request.is_html else self._translate_texts
        results = iter(await translate(texts, request))
        outputs = [
            next(results) if flag else TextResult(text)
            for text, flag in zip(request.texts, translated, strict=True)
        ]

        def value(items: Sequence[Any]) -> Any:
            return list(items) if request.is_list else items[0]

        answer = {"translatedText": value([output.text for output in outputs])}
        if request.source is None:
            answer["detectedLanguage"] = value([d.as_json() for d in detections])
        if request.alternatives:
            answer["alternatives"] = value([output.alternatives for output in outputs])
        if request.details:
            answer["alignment"] = value([output.alignment for output in outputs])
            answer["flags"] = value([output.flags for output in outputs])
        return answer

    async def _translate_html(self, texts: list[str], _: TranslateRequest) -> list[TextResult]:
        async def translate(lines: list[str]) -> list[str]:
            return await self._batcher.translate(lines, 1, lambda t: t.text)

        results = await asyncio.gather(*(translate_html(text, translate) for text in texts))
        return [TextResult(text) for text in results]

    async def _translate_texts(
        self, texts: list[str], request: TranslateRequest
    ) -> list[TextResult]:
        """Translate texts line by line."""
        n_best = min(request.alternatives + 1, self._translator.search.beam)

        def render(translation: Translation) -> LineResult:
            return LineResult.of(translation, details=request.details)

        divided = [text.split("\n") for text in texts]
        lines = list(itertools.chain.from_iterable(divided))
        results = iter(await self._batcher.translate(lines, n_best, render))
        return [TextResult.join(list(itertools.islice(results, len(part)))) for part in divided]


@dataclass(frozen=True)
class LineResult:
    """The translation of a line as the response contains it."""

    text: str
    candidates: list[str]
    alignment: dict[str, Any] | None
    flags: list[dict[str, str]]

    @classmethod
    def of(cls, translation: Translation, *, details: bool) -> LineResult:
        """Return the fields of a translation; called in the worker thread."""
        candidates = [candidate.text for candidate in translation.candidates]
        if not details:
            return cls(translation.text, candidates, None, [])
        flags = [{"name": flag.name, "detail": flag.detail} for flag in translation.flags]
        return cls(translation.text, candidates, _alignment(translation), flags)


@dataclass(frozen=True)
class TextResult:
    """The translation of a text; alignment and flags have an item per line."""

    text: str
    alternatives: Sequence[str] = ()
    alignment: Sequence[dict[str, Any] | None] = ()
    flags: Sequence[list[dict[str, str]]] = ()

    @classmethod
    def join(cls, lines: list[LineResult]) -> TextResult:
        """Join the lines of a text. Alternative k has the k-th candidate of each line."""
        text = "\n".join(line.text for line in lines)
        count = max(len(line.candidates) for line in lines)
        alternatives = [
            "\n".join(
                line.candidates[k] if k < len(line.candidates) else line.text for line in lines
            )
            for k in range(1, count)
        ]
        unique = [other for other in dict.fromkeys(alternatives) if other != text]
        return cls(text, unique, [line.alignment for line in lines], [line.flags for line in lines])


async def _while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`, which is cancelled when the client disconnects."""

    async def wait_for_disconnect() -> MutableMapping[str, Any]:
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                return message

    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        watch.cancel()


def _alignment(translation: Translation) -> dict[str, Any] | None:
    """Return attention and links of a line; None if the matrix is too large."""
    if len(translation.source) * len(translation.text.split()) > _MAX_CELLS:
        return None
    attention = translation.attention_map
    return {
        "characters": attention.characters,
        "words": attention.words,
        "weights": [[round(float(w), 4) for w in row] for row in attention.weights],
        "links": translation.links,
    }


def _read(name: str) -> bytes:
    return resources.files("nmt.serve").joinpath(name).read_bytes()
