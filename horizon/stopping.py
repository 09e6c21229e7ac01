"""What tells a run to stop: signals, the supervisor, the supervisor's end. And what the run tells when it leaves."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from horizon.channel import Draining, Stop
from horizon.engine import Engine
from horizon.job import Assignment
from horizon.link import Readable

_LEAVING_S = 5.0  # beyond the deadline: then a process without a supervisor is ended


class Stopping:
    """What tells this run to stop: a signal, the supervisor, or the supervisor's end."""

    def __init__(self, assigned: Assignment, signals: Signals) -> None:
        self._channel = assigned.channel
        self._lifeline = assigned.lifeline
        self.deadline_s = assigned.stop_timeout_s
        self._signals = signals
        self._reason: str | None = None
        if self._lifeline is not None:
            self._lifeline.outlive()

    def stop_reason(self) -> str | None:
        if self._reason is None and self._signals.received is not None:
            self._reason = f"stopped by {signal.Signals(self._signals.received).name}"
        if self._reason is None and self._channel is not None:
            for message in self._channel.receive():
                if isinstance(message, Stop):
                    self._reason, self.deadline_s = "stopped by the supervisor", message.deadline_s
            if self._channel.closed:
                self._reason = "the supervisor is gone"
                if self._lifeline is not None:
                    self._lifeline.leave_within(self.deadline_s + _LEAVING_S)
        return self._reason

    def say_draining(self, unacked: int, journal: str) -> None:
        if self._channel is not None:
            self._channel.send(Draining(unacked, journal, self._signals.received or 0))

    def wait(self, engine: Engine, timeout_s: float) -> None:
        """Sleep as the engine does, but wake up for an order to stop."""
        readables: list[Readable] = [one for one in (self._channel, self._signals) if one is not None and one.fileno() >= 0]
        engine.wait(timeout_s, readables)
        self._signals.drain()


class Signals:
    """SIGINT and SIGTERM become a note and a readable descriptor, so that a sleep ends at once. A second Ctrl-C interrupts.

    A second SIGTERM does not: a service manager and the supervisor may both send one. Only in the main thread; elsewhere nobody can
    set handlers, and whoever runs the thread decides when it ends.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
            for end in self._pipe:
                os.close(end)
            self._pipe = None

    def fileno(self) -> int:
        """Readable from the first signal on; -1 outside the main thread."""
        return self._pipe[0] if self._pipe is not None else -1

    def drain(self) -> None:
        """Empty the descriptor: signals to helpers that the strategy forked arrive on it too."""
        if self._pipe is not None:
            with suppress(BlockingIOError):
                os.read(self._pipe[0], 4096)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A helper that the strategy forked: it must die of SIGTERM as it would without us.
            signal.signal(number, self._previous[number])
            os.kill(os.getpid(), number)
        elif self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.received = self.received or number
