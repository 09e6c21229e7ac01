"""Readers never hold the writer back (R28), and no process opens a database's files beside SQLite (R11)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from eventually import eventually
from road import a_writer_runs, rows, script
from samples import fill, order_event

from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import RunStarted
from horizon.store import read
from horizon.store.connection import open_reader
from horizon.store.recovery import only_strategy, recover


@pytest.fixture
def recorder(database: DatabasePaths) -> Iterator[Recorder]:
    recorder = Recorder.open(database, "maker")
    recorder.record(RunStarted("maker", "paper", 1000.0))
    for number in range(1, 3001):
        recorder.record(fill(number))
    recorder.record(order_event(1))
    recorder.flush(10)
    yield recorder
    recorder.close()


def test_a_reader_that_holds_a_snapshot_holds_up_nobody(database: DatabasePaths, recorder: Recorder) -> None:
    """R28: it sees one unchanging past while thousands of records are committed and acknowledged beside it."""
    with closing(open_reader(database.database)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM fills").get == 3000
        for number in range(3001, 8001):
            recorder.record(fill(number))
        recorder.flush(10)
        assert reader.execute("SELECT count(*) FROM fills").get == 3000
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM fills").get == 8000
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]


def test_no_question_leaves_a_read_transaction_behind(database: DatabasePaths, recorder: Recorder) -> None:
    """R28: everything is fetched before it is returned, also when the caller keeps the connection."""
    with closing(open_reader(database.database)) as reader:
        answers = [
            read.fills(reader), read.fills(reader, market="btc-usd"), read.orders(reader), read.orders(reader, all_=True),
            read.positions(reader), read.runs(reader), read.summary(reader), read.volumes(reader),
            read.fill_by_id(reader, "fill-00000001"), recover(reader, "maker"), only_strategy(reader),
        ]  # fmt: skip
        assert all(answers)
        assert not reader.in_transaction
        assert everything_can_be_checkpointed(database)


def test_a_command_whose_output_nobody_reads_holds_no_read_transaction(database: DatabasePaths, recorder: Recorder) -> None:
    """R28: `horizon fills | less` may stay open for hours."""
    command = subprocess.Popen(
        [sys.executable, "-m", "horizon", "fills", "--db", str(database.database), "--all", "--json"],
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert command.stdout is not None
    assert command.stdout.read(1) == b"["
    assert everything_can_be_checkpointed(database)
    assert command.poll() is None, "it still waits to be read"
    assert len(json.loads(b"[" + command.communicate(timeout=30)[0])) == 3000


def everything_can_be_checkpointed(database: DatabasePaths) -> bool:
    """Whether no reader needs the WAL: then a checkpoint can start it anew. The writer idles meanwhile."""
    with closing(apsw.Connection(str(database.database))) as connection:
        connection.set_busy_timeout(2000)
        in_wal, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    return in_wal == moved


# ---- R11

# Notes every file that Python itself opens, in this process and in all that it starts; SQLite's own opening is not Python's.
WATCH = """
import os, sys
def note(event, arguments):
    if event in ("open", "os.open", "sqlite3.connect", "shutil.copyfile") and arguments:
        name = os.fspath(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
        name = os.fsdecode(name)
        if name.endswith((".db", ".db-wal", ".db-shm")):
            descriptor = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, f"{{event}} {{name}} in {{sys.orig_argv}}\\n".encode())
            os.close(descriptor)
sys.addaudithook(note)
"""

PROGRAM = """
import horizon as hz

def trade(ctx):
    return hz.quotes(0.5, 0.1, 1.0)

def run():
    hz.run(name="maker", markets=["m"], pipeline=[trade], db_path={database!r},
           feeds={{"m": hz.Simulated("probability", seed=1, paced=False, events=200)}})
run()
"""


def test_no_process_opens_the_files_of_a_database_beside_sqlite(database: DatabasePaths, tmp_path: Path) -> None:
    """R11: closing a second descriptor would drop SQLite's locks, and the next reader would delete the live WAL."""
    log = tmp_path / "opened"
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    tests = Path(script(""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(tests.parent)])}

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True, timeout=60)

    run("-c", f"open({str(tmp_path / 'canary.db')!r}, 'w').close()")
    assert "canary.db" in log.read_text(), "the watch works"
    log.unlink()
    # When a strategy runs twice on a database, with a writer that they start, and people look at it
    for _ in range(2):
        run("-c", textwrap.dedent(PROGRAM.format(database=str(database.database))))
    a_writer_runs(database)
    for command in ("fills", "positions", "orders", "runs", "summary"):
        run("-m", "horizon", command, "--db", str(database.database))
    eventually(lambda: not database.journals())
    # Then nobody but SQLite has opened the files
    assert not log.exists(), log.read_text()
    assert rows(database, "SELECT count(*) > 0 FROM order_events") == [(1,)]
