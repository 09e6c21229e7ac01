"""How much memory a strategy holds, helpers included, and when that is too much.

Where the supervisor may make control groups (cgroups.py), the kernel keeps the maximum, and this only warns before it. Elsewhere it is
looked at once a second, from outside, by /proc: a strategy that leaks is killed a second later, and one that takes all memory of the host
within a second is the kernel's to kill. A limit of address space would be no help: it counts what is reserved, not what is used, and fails
inside the strategy's own code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path

from horizon.config import Limits
from supervisor.cgroups import Group

LOOK_EVERY_S = 1.0
_HIGH = 0.8  # of the maximum, where no mark is given
_QUIET_BELOW = 0.9  # of the high mark: what goes up and down around it is said once
_MIB = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Mark(Enum):
    FINE = "fine"
    HIGH = "high"  # an alarm
    MAX = "max"  # it is killed and started again


def judge(held_bytes: int, limits: Limits) -> Mark:
    """Pure. Without a limit everything is fine."""
    if limits.memory_max_mb is not None and held_bytes > limits.memory_max_mb * _MIB:
        return Mark.MAX
    high = high_bytes(limits)
    return Mark.HIGH if high is not None and held_bytes > high else Mark.FINE


def high_bytes(limits: Limits) -> int | None:
    if limits.memory_high_mb is not None:
        return limits.memory_high_mb * _MIB
    return None if limits.memory_max_mb is None else int(limits.memory_max_mb * _MIB * _HIGH)


class Memory:
    """Of one incarnation."""

    def __init__(self, group: Group | None = None) -> None:
        self.held_bytes: int | None = None  # at the last look; None: nobody has looked
        self._group = group
        self._look_at = 0.0
        self._said_high = False

    def look(self, pid: int, limits: Limits, now: float) -> tuple[Mark, str]:
        """What is new since the last call, and a sentence of it. Reads /proc once a second, and only where there is a limit."""
        high = high_bytes(limits)
        if high is None or now < self._look_at:
            return Mark.FINE, ""
        self._look_at = now + LOOK_EVERY_S
        self.held_bytes = held_bytes(pid, precisely_above=high)
        mark = judge(self.held_bytes, limits)
        if mark is Mark.MAX and self._group is not None and self._group.keeps_limit_of(pid):
            mark = Mark.HIGH  # the kernel counts otherwise: a file that is mapped can be let go of
        if mark is Mark.MAX:
            return mark, f"takes {self.held_bytes // _MIB} MiB of memory, and memory_max_mb is {limits.memory_max_mb}"
        if self.held_bytes < high * _QUIET_BELOW:
            self._said_high = False
        if mark is Mark.HIGH and not self._said_high:
            self._said_high = True
            end = "" if limits.memory_max_mb is None else f"; above {limits.memory_max_mb} it is killed and started again"
            return mark, f"takes {self.held_bytes // _MIB} MiB of memory, more than {high // _MIB}{end}"
        return Mark.FINE, ""


def held_bytes(pid: int, precisely_above: int = 0) -> int:
    """What a process and all below it hold in memory. About 100 us a process.

    Pages that forks share are counted for each of them; only where that sum is above `precisely_above` they are counted once, for which
    the kernel has to walk through all of them.
    """
    pids = [pid, *_below(pid)]
    held = sum(map(resident_bytes, pids))
    return sum(map(_share_bytes, pids)) if held > precisely_above and len(pids) > 1 else held


def _below(pid: int) -> Iterator[int]:
    """Every descendant: helpers that lose their own parent stay below the worker, who adopts them."""
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                for child in map(int, children.read_text().split()):
                    yield child
                    yield from _below(child)


def resident_bytes(pid: int) -> int:
    """Of one process; 0 when it has just ended. Not by Path, which takes four times as long: every status asks for all of them."""
    with suppress(OSError, IndexError):
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 256).split()[1]) * _PAGE_BYTES
        finally:
            os.close(fd)
    return 0


def _share_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return resident_bytes(pid)
