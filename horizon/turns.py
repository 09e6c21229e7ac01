"""The engine's one lock (R25): reentrant, and held while its owner sleeps, so whoever wants it wakes the owner.

Plain locks starve here: a thread that sleeps inside its lock, lets go and takes it again at once is faster than any waiter wakes up.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress

_HANDOVER_S = 0.0001
_HANDOVERS = 20  # threads that want it all the time must not keep its owner out for good


class TurnLock:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: deque[None] = deque()  # one per thread that waits; its changes are atomic
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __enter__(self) -> None:
        if self._lock.acquire(blocking=False):
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

    def __del__(self) -> None:
        os.close(self._event)
