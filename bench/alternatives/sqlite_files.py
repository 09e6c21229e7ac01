"""N processes write SQLite themselves, one file for all or one each, every event in a transaction of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count as count_up
from pathlib import Path

import apsw

from bench.alternatives.page import FILL_COLUMNS, ORDER_EVENT_COLUMNS, connect, count, insert, make_tables, row
from bench.alternatives.way import Caller, Direct, Event, Service
from horizon.records import Fill


class Files:
    """The databases in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def count(self) -> int | None:
        return count(list(self._folder.glob("*.db")))

    def kill(self) -> bool:
        return False


@dataclass(frozen=True)
class SqliteFiles:
    """`begin`: how a transaction starts; empty: SQLite's own, one statement. `reads_first`: looks whether the event is known."""

    name: str
    begin: str = ""
    reads_first: bool = False
    own_files: bool = False
    paced: bool = True
    flooded: bool = True

    def missing(self) -> str | None:
        return None

    def made_of(self) -> str:
        return ""

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Service]:
        make_tables(folder / "0.db")
        yield Files(folder)

    def open(self, folder: Path, number: int) -> Caller:
        path = folder / f"{number if self.own_files else 0}.db"
        if not path.exists():
            make_tables(path)
        return _Caller(path, self)


class _Caller(Direct):
    def __init__(self, path: Path, way: SqliteFiles) -> None:
        self._connection = connect(path)
        self._begin = way.begin
        self._reads_first = way.reads_first

    def store(self, event: Event) -> None:
        for attempt in count_up():
            try:
                self._attempt(event)
                return
            except apsw.BusyError:
                self.errors += attempt == 0
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def _attempt(self, event: Event) -> None:
        execute = self._connection.execute
        if self._begin:
            execute(self._begin)
        if self._reads_first:
            known = _FILL_KNOWN if isinstance(event, Fill) else _ORDER_KNOWN
            execute(known, (event.fill_id if isinstance(event, Fill) else event.order_id,)).fetchone()
        execute(_INSERT_FILL if isinstance(event, Fill) else _INSERT_ORDER_EVENT, row(event))
        if self._begin:
            execute("COMMIT")


_INSERT_FILL = insert("fills", FILL_COLUMNS)
_INSERT_ORDER_EVENT = insert("order_events", ORDER_EVENT_COLUMNS)
_FILL_KNOWN = "SELECT 1 FROM fills WHERE fill_id = ?"
# Any row will do to take the read lock; the page has no index by order.
_ORDER_KNOWN = "SELECT order_id = ? FROM order_events ORDER BY id DESC LIMIT 1"
