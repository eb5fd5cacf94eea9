"""Requests of concurrent clients are translated together, each with its own answer."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from nmt.serve.batching import MAX_LINES, Batcher, QueueFullError
from nmt.serve.metrics import Metrics
from nmt.translate.types import Translation
from tests.helpers.serving import WordTranslator, serving, word_app, words


def text_of(translation: Translation) -> str:
    return translation.text


async def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_concurrent_jobs_share_batches() -> None:
    engine = WordTranslator(seconds=0.01)
    batcher = Batcher(engine, Metrics())

    async def main() -> list[list[str]]:
        jobs = (batcher.translate([chr(0x4E00 + n)], 1, text_of) for n in range(200))
        return await asyncio.gather(*jobs)

    batcher.start()
    results = asyncio.run(main())
    batcher.stop(wait=5)
    assert results == [[words(chr(0x4E00 + n))] for n in range(200)]
    assert len(engine.batches) < 20
    assert max(map(len, engine.batches)) == MAX_LINES


def test_a_short_job_does_not_wait_for_a_long_one() -> None:
    engine = WordTranslator(seconds=0.005)
    batcher = Batcher(engine, Metrics())
    order: list[str] = []

    async def job(name: str, lines: list[str]) -> list[str]:
        result = await batcher.translate(lines, 1, text_of)
        order.append(name)
        return result

    async def main() -> list[str]:
        long = asyncio.create_task(job("long", [f"我{n}" for n in range(640)]))
        await until(lambda: engine.batches)
        await job("short", ["爱"])
        return await long

    batcher.start()
    result = asyncio.run(main())
    batcher.stop(wait=5)
    assert order == ["short", "long"]
    assert result == [words(f"我{n}") for n in range(640)]


def test_a_short_job_does_not_wait_for_a_long_line() -> None:
    engine = WordTranslator(seconds=0.02)
    batcher = Batcher(engine, Metrics())
    order: list[str] = []

    async def job(name: str, line: str) -> None:
        assert await batcher.translate([line], 1, text_of) == [words(line)]
        order.append(name)

    async def main() -> None:
        long = asyncio.create_task(job("long", "我" * 20_000))
        await until(lambda: engine.batches)
        await asyncio.gather(job("another", "中" * 2000), job("short", "爱"))
        await long

    batcher.start()
    asyncio.run(main())
    batcher.stop(wait=5)
    assert order == ["short", "long", "another"]


def test_long_lines_make_small_batches() -> None:
    engine = WordTranslator()
    batcher = Batcher(engine, Metrics())
    batcher.start()
    lines = ["我" * 3000, "爱" * 3000, "中"]
    assert asyncio.run(batcher.translate(lines, 1, text_of)) == [words(line) for line in lines]
    batcher.stop(wait=5)
    assert len(engine.batches) == 2


def test_a_failing_job_fails_alone() -> None:
    engine = WordTranslator(seconds=0.01)
    batcher = Batcher(engine, Metrics())

    async def main() -> list[object]:
        lines = [["我"], ["好", "坏"], ["爱", "中"]]
        jobs = (batcher.translate(section, 1, text_of) for section in lines)
        return await asyncio.gather(*jobs, return_exceptions=True)

    batcher.start()
    first, failed, last = asyncio.run(main())
    assert (first, last) == (["w6211"], ["w7231", "w4e2d"])
    assert isinstance(failed, ValueError)
    assert asyncio.run(batcher.translate(["我"], 1, text_of)) == ["w6211"]
    batcher.stop(wait=5)


def test_a_cancelled_job_is_dropped() -> None:
    engine = WordTranslator(seconds=0.02)
    batcher = Batcher(engine, Metrics())

    async def main() -> None:
        task = asyncio.create_task(batcher.translate(["我"] * 640, 1, text_of))
        await until(lambda: engine.batches)
        task.cancel()
        await batcher.translate(["爱"], 1, text_of)

    batcher.start()
    asyncio.run(main())
    batcher.stop(wait=5)
    assert len(engine.batches) < 5
    assert batcher.waiting_lines() == 0


def test_a_full_queue_and_a_stopped_batcher_refuse_jobs() -> None:
    engine = WordTranslator(seconds=0.1)
    batcher = Batcher(engine, Metrics(), max_lines=3, max_characters=100)

    async def main() -> None:
        first = asyncio.create_task(batcher.translate(["我"] * 10, 1, text_of))
        await until(lambda: engine.batches)
        waiting = asyncio.create_task(batcher.translate(["我", "爱"], 1, text_of))
        await until(batcher.waiting_lines)
        with pytest.raises(QueueFullError):
            await batcher.translate(["我", "爱"], 1, text_of)
        with pytest.raises(QueueFullError):
            await batcher.translate(["我" * 100], 1, text_of)
        assert len(await first) == 10
        assert len(await waiting) == 2
        batcher.stop(wait=5)
        with pytest.raises(QueueFullError):
            await batcher.translate(["我"], 1, text_of)

    batcher.start()
    asyncio.run(main())


def test_a_stop_refuses_what_waits_and_finishes_the_batch() -> None:
    engine = WordTranslator(seconds=0.1)
    batcher = Batcher(engine, Metrics())

    async def main() -> list[object]:
        first = asyncio.create_task(batcher.translate(["我"], 1, text_of))
        await until(lambda: engine.batches)
        waiting = asyncio.create_task(batcher.translate(["爱"], 1, text_of))
        await until(batcher.waiting_lines)
        batcher.stop()
        return await asyncio.gather(first, waiting, return_exceptions=True)

    batcher.start()
    done, refused = asyncio.run(main())
    assert done == ["w6211"]
    assert isinstance(refused, QueueFullError)


def test_metrics_are_in_the_format_of_prometheus() -> None:
    with serving(word_app()) as url, httpx.Client(base_url=url) as client:
        client.post("/translate", json={"q": ["我", "爱"], "source": "zh", "target": "en"})
        client.get("/../../etc/passwd")
        client.get("/static/nothing")
        lines = client.get("/metrics").text.splitlines()
    assert 'nmt_requests_total{path="/translate",status="200"} 1' in lines
    assert 'nmt_requests_total{path="other",status="404"} 2' in lines
    assert 'nmt_batch_lines_bucket{le="1"} 0' in lines
    assert 'nmt_batch_lines_bucket{le="2"} 1' in lines
    assert 'nmt_batch_lines_bucket{le="+Inf"} 1' in lines
    assert "nmt_translate_seconds_count 1" in lines
    assert "nmt_requests_in_flight 1" in lines
    for line in lines:
        assert line.startswith(("# HELP nmt_", "# TYPE nmt_", "nmt_")), line
