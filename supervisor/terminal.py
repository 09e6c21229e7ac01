"""The one thread that writes to the terminal: log entries above, the live table below, or plain lines where that is no terminal.

Nobody else writes: a terminal that is stopped (Ctrl-S) or a pipe that nobody reads blocks whoever writes to it, and the supervisor's loop
must never be that one.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from horizon.cli.live import StrategyRow, lines, table, wants_table
from horizon.logs import as_json, as_text, entry_of, without_controls

WAITING_MAX = (
    4_000_000  # characters of entries that wait for a terminal which does not keep up; the rest stands in the files only
)
LINES_EVERY_S = 5.0
_LOOK_EVERY_S = 0.2
_BATCH = 200


class Terminal:
    """`say` and `show` may be called by any thread and never wait. What was not shown is counted, and said when there is room again."""

    def __init__(self, plain: bool = False, as_json: bool = False) -> None:
        self.as_json = as_json  # of the entries; then nothing else is written, so that a program can read the stream
        self._screen: _Screen = _Entries() if as_json else _Lines() if plain or not wants_table(sys.stdout) else _Live()
        self._changed = threading.Condition()
        self._entries: deque[str] = deque()
        self._waiting = 0  # characters
        self._not_shown = 0
        self._rows: Sequence[StrategyRow] = ()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, entry: str) -> None:
        with self._changed:
            if self._waiting >= WAITING_MAX:
                self._not_shown += 1
                return
            self._entries.append(entry)
            self._waiting += len(entry)
            self._changed.notify()

    def show(self, rows: Sequence[StrategyRow]) -> None:
        self._rows = rows

    def close(self, timeout_s: float) -> None:
        """Write what is there, and let go of the terminal; it may be one that never takes anything again."""
        self._closing.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        broken = False
        while True:
            closing = self._closing.is_set()
            entries = self._take(0.0 if closing else _LOOK_EVERY_S)
            if not broken:
                try:
                    self._screen.write(entries, self._rows)
                    if closing and not entries:
                        self._screen.close()
                except (OSError, ValueError):
                    broken = True  # the terminal is gone; the strategies trade on
            if closing and not entries:
                return

    def _take(self, timeout_s: float) -> list[str]:
        with self._changed:
            if not self._entries and timeout_s:
                self._changed.wait(timeout_s)
            entries = [self._entries.popleft() for _ in range(min(_BATCH, len(self._entries)))]
            self._waiting -= sum(map(len, entries))
            if self._not_shown and not self._entries:
                entries.append(self._say_what_was_not_shown())
        return [without_controls(entry) for entry in entries]

    def _say_what_was_not_shown(self) -> str:
        missing, self._not_shown = self._not_shown, 0
        sentence = f"{missing} entries were not shown here: the terminal did not keep up; `horizon logs` has them"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, sentence, None, None)
        return as_json(entry_of(record, "supervisor")) if self.as_json else as_text(entry_of(record, "supervisor"))


class _Screen(Protocol):
    def write(self, entries: Sequence[str], rows: Sequence[StrategyRow]) -> None: ...

    def close(self) -> None: ...


class _Entries:
    """Entries to stderr, and nothing else."""

    def write(self, entries: Sequence[str], rows: Sequence[StrategyRow]) -> None:  # noqa: ARG002
        for entry in entries:
            print(entry, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        pass


class _Lines(_Entries):
    """Entries to stderr, and every few seconds one line per strategy to stdout."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LINES_EVERY_S

    def write(self, entries: Sequence[str], rows: Sequence[StrategyRow]) -> None:
        super().write(entries, rows)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINES_EVERY_S
            for line in lines(rows):
                print(line)
            sys.stdout.flush()


class _Live:
    """The table at the bottom of the terminal, entries scrolling above it. A stderr that goes elsewhere gets the entries instead."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._rows: Sequence[StrategyRow] = ()

    def write(self, entries: Sequence[str], rows: Sequence[StrategyRow]) -> None:
        if entries and sys.stderr.isatty():
            self._console.print("\n".join(entries), soft_wrap=True)
        elif entries:
            print("\n".join(entries), file=sys.stderr, flush=True)
        if rows and rows != self._rows:
            self._live.start()
            self._live.update(table(rows), refresh=True)
            self._rows = rows

    def close(self) -> None:
        self._live.stop()
