"""What the supervisor tells systemd: ready, how it stands, that its loop turns, that it reloads, that it stops.

One datagram per message (sd_notify(3)), which never waits. What systemd does not take now is owed, and goes with the next message or turn
of the loop; of two messages of one kind only the newer one still matters. Without NOTIFY_SOCKET all of this does nothing.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
WATCHDOG_SIGNAL = signal.SIGURG
_EXTEND_EVERY_S = 1.0
_STATUS_MAX = 500  # characters; `systemctl status` shows one line


class Notifier:
    """The supervisor's line to systemd. Runs in: the loop. Never blocks, never raises."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """`address` as in NOTIFY_SOCKET, None: nobody listens. `watchdog_s`: how long systemd endures silence, None: for ever."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._alive_at = 0.0  # when systemd hears next that the loop turns (monotonic)
        self._extend_at = 0.0
        self._status = ""
        self._owed: dict[str, str] = {}  # by kind: what is not sent yet
        self._said_deaf = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        if self._socket:
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Takes the variables out of the environment: a child that inherited them could vouch for a supervisor that hangs."""
        address = environ.pop(SOCKET_VARIABLE, None)
        microseconds = environ.pop(WATCHDOG_VARIABLE, "")
        meant_for = environ.pop(WATCHDOG_PID_VARIABLE, str(os.getpid()))
        has_watchdog = microseconds.isdigit() and int(microseconds) > 0 and meant_for == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if has_watchdog else None)

    @property
    def is_heard(self) -> bool:
        """Whether systemd, or something like it, started this process and wants to know."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """At the end of the start, and of every reload."""
        self._status = status
        self._tell(state="READY=1", status=_status_line(status))

    def status(self, text: str) -> None:
        """May be called every turn: systemd hears of it when it is another than before."""
        if text != self._status:
            self._status = text
            self._tell(status=_status_line(text))

    def watchdog(self, now: float) -> None:
        """Call it every turn of the loop, and nowhere else: it is the loop's word that it turns. Sent at half the interval."""
        if self._watchdog_s is not None and now >= self._alive_at:
            self._alive_at = now + self._watchdog_s / 2
            self._owed["watchdog"] = "WATCHDOG=1"
        if self._owed:
            self._tell()

    def reloading(self) -> None:
        """Before a reload; `ready()` ends it, whether it went well or not."""
        self._tell(state=f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._tell(state="STOPPING=1")

    def extend(self, now: float, seconds: float) -> None:
        """Ask for `seconds` more from now on before a start or a stop counts as hung. May be called every turn: sent once a second."""
        if now >= self._extend_at:
            self._extend_at = now + _EXTEND_EVERY_S
            self._tell(extend=f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _tell(self, **assignments: str) -> None:
        if self._socket is None or self._address is None:
            return
        self._owed.update(assignments)
        try:
            self._socket.sendto("\n".join(self._owed.values()).encode(), self._address)
        except OSError as error:
            if not self._said_deaf:
                self._said_deaf = True
                log.warning(
                    "systemd does not listen on %r: %s; it is told again every turn", self._address, error.strerror or error
                )
        else:
            self._owed.clear()
            self._said_deaf = False


def end_when_hung() -> None:
    """Let systemd's watchdog end this process wherever it hangs, with its stacks on stderr. For the start of the program.

    The watchdog signals every process of the service, so its signal (WatchdogSignal= of the unit) is one that all others do not notice.
    Here its handler is abort() of the C library, for a process that hangs runs no handler of Python.
    """
    faulthandler.enable()
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(WATCHDOG_SIGNAL, ctypes.cast(libc.abort, ctypes.c_void_p))


def _status_line(text: str) -> str:
    """A line break in it would begin another assignment."""
    return "STATUS=" + " ".join(text.split())[:_STATUS_MAX]
