"""Open the databases. Only the writer process writes, checkpoints and migrates; everybody else opens read-only.

One connection writes, because a second one would only wait for it; when another one may checkpoint beside it, checkpoints.py says.
Whether a file is SQLite's at all is left to SQLite, which changes nothing in a file that is not: a look of our own would drop the
locks of a connection that this process has already (R11).
"""

from __future__ import annotations

from pathlib import Path

import apsw

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import ConfigError, StoreError
from horizon.store.migrate import check_schema, migrate
from horizon.store.place import refuse_unfit_place
from horizon.store.sql import QUERIES
from horizon.store.translate import transaction, translated

__all__ = ["check_durability", "connect", "open_reader", "open_writer", "set_durability", "translated"]

BUSY_TIMEOUT_MS = 5000

_SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}
# The pragmas of the persistence page, apart from journal_mode and from synchronous, which the durability decides.
_PRAGMAS = {"cache_size": -8000, "temp_store": "memory", "mmap_size": 268435456}


def open_writer(path: Path, durability: str, clock: Clock = SYSTEM_CLOCK) -> apsw.Connection:
    """The connection of the writer process; creates the database or upgrades it.

    Raises: StoreError with what a person has to do, StoreStalled for what time can cure (full disk, I/O error, locked).
    """
    check_durability(durability)
    with translated(path):
        refuse_unfit_place(path)
        connection = connect(path, durability)
        try:
            migrate(connection, path, clock)
            _restore_row_numbers(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A read-only connection, also to a database of the original. Raises: StoreError, StoreStalled."""
    if not path.exists():
        raise StoreError(f"there is no database at {path}")
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name the database in it")
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            _, empty = check_schema(connection, path)
            if empty:
                raise StoreError(f"{path} holds no tables yet: no strategy has run on it")
        except BaseException:
            connection.close()
            raise
    return connection


def connect(path: Path, durability: str) -> apsw.Connection:
    """A read-write connection with the page's pragmas, whatever the file holds. Raises what SQLite raises."""
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if connection.readonly("main"):  # SQLite quietly opens a file without write permission like this
            raise apsw.ReadOnlyError(f"{path} is read-only")
        if connection.pragma("journal_mode", "wal") != "wal":
            raise StoreError(f"{path} lies on a file system that cannot do write-ahead logging: put it on a local disk")
        for name, value in _PRAGMAS.items():
            connection.pragma(name, value)
        set_durability(connection, durability)
    except BaseException:
        connection.close()
        raise
    return connection


def set_durability(connection: apsw.Connection, durability: str) -> None:
    """`process`: commits survive the death of every process. `power`: a power cut too."""
    connection.pragma("synchronous", _SYNCHRONOUS[durability])


def check_durability(durability: str) -> None:
    """Raises: ConfigError."""
    if durability not in _SYNCHRONOUS:
        raise ConfigError(f"durability must be 'process' or 'power', got {durability!r}")


def _restore_row_numbers(connection: apsw.Connection) -> None:
    """Give the fills their place in the commit order back as rowid, which a dump and restore loses (R7)."""
    if connection.execute(QUERIES["is_renumbered"]).get:
        with transaction(connection):
            connection.execute(QUERIES["renumber_aside"])
            connection.execute(QUERIES["renumber_back"])
