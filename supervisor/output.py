"""What a process writes to its standard output and error past Python's: C libraries, the interpreter's last words, helpers.

One pipe per process, read in the loop's turns and never waited for; nor does it wake the loop: a flood is taken in portions, and a pipe
that is full makes the process's own write fail (its end is non-blocking) instead of stopping it.
"""

from __future__ import annotations

import os

from supervisor.log_channels import Lines

_PORTION_BYTES = 16 * 1024  # per turn of the loop and process
_PIPE_BYTES = 64 * 1024


class Output:
    """The reading end in the supervisor; `write_end` is handed to the process and then closed here."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lines = Lines()
        self.closed = False  # everybody who could write has ended

    def let_go(self) -> None:
        """After the start: with our copy closed, the death of the process is the end of the file."""
        os.close(self.write_end)

    def texts(self, at_most: int = _PORTION_BYTES) -> list[str]:
        """What is complete of what has come, and at most one portion of it."""
        if self.closed:
            return []
        try:
            data = os.read(self._read_end, at_most)
        except BlockingIOError:
            return []
        self.closed = not data
        return self._lines.feed(data)

    def last(self) -> list[str]:
        """All that is there, also what has no end."""
        return [*self.texts(_PIPE_BYTES), *self._lines.end()]

    def close(self) -> None:
        os.close(self._read_end)
