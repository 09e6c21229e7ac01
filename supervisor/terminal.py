"""The one thread that writes to the terminal: log entries above, the live table below, or plain lines where that is no terminal.

Nobody else writes: a terminal that is stopped (Ctrl-S) or a pipe that nobody reads blocks whoever writes to it, and the supervisor's loop
must never be that one.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from horizon.cli.live import StrategyRow, lines, table, wants_table
from horizon.logs import TextFormatter

WAITING_MAX = 1000  # log entries of workers; their receivers wait for room, and then the workers drop and count
LINES_EVERY_S = 5.0
_LOOK_EVERY_S = 0.2
_BATCH = 200
# What a venue's error text must not do to a terminal. Line feed and tab stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal:
    """`say` and `show` may be called by any thread; only `say` waits."""

    def __init__(self, plain: bool = False) -> None:
        self._screen: _Screen = _Lines() if plain or not wants_table(sys.stdout) else _Live()
        self._entries: SimpleQueue[tuple[str, bool]] = SimpleQueue()
        self._room = threading.Semaphore(WAITING_MAX)
        self._rows: Sequence[StrategyRow] = ()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log sink", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, entry: str) -> None:
        """A log entry of a worker: waits while the terminal does not keep up."""
        self._room.acquire()
        self._entries.put((entry, True))

    def handler(self) -> logging.Handler:
        """For the supervisor's own log: few entries, never waits."""
        return _OwnLog(self._entries)

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
            entries = self._take()
            if not broken:
                try:
                    self._screen.write(entries, self._rows)
                    if closing and not entries:
                        self._screen.close()
                except (OSError, ValueError):
                    broken = True  # the terminal is gone; the strategies trade on
            if closing and not entries:
                return

    def _take(self) -> list[str]:
        entries: list[str] = []
        with suppress(Empty):
            while len(entries) < _BATCH:
                entry, of_worker = self._entries.get(timeout=0 if entries or self._closing.is_set() else _LOOK_EVERY_S)
                entries.append(_CONTROL.sub("?", entry))
                if of_worker:
                    self._room.release()
        return entries


class _Screen(Protocol):
    def write(self, entries: Sequence[str], rows: Sequence[StrategyRow]) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """Entries to stderr, and every few seconds one line per strategy to stdout."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LINES_EVERY_S

    def write(self, entries: Sequence[str], rows: Sequence[StrategyRow]) -> None:
        for entry in entries:
            print(entry, file=sys.stderr)
        sys.stderr.flush()
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINES_EVERY_S
            for line in lines(rows):
                print(line)
            sys.stdout.flush()

    def close(self) -> None:
        pass


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


class _OwnLog(logging.Handler):
    def __init__(self, entries: SimpleQueue[tuple[str, bool]]) -> None:
        super().__init__()
        self._entries = entries
        self.setFormatter(TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._entries.put((self.format(record), False))
