"""What every thread of a process is doing, asked from outside: faulthandler in the process writes it into a file in memory that both share.

faulthandler answers the signal in C, so a process that holds Python's lock in an endless loop answers too. What it writes when the process
dies of a segmentation fault lands in the same file and is still there after the death.
"""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

SIGNAL = signal.SIGUSR2
_WITHIN_S = 2.0  # what is there then is all
_STILL_FOR_S = 0.05  # so long not grown: complete
_MAX_BYTES = 256 * 1024


class Dump:
    """The file in memory of one process, and at most one question at a time."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("horizon-dump", os.MFD_CLOEXEC)
        # The mark is the open file's, not the descriptor's: the process writes to the end too, also after a truncation.
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND)
        self._asked_at: float | None = None
        self._size = 0
        self._grown_at = 0.0

    @property
    def is_asked(self) -> bool:
        return self._asked_at is not None

    def ask(self, pid: int, now: float) -> bool:
        """Begin to ask; False when the process does not (yet, or any more) listen: the signal would kill it."""
        if self.is_asked:
            return True
        if not _catches(pid, SIGNAL):
            return False
        os.ftruncate(self.fd, 0)
        self._asked_at, self._size, self._grown_at = now, 0, now
        with suppress(ProcessLookupError):
            os.kill(pid, SIGNAL)
        return True

    def answer(self, now: float) -> str | None:
        """The text once it is complete, or what there is after two seconds; None before. Called every turn while it is asked."""
        assert self._asked_at is not None
        size = os.fstat(self.fd).st_size
        if size != self._size:
            self._size, self._grown_at = size, now
        if now - self._asked_at < _WITHIN_S and (not size or now - self._grown_at < _STILL_FOR_S):
            return None
        self._asked_at = None
        return self.take()

    def take(self) -> str:
        """What is in the file, which is empty then."""
        with suppress(OSError):
            text = os.pread(self.fd, _MAX_BYTES, 0).decode(errors="backslashreplace").strip("\n")
            os.ftruncate(self.fd, 0)
            return text
        return ""

    def close(self) -> None:
        os.close(self.fd)


def _catches(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = int(status.split("SigCgt:", 1)[1].split("\n", 1)[0], 16)
    return bool(caught >> (number - 1) & 1)
