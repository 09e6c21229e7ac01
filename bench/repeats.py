"""What repeated measurements come to: the least, the median and the most, and how much of another way's one is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.options import Row


def spread(name: str, values: Sequence[float], digits: int = 0) -> Row:
    """Three columns of a row. At least one value."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return {f"{name}_min": _rounded(least, digits), name: _rounded(middle, digits), f"{name}_max": _rounded(most, digits)}


def paired_ratio(values: Sequence[float], against: Sequence[float]) -> float:
    """The median of the ratios within each repeat: a machine that slows down between two repeats moves both."""
    return round(statistics.median(one / other for one, other in zip(values, against, strict=True)), 3)


def _rounded(value: float, digits: int) -> float:
    return round(value, digits) if digits else round(value)
