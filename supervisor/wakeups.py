"""Signals to the supervisor: only noted, and waking the loop through a socket; nothing else is safe in a handler."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Wakeups:
    """`with` it the signals are ours; afterwards they are what they were."""

    def __init__(self) -> None:
        self._noted: list[int] = []
        self._before: dict[int, Any] = {}
        self._read_end, self._write_end = socket.socketpair()
        self._read_end.setblocking(False)
        self._write_end.setblocking(False)

    def __enter__(self) -> Self:
        for number in _NOTED:
            # Under nohup a SIGHUP stays ignored.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        self._fd_before = signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._read_end.close()
        self._write_end.close()

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read_end.fileno()

    def take(self) -> list[signal.Signals]:
        """The signals since the last call, oldest first."""
        with suppress(BlockingIOError):
            self._read_end.recv(4096)
        taken, self._noted = self._noted, []
        return [signal.Signals(number) for number in taken]

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)
