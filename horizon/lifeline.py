"""What ends a process when its supervisor is gone, also one that never runs Python again.

The kernel signals a process when its parent dies. As long as there is nothing to drain, that is SIGTERM and ends it at once. Later it
has to cancel, drain and leave by itself, for which the end of its channel is the sign; a process that hangs does not see that, and in an
endless loop in C no handler of Python runs. So the handler of the kernel's signal is alarm() of the C library itself, which takes the
number that it is called with, the signal's, for seconds: so much later SIGALRM ends the process, whoever holds Python's lock.
alarm() is among the functions that a signal handler may call (signal-safety(7)). Rejected: a thread that watches, which needs that lock;
SIGKILL at once, which cancels nothing. While the supervisor lives nothing is armed, so it alone judges a worker that hangs.
A strategy that handles SIGALRM itself and hangs in C escapes this; its next run then waits for its lock and names the pid (R10).
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading

from horizon.errors import ExitCode

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
# Signals that mean nothing on Linux, by the seconds that they stand for.
_NUMBERS = (signal.SIGSTKFLT, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1))


class Lifeline:
    """For the main thread: the kernel's promise is made to the thread that asks."""

    def __init__(self, supervisor_pid: int, patience_s: float) -> None:
        """From here the process dies with its supervisor. `patience_s` is for later: how long it may be busy in one turn."""
        self._supervisor_pid = supervisor_pid
        # As exactly as there are numbers: 16, or 34 to 64 seconds.
        self._number = next((number for number in _NUMBERS if number >= patience_s), _NUMBERS[-1])
        die_with_parent(signal.SIGTERM)
        if not self._is_held:  # it died before the kernel was asked
            raise SystemExit(ExitCode.NOBODY)

    @property
    def _is_held(self) -> bool:
        return os.getppid() == self._supervisor_pid

    def outlive(self) -> None:
        """From here the process leaves by itself, by `leave_within`; when it has not come to that in its patience it is ended."""
        _set_handler(self._number, _ALARM)
        die_with_parent(self._number)
        if not self._is_held:
            os.kill(os.getpid(), self._number)

    def leave_within(self, timeout_s: float) -> None:
        """The supervisor is gone and the process knows it: end it when it has not left by then."""
        die_with_parent(0)
        # The channel ends a moment before the kernel's signal comes: that one must not set the alarm anew.
        _set_handler(self._number, _IGNORE)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(timeout_s))


def die_with_parent(number: int) -> None:
    """Get this signal when the parent ends, in whatever way: its thread, to be exact, that started this process."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans(wanted: bool = True) -> None:
    """Helpers whose own parent dies stay below this process, and at its death come to the next above that adopts them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def name_process(name: str) -> None:
    """What `ps` shows; the kernel keeps 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def _prctl(option: int, argument: int | ctypes.c_char_p) -> None:
    given = ctypes.c_ulong(argument) if isinstance(argument, int) else argument
    if _LIBC.prctl(option, given, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _set_handler(number: int, handler: ctypes.c_void_p) -> None:
    # Not the signal module: its handlers are Python's.
    _LIBC.signal(number, handler)


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
_LIBC.signal.restype = ctypes.c_void_p
_ALARM = ctypes.cast(_LIBC.alarm, ctypes.c_void_p)
_IGNORE = ctypes.c_void_p(int(signal.SIG_IGN))
