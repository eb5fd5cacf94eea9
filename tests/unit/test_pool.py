"""Work in other processes, reading as a stream, and how far it has come."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from nmt.config.sources import Source
from nmt.errors import NmtError
from nmt.io.read import Meter, read_lines
from nmt.prepare.pool import Pool
from nmt.prepare.sources import read_pairs


def square_slowly(number: int) -> int:
    time.sleep(0.02 * (number % 3))  # later ones are done earlier
    return number * number


def own_number(folder: str) -> int:
    """This process's number, once another one has come here too."""
    (Path(folder) / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid()


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def die(_: int) -> None:
    os._exit(9)


def test_results_are_in_order_and_input_is_read_lazily() -> None:
    taken = itertools.count()
    items = ((next(taken), number)[1] for number in range(40))
    with Pool(2) as workers:
        for number, result in enumerate(workers.map(square_slowly, items)):
            assert result == number * number
            assert next(taken) <= 2 * (number + 1) + 8  # `next` counts as well
    assert number == 39


@pytest.mark.parametrize("count", [1, None])
def test_short_streams_are_processed_without_workers(count: int | None) -> None:
    with Pool(count) as workers:
        assert set(workers.map(lambda _: os.getpid(), range(5))) == {os.getpid()}


def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, time\nfrom nmt.prepare.pool import Pool\n"
        "from tests.unit.test_pool import own_number\n"
        "if __name__ == '__main__':\n    with Pool(2) as pool:\n"
        f"        print(*{{*pool.map(own_number, [{str(tmp_path)!r}] * 20)}}, flush=True)\n"
        "        time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        workers = [int(number) for number in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.kill()
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def test_a_killed_worker_is_an_error() -> None:
    with (
        Pool(2) as workers,
        pytest.raises(NmtError, match="a worker process was killed") as caught,
    ):
        list(workers.map(die, range(3)))
    assert caught.value.hint == "run again with --workers 1"


UNITS = 30_000
LINES = {
    "tsv": "他喜欢看书，看了很多。{i}\tHe likes to read and read a lot. {i}\n",
    "jsonl": '{{"zh": "他喜欢看书，看了很多。{i}", '
    '"en": "He likes to read and read a lot. {i}"}}\n',
    "csv": "他喜欢看书，看了很多。{i},He likes to read and read a lot. {i}\n",
    "tmx": '<tu><tuv xml:lang="zh"><seg>他喜欢看书，看了很多。{i}</seg></tuv>'
    '<tuv xml:lang="en"><seg>He likes to read and read a lot. {i}</seg></tuv></tu>\n',
}
AROUND = {"csv": ("zh,en\n", ""), "tmx": ("<tmx><body>", "</body></tmx>")}


@pytest.mark.parametrize("kind", LINES)
def test_sources_are_streamed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    before, after = AROUND.get(kind, ("", ""))
    body = "".join(LINES[kind].format(i=i) for i in range(UNITS))
    path.write_text(before + body + after, encoding="utf-8")
    source = TypeAdapter(Source).validate_python({"source": kind, "path": path})
    next(iter(read_pairs(source)))  # imports on first use are not counted
    tracemalloc.start()
    count = sum(1 for _ in read_pairs(source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == UNITS
    assert peak < 700_000 < path.stat().st_size / 2


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_meter_rises_from_0_to_1(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        data = "".join(f"{i * 7919 % 10007} line\n" for i in range(20_000)).encode()
        path.write_bytes(gzip.compress(data) if suffix else data)
    meter = Meter(sum(path.stat().st_size for path in paths))
    seen = [meter.fraction]
    for path in paths:
        seen += [meter.fraction for _ in read_lines(path, meter=meter)]
    seen.append(meter.fraction)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert seen == sorted(seen)
    assert 0.4 < seen[len(seen) // 2] < 0.7
    assert Meter(0).fraction == 0.0
