"""PostgreSQL with its own defaults, on the page's tables: an INSERT with a commit of its own per event, or COPY of thousands."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.alternatives.page import FILL_COLUMNS, ORDER_EVENT_COLUMNS, TABLES, insert, row
from bench.alternatives.server import Server, find_program, unprivileged_user, version_of
from bench.alternatives.way import Caller, CannotServe, Direct, Event, Service, installed, missing_module
from horizon.records import Fill

_FOLDERS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
_BATCH = 1000


@dataclass(frozen=True)
class Postgres:
    name: str
    copies: bool = False  # collects events and copies them in batches
    paced: bool = True
    flooded: bool = True

    def missing(self) -> str | None:
        if find_program("postgres", *_FOLDERS) is None or find_program("initdb", *_FOLDERS) is None:
            return "postgres (Debian, Ubuntu: apt install postgresql; the benchmark starts its own)"
        return missing_module("psycopg")

    def made_of(self) -> str:
        return f"{version_of(find_program('postgres', *_FOLDERS))} with {installed('psycopg')}"

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Service]:
        user = unprivileged_user("postgres")
        # A socket's path may be 107 bytes long.
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as sockets:
            (folder / "address").write_text(f"host={sockets} user=bench dbname=postgres")
            data = folder / "postgres"
            data.mkdir()
            if user is not None:
                shutil.chown(sockets, user)
                shutil.chown(data, user)
                # PostgreSQL refuses to be root, and whom it runs as must reach its folder; these two are the benchmark's own.
                folder.chmod(0o711)
                folder.parent.chmod(0o711)
            _initdb(data, user)
            # Its shared memory as files: those go with the folder, whoever is killed.
            command = [str(find_program("postgres", *_FOLDERS)), "-D", str(data), "-k", sockets]
            command += ["-c", "listen_addresses=", "-c", "dynamic_shared_memory_type=mmap"]
            server = Server(command, folder / "postgres.log", user, lambda: _answers(folder))
            try:
                with _connected(folder) as connection:
                    connection.execute(_translated(TABLES))
                yield _Postgres(server, folder)
            finally:
                server.stop()

    def open(self, folder: Path, number: int) -> Caller:
        return _Copier(folder) if self.copies else _Inserter(folder)


class _Postgres:
    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder

    def count(self) -> int | None:
        with _connected(self._folder) as connection:
            found = connection.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)").fetchone()
            return int(found[0])

    def kill(self) -> bool:
        self._server.kill_and_restart()
        return True


class _Inserter(Direct):
    def __init__(self, folder: Path) -> None:
        self._connection = _connected(folder)

    def store(self, event: Event) -> None:
        statement = _INSERT_FILL if isinstance(event, Fill) else _INSERT_ORDER_EVENT
        self._connection.execute(statement, row(event), prepare=True)

    def close(self) -> None:
        self._connection.close()


class _Copier(Direct):
    """Returns when the event is in a list: what was collected since the last copy dies with the process."""

    def __init__(self, folder: Path) -> None:
        self._connection = _connected(folder)
        self._fills: list[tuple[Any, ...]] = []
        self._order_events: list[tuple[Any, ...]] = []

    def store(self, event: Event) -> None:
        (self._fills if isinstance(event, Fill) else self._order_events).append(row(event))
        if self.unacked >= _BATCH:
            self._copy()

    @property
    def unacked(self) -> int:  # type: ignore[override]
        return len(self._fills) + len(self._order_events)

    def settle(self) -> None:
        self._copy()

    def close(self) -> None:
        self._connection.close()

    def _copy(self) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            for statement, rows in ((_COPY_FILLS, self._fills), (_COPY_ORDER_EVENTS, self._order_events)):
                with cursor.copy(statement) as copy:
                    for one in rows:
                        copy.write_row(one)
        self._fills.clear()
        self._order_events.clear()


_INSERT_FILL = insert("fills", FILL_COLUMNS, "%s")
_INSERT_ORDER_EVENT = insert("order_events", ORDER_EVENT_COLUMNS, "%s")
_COPY_FILLS = f"COPY fills ({', '.join(FILL_COLUMNS)}) FROM STDIN"
_COPY_ORDER_EVENTS = f"COPY order_events ({', '.join(ORDER_EVENT_COLUMNS)}) FROM STDIN"


def _initdb(data: Path, user: str | None) -> None:
    command = [str(find_program("initdb", *_FOLDERS)), "-D", str(data), "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"]
    done = subprocess.run([*command, "--no-instructions"], capture_output=True, text=True, user=user, cwd="/")
    if done.returncode:
        raise CannotServe(f"initdb failed: {done.stderr.strip()[-300:]}")


def _translated(tables: str) -> str:
    return tables.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGSERIAL PRIMARY KEY").replace(" REAL", " DOUBLE PRECISION")


def _connected(folder: Path) -> Any:
    import psycopg

    return psycopg.connect((folder / "address").read_text(), autocommit=True)


def _answers(folder: Path) -> bool:
    import psycopg

    with suppress(psycopg.OperationalError):
        _connected(folder).close()
        return True
    return False
