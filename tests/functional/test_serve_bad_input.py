"""Hostile and broken requests: each has a defined answer, and the server serves on."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from nmt.serve import contract, server
from tests.helpers.serving import WordTranslator, serving, word_app, words

LOVE = {"q": "我爱", "source": "zh", "target": "en"}
HEAD = b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(word_app(char_limit=20_000)) as address:
        yield address


@pytest.fixture
def healthy(url: str) -> Iterator[str]:
    """The address; afterwards the server must still translate."""
    yield url
    answer = httpx.post(f"{url}/translate", json=LOVE).json()
    assert answer == {"translatedText": words("我爱")}


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def send(url: str, data: bytes) -> bytes:
    """Send bytes; return everything until the server closes the connection."""
    with connect(url) as connection:
        with contextlib.suppress(ConnectionError):  # closed while sending
            connection.sendall(data)
        return read(connection)


def read(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):  # closed with data not read
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_a_large_body_is_refused(healthy: str) -> None:
    answer = send(healthy, HEAD + b"Content-Length: 100000000\r\n\r\n" + b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"Request Entity Too Large' in answer


def test_a_large_body_without_a_length_is_refused(healthy: str) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with connect(healthy) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(contract.MAX_BODY // 0x10000 + 1000):
                connection.sendall(chunk)
            pytest.fail("the server read the whole body")


def test_large_headers_are_refused(healthy: str) -> None:
    answer = send(healthy, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 3_000_000 + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_a_text_of_a_megabyte_is_refused_by_its_length(healthy: str) -> None:
    body = LOVE | {"q": "我" * 400_000}
    for response in (
        httpx.post(f"{healthy}/translate", json=body),
        httpx.post(f"{healthy}/translate", data=body),
        httpx.post(f"{healthy}/translate", files={n: (None, v) for n, v in body.items()}),
    ):
        assert response.status_code == 400
        message = "Invalid request: request (400000) exceeds text limit (20000)"
        assert response.json() == {"error": message}


def test_a_text_of_a_megabyte_is_translated_without_a_limit() -> None:
    text = ("我爱中国。" * 100 + "\n") * 1_700
    with serving(word_app()) as address:
        answer = httpx.post(f"{address}/translate", json=LOVE | {"q": text}, timeout=30).json()
    assert answer["translatedText"] == "\n".join(map(words, text.split("\n")))


def test_slow_headers_are_cut_off(healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    begin = time.monotonic()
    with connect(healthy) as connection:
        connection.sendall(b"POST /translate HTTP/1.1\r\nHost: ")
        assert read(connection).startswith(b"HTTP/1.1 408 ")
    with connect(healthy) as connection:
        assert read(connection).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begin < 5


def test_a_slow_body_is_cut_off(healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "_BODY_SECONDS", 0.3)
    answer = send(healthy, HEAD + b'Content-Length: 100\r\n\r\n{"q": ')
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_disconnect_cancels_the_work() -> None:
    translator = WordTranslator(seconds=0.05)
    with serving(word_app(translator)) as address:
        body = b'{"q": "' + b"a\\n" * 3000 + b'", "source": "zh", "target": "en"}'
        with connect(address) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            while not translator.batches:
                time.sleep(0.005)
        with connect(address) as connection:  # in the middle of a body
            connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        time.sleep(0.2)
        begun = len(translator.batches)
        assert httpx.post(f"{address}/translate", json=LOVE).status_code == 200
        assert len(translator.batches) == begun + 1
        metrics = httpx.get(f"{address}/metrics").text
    assert 'nmt_requests_total{path="/translate",status="499"} 2' in metrics
    assert begun < 12


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", b"400"),
        (
            b"GET /static/../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"404",
        ),
        (
            b"GET /static/%2e%2e%2fspec.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"404",
        ),
        (b"GET /static/..%5cspec.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /static//etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /a%0d%0aSet-Cookie:x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"BREW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
        (b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (
            b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
            b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"400",
        ),
    ],
    ids=range(10),
)
def test_broken_and_hostile_requests(healthy: str, request_: bytes, status: bytes) -> None:
    answer = send(healthy, request_)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    for secret in (b"root:", b"swagger", b"Set-Cookie", b"Traceback"):
        assert secret not in answer


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n"),
        ("application/x-www-form-urlencoded", b"q=%zz&%"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=" % n for n in range(2000))),
        ("text/plain", b"q=a"),
        ("\xff", b"q=a"),
        ("", b""),
    ],
    ids=range(8),
)
def test_broken_forms_are_refused(healthy: str, kind: str, body: bytes) -> None:
    headers = {"Content-Type": kind.encode("latin-1")}
    response = httpx.post(f"{healthy}/translate", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"].startswith("Invalid")


def test_a_file_is_not_a_text(healthy: str) -> None:
    files = {"q": ("a.txt", io.BytesIO("我".encode())), "source": (None, "zh")}
    response = httpx.post(f"{healthy}/translate", files=files, data={"target": "en"})
    assert response.json() == {"error": "Invalid request: missing q parameter"}


def test_deeply_nested_html_is_translated(healthy: str) -> None:
    text = "<b>" * 2000 + "我" + "</b>" * 2000 + "<script>爱</script><i>爱"
    body = LOVE | {"q": text, "format": "html"}
    answer = httpx.post(f"{healthy}/translate", json=body, timeout=20).json()
    assert answer["translatedText"] == text.replace("我", "w6211").replace("<i>爱", "<i>w7231")


def test_many_requests_at_once_are_answered_or_refused() -> None:
    translator = WordTranslator(seconds=0.02)
    app = word_app(translator)
    app.batcher._max_lines = 40
    statuses: list[int] = []

    def client(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as connection:
            for _ in range(4):
                response = connection.post("/translate", json=LOVE | {"q": ["我"] * 20})
                statuses.append(response.status_code)
                if response.status_code == 503:
                    assert response.headers["retry-after"] == "1"
                    assert response.json()["error"].startswith("Service Unavailable")

    with serving(app) as url:
        threads = [threading.Thread(target=client, args=(url,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert httpx.post(f"{url}/translate", json=LOVE).status_code == 200
    assert set(statuses) == {200, 503}
    assert len(statuses) == 48


def test_an_internal_error_has_no_text_in_the_answer_or_the_log(
    healthy: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = httpx.post(f"{healthy}/translate", json=LOVE | {"q": "坏 secret"})
        deadline = time.monotonic() + 5
        while "ValueError in " not in caplog.text:  # logged after the response
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert response.status_code == 500
    assert response.json() == {"error": "Internal Server Error"}
    assert response.headers["access-control-allow-origin"] == "*"
    assert "secret" not in caplog.text


def test_a_stop_answers_accepted_requests() -> None:
    translator = WordTranslator(seconds=0.3)
    results: list[httpx.Response] = []
    with serving(word_app(translator)) as address:
        request = lambda: results.append(httpx.post(f"{address}/translate", json=LOVE))  # noqa: E731
        thread = threading.Thread(target=request)
        thread.start()
        while not translator.batches:
            time.sleep(0.005)
    thread.join(10)
    assert [response.status_code for response in results] == [200]


def test_a_stop_refuses_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.2)
    translator = WordTranslator(seconds=0.3)
    results: list[httpx.Response] = []
    body = LOVE | {"q": "我\n" * 640}
    with serving(word_app(translator)) as address:
        request = lambda: results.append(httpx.post(f"{address}/translate", json=body))  # noqa: E731
        thread = threading.Thread(target=request)
        thread.start()
        while not translator.batches:
            time.sleep(0.005)
    thread.join(10)
    assert [response.status_code for response in results] == [503]
