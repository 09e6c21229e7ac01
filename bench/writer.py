"""The private writer of a benchmark's database: who it is, and that it has left before its files go."""

from __future__ import annotations

import re
import time

from horizon.locks import FileLock, is_free
from horizon.paths import DatabasePaths

_LEAVES_WITHIN_S = 30.0


def writer_pid(paths: DatabasePaths) -> int:
    hint = FileLock(paths.writer_lock).hint()
    found = re.search(r"pid=(\d+)", hint)
    if found is None:
        raise SystemExit(f"{paths.writer_lock} does not say who the writer is: {hint!r}")
    return int(found[1])


def wait_for_writer_to_leave(paths: DatabasePaths) -> None:
    """A private writer leaves a few seconds after the last run."""
    until = time.monotonic() + _LEAVES_WITHIN_S
    while not is_free(paths.writer_lock):
        if time.monotonic() > until:
            raise SystemExit(f"the writer of {paths.database} has not left after {_LEAVES_WITHIN_S:g} s")
        time.sleep(0.05)
