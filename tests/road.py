"""A database with its writer, for tests of the road: real processes, real sockets, real files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import psutil
from eventually import eventually

from horizon.locks import is_free
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder

OpenRecorder = Callable[..., Recorder]


def writer_pid(paths: DatabasePaths) -> int | None:
    """The process that holds the writer's lock, None when nobody does."""
    if is_free(paths.writer_lock):
        return None
    hint = paths.writer_lock.read_text()
    return int(hint.split()[0].removeprefix("pid=")) if hint else None


def a_writer_runs(paths: DatabasePaths) -> int:
    return eventually(lambda: writer_pid(paths), what="a writer that holds its lock")


def kill_writer(paths: DatabasePaths, how: int = signal.SIGKILL) -> None:
    pid = writer_pid(paths)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        eventually(
            lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE,
            what="the end of the writer",
        )


def stop_writer(paths: DatabasePaths) -> None:
    kill_writer(paths, signal.SIGTERM)


def rows(paths: DatabasePaths, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
    """What a reader sees now."""
    connection = apsw.Connection(f"file:{paths.database}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    connection.set_busy_timeout(5000)
    try:
        return list(connection.execute(sql, bindings))
    finally:
        connection.close()


def dead_letters(paths: DatabasePaths) -> list[tuple[Any, ...]]:
    return rows(
        DatabasePaths(paths.dead_letters, paths.folder),
        "SELECT run_id, seq, kind, reason, payload FROM dead_letters ORDER BY run_id, seq",
    )


def start_writer(paths: DatabasePaths, *arguments: str) -> subprocess.Popen[bytes]:
    """A writer as a child of the test, so that its exit code can be seen."""
    return subprocess.Popen(
        [sys.executable, "-m", "horizon.writer", "--supervised", "--database", str(paths.database), *arguments],
        stderr=subprocess.PIPE,
    )


def script(name: str) -> str:
    return str(Path(__file__).parent / name)
