"""The only place that turns SQLite's errors into ours, and the one way to run a transaction.

Three outcomes: StoreStalled is worth another try, StoreRefused means these values, StoreError means a person has to act.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from horizon.errors import StoreError, StoreRefused, StoreStalled

# Python refuses integers beyond 64 bits and unpaired surrogates before SQLite sees them.
_REFUSED = (
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.RangeError,
    OverflowError,
    UnicodeEncodeError,
)
_STALLED = (
    apsw.FullError,
    apsw.IOError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ProtocolError,
    apsw.NoMemError,
    apsw.InterruptError,
    apsw.ConnectionClosedError,  # by a reopen that has not succeeded yet
)
_STALLED_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM, errno.EINTR})


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise our errors for what SQLite or the system says about the database at `path`."""
    try:
        yield
    except _REFUSED as error:
        raise StoreRefused(f"a value was refused: {error}") from error
    except apsw.FullError as error:
        raise StoreStalled(f"there is no room left on the disk of {path}; free some, everything goes on by itself") from error
    except _STALLED as error:
        raise StoreStalled(f"{path} cannot be read or written now ({error}); it is tried again") from error
    except apsw.CantOpenError as error:
        raise _cannot_open(path, error) from error
    except apsw.ReadOnlyError as error:
        raise StoreError(f"{path} may not be written: give this user write access to the file and its folder") from error
    except apsw.NotADBError as error:
        raise StoreError(f"{path} is not an SQLite database: name another file; this one was left as it is") from error
    except apsw.CorruptError as error:
        raise StoreError(
            f"{path} is damaged ({error}): copy it with its -wal file to a safe place, then restore a backup"
        ) from error
    except apsw.Error as error:
        raise StoreError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        kind = StoreStalled if error.errno in _STALLED_ERRNOS else StoreError
        raise kind(f"{error.filename or path} cannot be used: {error.strerror}") from error


@contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Commit what the block wrote, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself after some errors
            connection.execute("ROLLBACK")
        raise


@contextmanager
def savepoint(connection: apsw.Connection) -> Iterator[None]:
    """Undo what the block wrote when it raises, and nothing of what the transaction wrote before."""
    connection.execute("SAVEPOINT step")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO step")
            connection.execute("RELEASE step")
        raise
    connection.execute("RELEASE step")


@contextmanager
def reading(connection: apsw.Connection) -> Iterator[None]:
    """One unchanging view of the database for all queries of the block. Nothing slow belongs in it."""
    with translated(Path(connection.filename)):
        connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("COMMIT")


def _cannot_open(path: Path, error: apsw.Error) -> StoreError:
    """SQLite says the same for every reason: look for one that time cannot cure, else it is worth waiting."""
    folder = path.parent
    if path.is_dir():
        return StoreError(f"{path} is a folder: name a file in it, such as {path / 'horizon.db'}")
    if not folder.is_dir():
        return StoreError(f"the folder {folder} does not exist: make it, or correct the path of the database")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return StoreError(f"the folder {folder} may not be written: SQLite keeps files beside {path.name}")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        return StoreError(f"{path} may not be read and written by this user: change its owner or its permissions")
    return StoreStalled(f"{path} cannot be opened now ({error}); it is tried again")
