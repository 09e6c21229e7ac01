"""Read dlq.db beside its writer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from horizon.errors import StoreError
from horizon.store.connection import BUSY_TIMEOUT_MS
from horizon.store.sql import CHECKS, DEAD_LETTERS_STEPS
from horizon.store.translate import translated


def reader_of_letters(path: Path) -> apsw.Connection:
    """A read-only connection. Raises: StoreError, also while no writer has upgraded the file."""
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            version = connection.pragma("user_version")
            if version != len(DEAD_LETTERS_STEPS):
                raise StoreError(
                    f"{path} has schema version {version} and this Horizon reads {len(DEAD_LETTERS_STEPS)}: "
                    "start a strategy with this Horizon once, which upgrades it, or use the one that wrote it"
                )
        except BaseException:
            connection.close()
            raise
    return connection


def depths(path: Path) -> dict[str, int]:
    """How many dead letters nobody has decided about, by strategy. Raises: StoreError, StoreStalled."""
    if not path.exists():
        return {}
    with closing(reader_of_letters(path)) as connection, translated(path):
        return {str(strategy): int(depth or 0) for strategy, depth in connection.execute(CHECKS["letter_depths"])}
