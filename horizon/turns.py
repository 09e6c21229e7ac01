"""The engine's one lock (R25): reentrant, held while its owner sleeps, and of no use in the child of a fork (R24).

Plain locks starve: a thread that sleeps inside its lock, lets go and takes it again at once is faster than any waiter wakes up. So
whoever wants this one wakes the sleeper, and the sleeper lets him pass.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import NoReturn, Protocol

from horizon.errors import HorizonError

_HANDOVER_S = 0.0001
_HANDOVERS = 20  # threads that want it all the time must not keep its owner out for good


class TurnLock:
    def __init__(self) -> None:
        self._lock: _Lock = threading.RLock()
        self._waiting: deque[None] = deque()  # one per thread that waits; its changes are atomic
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        _locks.add(self)

    def __enter__(self) -> None:
        """Raises: HorizonError in the child of a fork."""
        if self._lock.acquire(False):
            return
        self._waiting.append(None)
        os.eventfd_write(self._event, 1)
        self._lock.acquire()
        self._waiting.pop()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def fileno(self) -> int:
        """Readable when another thread wants the lock: what a sleep inside it has to listen to."""
        return self._event

    def hand_over(self) -> None:
        """Outside the lock: let those who wait have their turn before the next `with`."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        for _ in range(_HANDOVERS):
            if not self._waiting:
                return
            time.sleep(_HANDOVER_S)
        # They were not fast enough, on a busy machine: the next sleep must hear of them too, and not outlast them.
        os.eventfd_write(self._event, 1)

    def __del__(self) -> None:
        os.close(self._event)


class _Lock(Protocol):
    def acquire(self, blocking: bool = True) -> bool: ...

    def release(self) -> None: ...


class _OfAnotherProcess:
    """Takes the place of the lock in the child of a fork, where some thread may have held it for ever."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def acquire(self, blocking: bool = True) -> NoReturn:  # noqa: ARG002
        raise HorizonError(
            f"this Engine belongs to process {self._pid}; process {os.getpid()} is a fork of it and must not act on it. "
            "Trade in the process that made the Engine, and let helpers return their results to it"
        )

    def release(self) -> None:
        pass


_locks: weakref.WeakSet[TurnLock] = weakref.WeakSet()


def _disown_all() -> None:
    for lock in list(_locks):
        lock._lock = _OfAnotherProcess(os.getppid())
    _locks.clear()


os.register_at_fork(after_in_child=_disown_all)
