"""Single keys from a terminal, and the terminal as it was before, however the program ends."""

from __future__ import annotations

import os
import re
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NAMED = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
}
# An arrow is three bytes or more; whatever else a terminal sends that begins so is one key as well.
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b|[^\x1b]", re.DOTALL)


class Hangup(Exception):
    """The terminal is gone."""


def keys_of(data: bytes) -> list[str]:
    """What was pressed, by name; what has none is the text itself."""
    return [_NAMED.get(key, key.decode("utf-8", "replace")) for key in _KEY.findall(data)]


def read_keys(fd: int, timeout_s: float) -> list[str]:
    """What is pressed within the time; returns with the first. Raises: Hangup."""
    readable, _, _ = select.select([fd], [], [], timeout_s)
    if not readable:
        return []
    try:
        data = os.read(fd, 1024)
    except OSError as error:
        raise Hangup from error
    if not data:
        raise Hangup
    return keys_of(data)


@contextmanager
def single_keys(fd: int) -> Iterator[None]:
    """Keys without Enter and without an echo; Ctrl-C and Ctrl-Z are still signals."""
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield
    finally:
        # At once: a terminal that is stopped would be waited for.
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)
