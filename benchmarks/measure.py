"""Taking figures and laying them out; knows nothing of sandboxes."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured, ours and the peer's in the same unit, and the bars it is held to.

    at_most: of ours. at_least_times: how many times the peer's figure has to be ours.
    """

    what: str
    unit: str
    ours: float
    peer: float | None = None
    at_most: float | None = None
    at_least_times: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.peer / self.ours if self.peer is not None and self.ours else None

    @property
    def holds(self) -> bool:
        """Whether it meets its bars."""
        if self.at_most is not None and self.ours > self.at_most:
            return False
        return self.at_least_times is None or (self.ratio is not None and self.ratio >= self.at_least_times)


def seconds(operation: Callable[[], object]) -> float:
    """The wall-clock time of one call."""
    begin = time.perf_counter()
    operation()
    return time.perf_counter() - begin


def median_ms(operation: Callable[[], object], times: int, *, warm_up: int = 3) -> float:
    """The median of so many calls, in milliseconds."""
    for _ in range(warm_up):
        operation()
    return statistics.median(seconds(operation) for _ in range(times)) * 1000


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [("", "ours", "docker-py", "ratio", "bar", "")]
    for f in figures:
        bars = [
            f"≤ {f.at_most:g}" if f.at_most is not None else "",
            f"≥ {f.at_least_times:g} ×" if f.at_least_times else "",
        ]
        rows.append(
            (
                f.what,
                f"{f.ours:.2f} {f.unit}",
                f"{f.peer:.2f} {f.unit}" if f.peer is not None else "",
                f"{f.ratio:.1f} ×" if f.ratio is not None else "",
                ", ".join(bar for bar in bars if bar),
                ("holds" if f.holds else "MISSED") if any(bars) else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> str:
    """What the figures were taken on, in a line."""
    import os

    return f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
