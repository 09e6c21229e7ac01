"""One object, one commit, through an ORM: SQLAlchemy with a session for each event, as trading frameworks do, and peewee.

On the page's tables and pragmas, with Python's own sqlite3, which both use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.alternatives.page import FILL_COLUMNS, ORDER_EVENT_COLUMNS, PRAGMAS, make_tables, row
from bench.alternatives.sqlite_files import Files
from bench.alternatives.way import Caller, Direct, Event, Service, installed, missing_module
from horizon.records import Fill


@dataclass(frozen=True)
class SqlAlchemy:
    name: str
    own_files: bool = False
    paced: bool = True
    flooded: bool = True

    def missing(self) -> str | None:
        return missing_module("sqlalchemy")

    def made_of(self) -> str:
        return f"{installed('sqlalchemy')} and Python's sqlite3 with SQLite {sqlite3.sqlite_version}"

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Service]:
        make_tables(folder / "0.db")
        yield Files(folder)

    def open(self, folder: Path, number: int) -> Caller:
        return _SqlAlchemyCaller(_own_file(folder, number) if self.own_files else folder / "0.db")


class _SqlAlchemyCaller(Direct):
    def __init__(self, path: Path) -> None:
        from sqlalchemy import Column, Float, Integer, String, Table, create_engine, event
        from sqlalchemy.exc import OperationalError
        from sqlalchemy.orm import Session, registry

        self._locked: Any = OperationalError
        mapped = registry()

        def table(name: str, columns: list[str], key: Any) -> Any:
            kinds = {column: Float if column in _NUMBERS else String for column in columns}
            rest = [Column(column, kinds[column]) for column in columns if column != key.name]
            return Table(name, mapped.metadata, key, *rest)

        class FillRow:
            pass

        class OrderEventRow:
            pass

        mapped.map_imperatively(FillRow, table("fills", FILL_COLUMNS, Column("fill_id", String, primary_key=True)))
        order_events = table("order_events", ORDER_EVENT_COLUMNS, Column("id", Integer, primary_key=True))
        mapped.map_imperatively(OrderEventRow, order_events)
        self._open_session: Any = Session
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", lambda connection, _: _set_pragmas(connection))
        self._kinds: dict[type, tuple[type, list[str]]] = {
            Fill: (FillRow, FILL_COLUMNS),
        }
        self._other = (OrderEventRow, ORDER_EVENT_COLUMNS)

    def store(self, event: Event) -> None:
        kind, columns = self._kinds.get(type(event), self._other)
        for attempt in count():
            try:
                with self._open_session(self._engine) as session, session.begin():
                    session.add(kind(**dict(zip(columns, row(event), strict=True))))
                return
            except self._locked:
                self.errors += attempt == 0

    def close(self) -> None:
        self._engine.dispose()


@dataclass(frozen=True)
class Peewee:
    name: str
    paced: bool = True
    flooded: bool = True

    def missing(self) -> str | None:
        return missing_module("peewee")

    def made_of(self) -> str:
        return f"{installed('peewee')} and Python's sqlite3 with SQLite {sqlite3.sqlite_version}"

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Service]:
        make_tables(folder / "0.db")
        yield Files(folder)

    def open(self, folder: Path, number: int) -> Caller:
        return _PeeweeCaller(folder / "0.db")


class _PeeweeCaller(Direct):
    def __init__(self, path: Path) -> None:
        import peewee

        self._locked: Any = peewee.OperationalError
        database = peewee.SqliteDatabase(str(path), pragmas=PRAGMAS, timeout=5)
        model: Any = peewee.Model

        def made(table: str, columns: list[str], key: str | None) -> Any:
            fields: dict[str, Any] = {
                column: peewee.FloatField() if column in _NUMBERS else peewee.TextField(null=True, primary_key=column == key)
                for column in columns
            }
            return type(table, (model,), {**fields, "Meta": type("Meta", (), {"database": database, "table_name": table})})

        self._fills = made("fills", FILL_COLUMNS, "fill_id")
        self._order_events = made("order_events", ORDER_EVENT_COLUMNS, None)
        self._database = database

    def store(self, event: Event) -> None:
        is_fill = isinstance(event, Fill)
        kind, columns = (self._fills, FILL_COLUMNS) if is_fill else (self._order_events, ORDER_EVENT_COLUMNS)
        for attempt in count():
            try:
                kind.create(**dict(zip(columns, row(event), strict=True)))
                return
            except self._locked:
                self.errors += attempt == 0

    def close(self) -> None:
        self._database.close()


_NUMBERS = frozenset(
    ["price", "size", "fee", "timestamp", "inserted_at", "filled_size", "remaining_size", "created_at", "recorded_at"],
)


def _own_file(folder: Path, number: int) -> Path:
    path = folder / f"{number}.db"
    if not path.exists():
        make_tables(path)
    return path


def _set_pragmas(connection: Any) -> None:
    cursor = connection.cursor()
    for name, value in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()
