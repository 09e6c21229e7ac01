"""The way out of every command that reads: lines for people, one JSON document for programs, and pipes that may close early."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

import msgspec

from horizon.cli.text import Column, table


def emit(text: str) -> bool:
    """Write text to stdout, at once. A reader that has gone (`| head`) has what it wanted: that is no error, and False."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _forget_stdout()
        return False
    except KeyboardInterrupt:
        _forget_stdout()
        raise
    return True


def emit_json(value: object) -> None:
    """One document; a float is the shortest text that gives it back."""
    emit(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def emit_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Rows under their titles; a pipe gets all of them whole, a narrow terminal what it has room for."""
    made = table(columns, rows, _terminal_width())
    emit("\n".join(made.lines))
    if made.left_out:
        remark(f"no room for {', '.join(made.left_out)}: widen the terminal, or say --json")


def remark(sentence: str) -> None:
    """Something for the person, beside the data: on stderr, so that a pipe gets the data alone."""
    print(sentence, file=sys.stderr)


def _forget_stdout() -> None:
    """What is still buffered must not meet a closed or a full pipe again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else None
