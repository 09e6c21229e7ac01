"""What dead workers leave behind: helpers with a session of their own, which no kill of a process group reaches.

The supervisor is a subreaper, so whoever loses its parent below it becomes its child. It starts all its processes itself and knows them;
any other child of it is such a leftover, still trading perhaps, and is killed and reaped.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Set
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path

from horizon.lifeline import adopt_orphans

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


class Strangers:
    """Made once, in the thread that starts the children, before the first of them."""

    def __init__(self) -> None:
        adopt_orphans()
        # All children are the main thread's: the ones that it starts, and the ones that the kernel gives to the process.
        self._children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        self._spared = self._now()  # they were there before
        # As the first process of a container it is given everybody's orphans, also those of a person who looks around in there.
        self._may_kill = os.getpid() != 1
        self._killed: set[int] = set()
        self._look_at = 0.0

    def look(self, now: float, known: Set[int], someone_died: bool) -> None:
        """Kill and reap whoever is neither `known` nor spared. About 20 us; does it once a second, and when someone died."""
        if now < self._look_at and not someone_died:
            return
        self._look_at = now + _LOOK_EVERY_S
        try:
            strangers = self._now() - known - self._spared - {_tracker()}
        except OSError:  # no descriptor is left; the next look is soon enough
            return
        for pid in strangers:
            self._end(pid)
        self._killed &= strangers

    def _end(self, pid: int) -> None:
        with suppress(ChildProcessError, ProcessLookupError):
            if self._may_kill and pid not in self._killed:
                self._killed.add(pid)
                name = _name(pid)
                os.kill(pid, signal.SIGKILL)
                if name:
                    log.warning("killed %s (pid %d), which a dead process left behind", name, pid, extra={"action": "leftover"})
            os.waitpid(pid, os.WNOHANG)

    def _now(self) -> frozenset[int]:
        return frozenset(int(pid) for pid in self._children.read_text().split())


def _name(pid: int) -> str:
    """Empty for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    name, state = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2]
    return "" if state == "Z" else name


def _tracker() -> int:
    """multiprocessing's own helper, which it starts with the first process."""
    return getattr(resource_tracker._resource_tracker, "_pid", None) or 0
