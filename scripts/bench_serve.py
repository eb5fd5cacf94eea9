"""Measure `nmt serve` against `nmt translate` on the same sentences: throughput and latency.

    python scripts/bench_serve.py --model runs/quickstart --output serve.json

The sentences are those of the run's dev and test sets. All requests use the loopback interface.
Each client checks each of its answers against the offline translation.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nmt import Translator
from nmt.run.directory import Run

_SECONDS = 20.0  # of each measurement, at most
_CHUNK = 256  # lines


async def send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str
) -> tuple[int, Any]:
    """Post one line to ``/translate``; return status and JSON."""
    body = json.dumps({"q": line, "source": "zh", "target": "en"}).encode()
    writer.write(
        b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    return int(head.split()[1]), json.loads(await reader.readexactly(int(length[1])))


async def run_clients(
    port: int, clients: int, pairs: list[tuple[str, str]]
) -> tuple[list[float], int]:
    """Send each line once from `clients` connections.

    Returns:
        Latencies in seconds, and the number of answers that are not the offline translation.
    """
    remaining = iter(pairs)
    latencies: list[float] = []
    wrong = 0

    async def client() -> None:
        nonlocal wrong
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for line, text in remaining:
            begin = time.perf_counter()
            status, answer = await send(reader, writer, line)
            latencies.append(time.perf_counter() - begin)
            wrong += status != 200 or answer["translatedText"] != text
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies, wrong


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(process: int) -> float:
    """Return the resident memory of a process."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    match = re.search(r"VmRSS:\s+(\d+) kB", text)
    return round(int(match[1]) / 1024, 1) if match else 0.0


def measure_throughput(
    translator: Translator, server: int, port: int, pairs: list[tuple[str, str]], clients: int
) -> dict[str, Any]:
    """Translate all lines offline and by the server, in alternation of 256 lines."""
    offline, served, offline_cpu = 0.0, 0.0, 0.0
    latencies: list[float] = []
    wrong = 0
    cpu = cpu_seconds(server)
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        begin, begin_cpu = time.perf_counter(), time.process_time()
        translator.translate([line for line, _ in chunk])
        offline += time.perf_counter() - begin
        offline_cpu += time.process_time() - begin_cpu
        begin = time.perf_counter()
        times, errors = asyncio.run(run_clients(port, clients, chunk))
        served += time.perf_counter() - begin
        latencies += times
        wrong += errors
        if offline + served > _SECONDS:
            break
    count = len(latencies)
    return {
        "lines": count,
        "wrong": wrong,
        "offline_lines_per_second": round(count / offline, 1),
        "served_lines_per_second": round(count / served, 1),
        "ratio": round(offline / served, 3),
        "offline_cpu_ms_per_line": round(1000 * offline_cpu / count, 2),
        "served_cpu_ms_per_line": round(1000 * (cpu_seconds(server) - cpu) / count, 2),
        "p99_ms": round(1000 * statistics.quantiles(latencies, n=100)[-1], 1),
    }


def measure_latency(
    translator: Translator, port: int, pairs: list[tuple[str, str]]
) -> dict[str, Any]:
    """Translate single lines by the Python interface and by the server, in alternation."""
    api: list[float] = []
    served: list[float] = []

    async def alternate() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for line, _ in pairs:
            begin = time.perf_counter()
            translator.translate([line])
            middle = time.perf_counter()
            await send(reader, writer, line)
            api.append(middle - begin)
            served.append(time.perf_counter() - middle)
            if sum(api) + sum(served) > _SECONDS:
                break
        writer.close()

    asyncio.run(alternate())
    medians = [statistics.median(api), statistics.median(served)]
    return {
        "lines": len(api),
        "api_median_ms": round(1000 * medians[0], 2),
        "served_median_ms": round(1000 * medians[1], 2),
        "ratio": round(medians[1] / medians[0], 3),
    }


def measure(model: Path, count: int, clients: int) -> dict[str, Any]:
    """Run all measurements once."""
    run = Run.open(model)
    sentences = [*run.text("test", "src"), *run.text("dev", "src")]
    translator = Translator.load(run, "cpu")
    texts = [translation.text for translation in translator.translate(sentences)]
    expected = list(zip(sentences, texts, strict=True))
    pairs = list(itertools.islice(itertools.cycle(expected), count))
    server = subprocess.Popen(
        [sys.executable, "-m", "nmt", "serve", "--model", model, "--device", "cpu", "--port", "0"],
        stderr=subprocess.PIPE,
    )
    assert server.stderr is not None
    try:
        port = next(
            int(match[1])
            for text in server.stderr
            if (match := re.search(rb"serving http://127.0.0.1:(\d+)", text))
        )
        asyncio.run(run_clients(port, clients, pairs[:_CHUNK]))  # warm up
        before = memory_mib(server.pid)
        throughput = measure_throughput(translator, server.pid, port, pairs, clients)
        latency = measure_latency(translator, port, pairs)
        after = memory_mib(server.pid)
    finally:
        server.terminate()
        server.wait(15)
    return {
        "model": str(model),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "clients": clients,
        "throughput": throughput,
        "latency": latency,
        "server_memory_mib": [before, after],
    }


def main() -> None:
    """Measure, print JSON, and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="run directory")
    parser.add_argument("--lines", type=int, default=2000, help="sentences sent")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    result = measure(arguments.model, arguments.lines, arguments.clients)
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
