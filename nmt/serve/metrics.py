"""Counters and histograms in the Prometheus text format, version 0.0.4."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Sequence

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LINES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts of observations by upper bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """Return the samples, with cumulative counts."""
        samples, cumulative = [], 0
        for bound, count in zip([*self.bounds, "+Inf"], self.counts, strict=True):
            cumulative += count
            samples.append(f'{name}_bucket{{le="{bound}"}} {cumulative}')
        return [*samples, f"{name}_sum {self.total:.6f}", f"{name}_count {cumulative}"]


class Metrics:
    """Measurements of one server: requests, latency, batch size, queue.

    Attributes:
        queue: function that returns the number of lines waiting for translation.
    """

    def __init__(self) -> None:
        self.queue: Callable[[], int] = int
        self.requests: Counter[tuple[str, int]] = Counter()
        self.in_flight = 0
        self.latency = Histogram(_SECONDS)
        self.batches = Histogram(_LINES)

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Count a response. `path` is a route, never an arbitrary path of a client."""
        self.requests[path, status] += 1
        if path == "/translate":
            self.latency.observe(seconds)

    def render(self) -> str:
        """Return all samples as text."""
        sections: list[tuple[str, str, str, list[str]]] = [
            (
                "nmt_requests_total", "counter", "Responses by route and status.",
                [
                    f'nmt_requests_total{{path="{path}",status="{status}"}} {count}'
                    for (path, status), count in sorted(self.requests.items())
                ],
            ),
            (
                "nmt_translate_seconds", "histogram", "Time of /translate requests.",
                self.latency.lines("nmt_translate_seconds"),
            ),
            (
                "nmt_batch_lines", "histogram", "Lines searched together.",
                self.batches.lines("nmt_batch_lines"),
            ),
            (
                "nmt_queue_lines", "gauge", "Lines waiting for translation.",
                [f"nmt_queue_lines {self.queue()}"],
            ),
            (
                "nmt_requests_in_flight", "gauge", "Requests without a response yet.",
                [f"nmt_requests_in_flight {self.in_flight}"],
            ),
        ]  # fmt: skip
        return "".join(
            f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "".join(f"{s}\n" for s in samples)
            for name, kind, text, samples in sections
        )
