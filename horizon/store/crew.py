"""The processes that share a check: one for each piece of work, at the same time, so that the kernel deals out the processors.

They are spawned, not forked: a fork would inherit SQLite's connections and locks. A process that ends before its work is done is an
error of the whole check: what it would have found is unknown. They die with the process that started them.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import apsw

from horizon.errors import HorizonError, StoreError
from horizon.lifeline import die_with_parent
from horizon.store.connection import open_reader
from horizon.store.share import MMAP_BYTES, Seen, Share, look
from horizon.store.sql import CHECKS
from horizon.store.translate import translated


class Pages(NamedTuple):
    """SQLite's own check: of one table and its indexes, or else of all pages, and with `rows` of all tables and indexes too."""

    database: Path
    table: str | None
    rows: bool


def whole_check(connection: apsw.Connection, database: Path, processes: int) -> list[Pages]:
    """All that SQLite checks: in one piece, or in pieces for several processes, the longest first."""
    try:
        tables = [name for (name,) in connection.execute(CHECKS["indexed_tables"])] if processes > 2 else []
    except apsw.CorruptError:
        tables = []
    if not tables:
        return [Pages(database, None, rows=True)]
    return [*(Pages(database, table, rows=True) for table in tables), Pages(database, None, rows=False)]


Work = Pages | Share
Result = Seen | list[str] | HorizonError  # what was seen of rows; what is wrong with pages; why nothing was found
News = int | Result  # or how many more rows were read


class Crew:
    """A process for each piece of work; alone there is none, and the work is done by who asks for news."""

    def __init__(self, alone: bool) -> None:
        self._alone = alone
        self._work: list[Work] = []
        self._hands: dict[Connection, _Hand] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hand in self._hands.values():
            hand.end()

    def take(self, work: Iterable[Work]) -> None:
        """Work that is begun once somebody asks for news."""
        self._work += work

    def news(self) -> Iterator[News]:
        """Everything that is found, as it is found. Raises: StoreError."""
        if self._alone:
            for work in self._work:
                yield _do(work, None)
            return
        for work in self._work:
            hand = _Hand(work)
            self._hands[hand.pipe] = hand
        while self._hands:
            for pipe in wait(list(self._hands)):
                assert isinstance(pipe, Connection)
                news = self._hands[pipe].hear()
                if not isinstance(news, int):
                    self._hands.pop(pipe).end()
                yield news


class _Hand:
    """One process, and its work."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(work, theirs, os.getpid()), name="horizon check", daemon=True)
        self._process.start()
        theirs.close()

    def hear(self) -> News:
        try:
            news: Any = self.pipe.recv()
        except (EOFError, OSError):  # the latter when it ended in the middle of what it said
            self._process.join()
            code = self._process.exitcode
            why = "was it killed for want of memory?" if code == -signal.SIGKILL else "the lines above say why."
            raise StoreError(
                f"a process of the check has ended with {_ending(code)} before its work was done, so nothing can be said; {why} Check again"
            ) from None
        return news  # type: ignore[no-any-return]

    def end(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def wrong_pages(connection: apsw.Connection, table: str | None = None, *, rows: bool = True) -> list[str]:
    """What SQLite's own check says. Empty: nothing is wrong."""
    query = "check_table" if table else "check_all" if rows else "check_pages"
    try:
        lines = [str(line) for (line,) in connection.execute(CHECKS[query], {"table": table} if table else None)]
    except apsw.CorruptError as error:
        return [str(error)]
    return [line for line in lines if line != "ok"]


def _do(work: Work, tell: Callable[[int], None] | None) -> Result:
    try:
        if isinstance(work, Share):
            return look(work, tell)
        with closing(open_reader(work.database)) as connection, translated(work.database):
            connection.pragma("mmap_size", MMAP_BYTES)
            return wrong_pages(connection, work.table, rows=work.rows)
    except HorizonError as error:
        return error


def _work(work: Work, pipe: Connection, parent: int) -> None:
    """What a process of the crew does."""
    os.nice(19)  # trading goes first
    gc.disable()  # pages of rows come and go and hold no cycles; looking for them takes a tenth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who asked for the check ends us
    die_with_parent(signal.SIGKILL)
    if os.getppid() == parent:
        pipe.send(_do(work, pipe.send))


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
