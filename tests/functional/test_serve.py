"""``nmt serve`` as a process, with clients from PyPI."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from nmt import Translator
from nmt.serve.app import Settings, create_app
from tests.helpers.command import ROOT, assert_refused, nmt
from tests.helpers.corpus import toy_pairs
from tests.helpers.serving import serving

SOURCES = [zh for zh, _ in toy_pairs()]


class Served(NamedTuple):
    """A server process and its address."""

    process: subprocess.Popen[bytes]
    url: str


@contextlib.contextmanager
def served(*arguments: object) -> Iterator[Served]:
    """Context manager: run ``nmt serve`` on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nmt", "serve", "--port", "0", *map(str, arguments)],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        for line in process.stderr:
            if match := re.search(rb"serving (http://\S+)/", line):
                yield Served(process, match[1].decode())
                return
        pytest.fail("the server did not start")
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def server(toy_run: Path) -> Iterator[Served]:
    with served("--model", toy_run, "--device", "cpu") as running:
        yield running


@pytest.fixture(scope="module")
def expected(toy_translator: Translator) -> dict[str, str]:
    """The translation of each source by the Python interface."""
    translations = toy_translator.translate(SOURCES)
    return {translation.source: translation.text for translation in translations}


@pytest.fixture(scope="module")
def toy_translator(toy_run: Path) -> Translator:
    return Translator.load(toy_run, "cpu")


def test_libretranslatepy(server: Served, expected: dict[str, str]) -> None:
    from libretranslatepy import LibreTranslateAPI

    client = LibreTranslateAPI(server.url)
    assert client.translate(SOURCES[0], "zh", "en") == expected[SOURCES[0]]
    assert client.translate("我\n", "zh-Hans", "en").endswith("\n")
    assert client.detect(SOURCES[0]) == [{"confidence": 100.0, "language": "zh-Hans"}]
    assert {"en", "zh"} <= {language["code"] for language in client.languages()}


def test_deep_translator(server: Served, expected: dict[str, str]) -> None:
    from deep_translator import LibreTranslator

    client = LibreTranslator(source="zh", target="en", api_key="any", custom_url=f"{server.url}/")
    assert client.translate(SOURCES[1]) == expected[SOURCES[1]]
    assert client.translate_batch(SOURCES[:3]) == [expected[source] for source in SOURCES[:3]]


def test_details_of_a_translation(server: Served, toy_translator: Translator) -> None:
    text = f"{SOURCES[0]}\n\n{SOURCES[50]}"
    body = {"q": text, "source": "zh", "target": "en", "nmt": True}
    answer = httpx.post(f"{server.url}/translate", json=body).json()
    assert set(answer) == {"translatedText", "alignment", "flags"}
    lines = text.split("\n")
    translations = toy_translator.translate(lines)
    for line, alignment, flags, translation in zip(
        lines, answer["alignment"], answer["flags"], translations, strict=True
    ):
        assert "".join(alignment["characters"]) == line
        assert " ".join(alignment["words"]) == translation.text
        assert alignment["links"] == [list(link) for link in translation.links]
        assert all(sum(row) == pytest.approx(1, abs=0.01) for row in alignment["weights"])
        assert [flag["name"] for flag in flags] == [flag.name for flag in translation.flags]


def test_concurrent_clients_get_the_translations_of_the_python_interface(
    toy_translator: Translator,
) -> None:
    """Batch invariance: each client checks each of its answers."""
    sources = [
        "我爱中国。",
        "他们喜欢茶。",
        "老师看见大海。",
        "她找书。",
        "医生认识北京。我爱猫。",
        "😀",
        "12345",
    ]
    expected = dict(zip(sources, [t.text for t in toy_translator.translate(sources)], strict=True))
    expected["😀"] = "😀"  # a text without letters is returned
    wrong: list[object] = []

    def client(seed: int, url: str) -> None:
        draw = random.Random(seed)
        with httpx.Client(base_url=url, timeout=60) as connection:
            for _ in range(12):
                q = draw.sample(sources, draw.randint(1, 5))
                body = {"q": q, "source": "zh", "target": "en"}
                texts = connection.post("/translate", json=body).json()["translatedText"]
                if texts != [expected[line] for line in q]:
                    wrong.append((q, texts))

    with serving(create_app(toy_translator, Settings())) as url:
        threads = [threading.Thread(target=client, args=(n, url)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        metrics = httpx.get(f"{url}/metrics").text
    assert wrong == []
    assert 'nmt_requests_total{path="/translate",status="200"} 144' in metrics
    assert "nmt_queue_lines 0" in metrics


def test_a_host_of_the_network_needs_a_key_or_public(toy_run: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        result = nmt("serve", "--model", toy_run, "--host", host)
        assert_refused(result, host, "everyone on the network", "--api-key KEY, or --public")


def test_a_port_in_use_is_refused(server: Served, toy_run: Path) -> None:
    port = server.url.rpartition(":")[2]
    result = nmt("serve", "--model", toy_run, "--port", port)
    assert_refused(result, f"127.0.0.1:{port}: cannot listen", "--port")


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    assert_refused(nmt("serve", "--port", 0, "--model", tmp_path / "none"), "none")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("nmt.serve.", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert_refused(nmt("serve"), "needs uvicorn", "nmt-zh-en[serve]")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_exits_with_0(toy_run: Path, number: int) -> None:
    with served("--model", toy_run, "--device", "cpu") as running:
        running.process.send_signal(number)
        assert running.process.wait(20) == 0
        assert running.process.stderr is not None
        assert running.process.stderr.read() == b"stopped\n"
