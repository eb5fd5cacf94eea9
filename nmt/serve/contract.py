"""Requests and errors of LibreTranslate's HTTP interface.

Bodies are JSON, urlencoded forms or multipart forms; parameters in the query string are accepted
too. Error texts are those of LibreTranslate, since clients compare them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from nmt.serve.languages import Language, find_language

MAX_BODY = 8 << 20  # bytes
_BODY_SECONDS = 30  # to receive a body
_MAX_ALTERNATIVES = 100
_MAX_FIELDS = 100
_MAX_SHOWN = 40  # characters of a wrong value in an error


class RequestError(Exception):
    """A request that is answered with ``{"error": message}``."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


@dataclass(frozen=True)
class Limits:
    """Sizes that a request may have; None is unlimited.

    Attributes:
        characters: of all texts together.
        texts: in a list.
    """

    characters: int | None
    texts: int | None


@dataclass(frozen=True)
class TranslateRequest:
    """The parameters of ``/translate``.

    Attributes:
        texts: with line feeds as line ends, and without surrogates.
        is_list: whether `q` was a list, and the response has lists.
        source: None is ``auto``.
        target: language code.
        alternatives: further translations of each text.
        is_html: whether the texts are HTML.
        details: whether to return alignment and flags.
    """

    texts: list[str]
    is_list: bool
    source: Language | None
    target: Language
    alternatives: int
    is_html: bool
    details: bool

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], limits: Limits) -> TranslateRequest:
        """Check the parameters in LibreTranslate's order.

        Raises:
            RequestError: status 400.
        """
        for name in ("q", "source", "target"):
            if not parameters.get(name):
                raise RequestError(400, f"Invalid request: missing {name} parameter")
        texts, is_list = parse_texts(parameters["q"])
        source, target = (_text(parameters, name) for name in ("source", "target"))
        alternatives = _number(parameters, "alternatives", _MAX_ALTERNATIVES)
        check_limits(texts, is_list, limits)
        source_language = None if source.lower() == "auto" else _language(source)
        target_language = _language(target)
        text_format = parameters.get("format") or "text"
        if text_format not in ("text", "html"):
            raise RequestError(400, f"{_shown(text_format)} format is not supported")
        return cls(
            texts=texts,
            is_list=is_list,
            source=source_language,
            target=target_language,
            alternatives=alternatives,
            is_html=text_format == "html",
            details=str(parameters.get("nmt", "")).lower() in ("true", "1"),
        )


def parse_texts(value: object) -> tuple[list[str], bool]:
    """Return the texts of a parameter `q`, and whether it is a list."""
    values = value if isinstance(value, list) else [value]
    texts = [_clean(text) for text in values if isinstance(text, str)]
    if len(texts) < len(values):
        raise RequestError(400, "Invalid request: q parameter is not a text or a list of texts")
    return texts, isinstance(value, list)


def check_limits(texts: list[str], is_list: bool, limits: Limits) -> None:
    """Check the number of texts and of characters."""
    sizes = [(sum(map(len, texts)), limits.characters)]
    if is_list:
        sizes.insert(0, (len(texts), limits.texts))
    for size, limit in sizes:
        if limit is not None and size > limit:
            raise RequestError(
                400, f"Invalid request: request ({size}) exceeds text limit ({limit})"
            )


def check_target(source: Language, target: Language) -> None:
    """Check that a translation from `source` to `target` exists."""
    if target.code != "en" and target != source:
        raise RequestError(400, f"{target} is not available as a target language from {source}")


async def read_parameters(request: Request) -> dict[str, Any]:
    """Return the parameters of a request: body first, then query string.

    Raises:
        RequestError: invalid JSON or form; a body that is too large or too slow.
        starlette.requests.ClientDisconnect: the client closed the connection.
    """
    try:
        await asyncio.wait_for(_read_body(request), _BODY_SECONDS)
    except asyncio.TimeoutError:
        raise RequestError(408, "Request Timeout", {"Connection": "close"}) from None
    parameters: dict[str, Any] = dict(request.query_params)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return parameters | _parse_json(await request.body())
    if kind == "multipart/form-data":
        return parameters | await _parse_multipart(request)
    if kind == "application/x-www-form-urlencoded":
        return parameters | _parse_urlencoded(await request.body())
    return parameters


async def _parse_multipart(request: Request) -> dict[str, str]:
    try:
        form = await request.form(max_files=8, max_fields=_MAX_FIELDS, max_part_size=MAX_BODY)
    except (HTTPException, ValueError):
        raise _invalid_form() from None
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    await form.close()
    return fields


def _parse_urlencoded(body: bytes) -> dict[str, str]:
    """Return the fields of a form; UTF-8 that is not percent-encoded is accepted, as curl sends it.

    Starlette decodes such bytes as Latin-1.
    """
    try:
        text = body.decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise _invalid_form() from None


def _invalid_form() -> RequestError:
    return RequestError(400, "Invalid form format")


async def _read_body(request: Request) -> None:
    """Read the body into the request, which caches it."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise _too_large()
        chunks.append(chunk)
    request._body = b"".join(chunks)  # as Request.body does, with a limit


def _too_large() -> RequestError:
    message = f"Request Entity Too Large: a body has at most {MAX_BODY >> 20} MiB"
    return RequestError(413, message, {"Connection": "close"})


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError(400, "Invalid JSON format")
    return value


def _clean(text: str) -> str:
    """Replace line ends by line feeds, and halves of surrogate pairs by ``?``."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _text(parameters: Mapping[str, Any], name: str) -> str:
    value = parameters[name]
    if not isinstance(value, str):
        raise RequestError(400, f"Invalid request: {name} parameter is not a text")
    return value


def _number(parameters: Mapping[str, Any], name: str, maximum: int) -> int:
    value = parameters.get(name) or 0
    try:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        number = int(value)
    except ValueError:
        raise RequestError(400, f"Invalid request: {name} parameter is not a number") from None
    if number < 0:
        raise RequestError(400, f"Invalid request: {name} parameter must be >= 0")
    if number > maximum:
        raise RequestError(400, f"Invalid request: {name} parameter must be <= {maximum}")
    return number


def _language(code: str) -> Language:
    language = find_language(code)
    if language is None:
        raise RequestError(400, f"{_shown(code)} is not supported")
    return language


def _shown(value: object) -> str:
    return _clean(str(value))[:_MAX_SHOWN]
