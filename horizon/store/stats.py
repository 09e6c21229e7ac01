"""How large a database is and what it holds, in numbers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from horizon.paths import DatabasePaths
from horizon.store.connection import open_reader
from horizon.store.migrate import NEWEST_VERSION
from horizon.store.sql import CHECKS, MIGRATIONS, QUERIES
from horizon.store.translate import reading


class Stats(NamedTuple):
    """Sizes in bytes, times in Unix seconds."""

    database: str
    database_id: str | None  # None: a database of the original
    schema_version: int
    sqlite: str
    database_bytes: int
    wal_bytes: int
    free_bytes: int  # inside the file, used again before it grows
    dead_letters_bytes: int
    journals: int
    journal_bytes: int
    rows: dict[str, int]  # by table
    runs: dict[str, int]  # by status
    oldest_recorded_at: float | None
    newest_recorded_at: float | None


class Pending(NamedTuple):
    """What an upgrade would do."""

    database: str
    schema_version: int
    newest_version: int
    migrations: list[str]


def stats(paths: DatabasePaths) -> Stats:
    """Counts the rows of every table. Raises: StoreError."""
    with closing(open_reader(paths.database)) as connection, reading(connection):
        version: Any = connection.pragma("user_version")
        counts: Any = connection.execute(CHECKS["row_counts"]).fetchone()
        between: Any = connection.execute(CHECKS["recorded_between"]).fetchone()
        runs: Any = connection.execute(CHECKS["run_states" if version else "original_run_states"]).fetchall()
        free: Any = connection.pragma("freelist_count")
        page_bytes: Any = connection.pragma("page_size")
        database_id = connection.execute(QUERIES["meta"], {"key": "database_id"}).get if version else None
    journals = paths.journals()
    return Stats(
        database=str(paths.database),
        database_id=None if database_id is None else str(database_id),
        schema_version=version,
        sqlite=apsw.sqlite_lib_version(),
        database_bytes=_size(paths.database),
        wal_bytes=_size(paths.database.with_name(paths.database.name + "-wal")),
        free_bytes=free * page_bytes,
        dead_letters_bytes=_size(paths.dead_letters),
        journals=len(journals),
        journal_bytes=sum(_size(journal) for journal in journals),
        rows=dict(zip(_TABLES, counts, strict=True)),
        runs=dict(runs),
        oldest_recorded_at=min((at for at in between[:2] if at is not None), default=None),
        newest_recorded_at=max((at for at in between[2:] if at is not None), default=None),
    )


def pending(paths: DatabasePaths) -> Pending:
    """What a writer that opens this database would apply. Changes nothing. Raises: StoreError."""
    with closing(open_reader(paths.database)) as connection:
        version: Any = connection.pragma("user_version")
    names = [f"{migration.version:04d} {migration.name}" for migration in MIGRATIONS[version:]]
    return Pending(str(paths.database), version, NEWEST_VERSION, names)


_TABLES = ("fills", "order_events", "position_snapshots", "risk_events", "strategy_runs")


def _size(path: Path) -> int:
    """Never opens it (R11)."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
