"""Bring a database to the newest schema: one path for a fresh one, for one of the original, and for one of an older Horizon.

The schema of the page and every pending migration, each with its record, are one transaction: a killed writer leaves the old schema or
the new one. A database with rows in it is copied first, by SQLite's backup API, which keeps the row numbers that VACUUM INTO may change.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import apsw

from horizon.clock import Clock
from horizon.errors import StoreError
from horizon.store.sql import MIGRATIONS, QUERIES, SCHEMA
from horizon.store.translate import transaction

NEWEST_VERSION = MIGRATIONS[-1].version

_PAGE_TABLES = frozenset({"fills", "order_events", "position_snapshots", "risk_events", "strategy_runs"})
_log = logging.getLogger(__name__)


def migrate(connection: apsw.Connection, path: Path, clock: Clock) -> None:
    """Apply what is missing. Raises: StoreError for a newer schema and for a database that is not Horizon's."""
    version, fresh = check_schema(connection, path)
    if version == NEWEST_VERSION:
        return
    if not fresh:
        backup = _back_up(connection, path, clock)
        _log.warning(
            "%s is upgraded from schema version %d to %d; a copy of it is kept as %s",
            path, version, NEWEST_VERSION, backup,
            extra={"action": "upgrade", "backup": str(backup)},
        )  # fmt: skip
    with transaction(connection):
        if fresh:
            connection.execute(SCHEMA)
        for migration in MIGRATIONS[version:]:
            connection.execute(migration.script)
            record = {"version": migration.version, "name": migration.name, "applied_at": clock.now()}
            connection.execute(QUERIES["add_migration"], record)
        connection.pragma("user_version", NEWEST_VERSION)


def check_schema(connection: apsw.Connection, path: Path) -> tuple[int, bool]:
    """The schema version, and whether the database is still empty. 0 and not empty is a database of the original.

    Raises: StoreError.
    """
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    tables = {name for (name,) in connection.execute(QUERIES["table_names"])}
    if version > NEWEST_VERSION:
        raise StoreError(
            f"{path} has schema version {version} and this Horizon knows up to {NEWEST_VERSION}: use the newer Horizon that wrote it"
        )
    if tables and not tables >= _PAGE_TABLES:
        raise StoreError(
            f"{path} is an SQLite database but not one of Horizon (no table {min(_PAGE_TABLES - tables)}): name another file"
        )
    return version, not tables


def _back_up(connection: apsw.Connection, path: Path, clock: Clock) -> Path:
    """Copy the database beside itself; a copy that has its final name is complete."""
    moment = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
    final = path.with_name(f"{path.name}.before-upgrade-{moment}")
    partial = path.with_name(f"{path.name}.before-upgrade.partial")  # one name: what a killed or stalled try left is not kept
    partial.unlink(missing_ok=True)
    target = apsw.Connection(str(partial))
    try:
        with target.backup("main", connection, "main") as backup:
            backup.step()
    finally:
        target.close()
    partial.rename(final)
    return final
