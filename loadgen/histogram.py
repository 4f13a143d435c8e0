"""Latencies in an HDR histogram: whole microseconds up to one hour, three significant digits."""

from __future__ import annotations

from hdrh.histogram import HdrHistogram

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3


class LatencyHistogram:
    """Counts latencies and keeps their exact sum and maximum, in microseconds. Not thread-safe."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
        self.sum_us = 0
        self.max_us = 0

    @property
    def count(self) -> int:
        """Latencies recorded."""
        return int(self._counts.total_count)

    def record(self, microseconds: float, count: int = 1) -> None:
        """Record a latency `count` times; what lies outside of the range counts at its border."""
        if count == 0:
            return
        value = min(max(round(microseconds), LOWEST_US), HIGHEST_US)
        self._counts.record_value(value, count)
        self.sum_us += value * count
        self.max_us = max(self.max_us, value)

    def merge(self, encoded: str, *, sum_us: int, max_us: int) -> None:
        """Add another process's histogram, as `encode` gave it, with its exact sum and maximum."""
        self._counts.decode_and_add(encoded)
        self.sum_us += sum_us
        self.max_us = max(self.max_us, max_us)

    def encode(self) -> str:
        """The counts in the HDR V2 compressed format, base64."""
        encoded: bytes = self._counts.encode()
        return encoded.decode("ascii")

    def percentile_us(self, percent: float) -> int:
        """The latency that `percent` of all are at or below; 0 without any."""
        return min(int(self._counts.get_value_at_percentile(percent)), self.max_us)

    def mean_us(self) -> float:
        """The exact mean; 0 without any."""
        return self.sum_us / self.count if self.count else 0.0
