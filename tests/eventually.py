"""Wait for a condition with a deadline: the only way a test may wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], timeout_s: float = 10.0, interval_s: float = 0.01, what: str = "") -> T:
    """Call `probe` until it returns something true, and return that; fail at the deadline with what it returned last."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or probe} (last: {value!r})")
        time.sleep(interval_s)
