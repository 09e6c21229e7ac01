"""A dead letter is captured, and then the commit that passes its seq fails or its writer is killed: it stays one letter (R27)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from road import dead_letters, rows, script
from samples import fill
from store_case import fate_of_every_seq

from horizon.errors import DeadLettered
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import FillConflict

# In the writer, while a file lies there: every commit of the trading database fails, or the first one is its last moment.
CUT = """
import os, signal
import apsw

def watch(connection):
    def at_commit():
        if os.path.exists({armed!r}):
            if {kills}:
                os.unlink({armed!r})
                os.kill(os.getpid(), signal.SIGKILL)
            raise apsw.IOError("disk I/O error")
        return False
    if connection.filename.endswith("/trades.db"):
        connection.set_commit_hook(at_commit)

apsw.connection_hooks.append(watch)
"""


@pytest.fixture(params=["fails", "kills"])
def armed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that makes commits fail; it acts in every writer that this test starts."""
    armed = tmp_path / "armed"
    (tmp_path / "sitecustomize.py").write_text(CUT.format(armed=str(armed), kills=request.param == "kills"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(script("")).parent)]))
    yield armed
    armed.unlink(missing_ok=True)


def test_a_letter_whose_transaction_was_cut_off_stays_one_and_is_acknowledged_once(database: DatabasePaths, armed: Path) -> None:
    """R27: nothing is acknowledged before the seq is passed, and the repetition finds the letter."""
    recorder = Recorder.open(database, "maker")
    recorder.record(fill(1))
    recorder.flush(10)
    # When a conflict and a new fill are taken, and the commit does not come through
    armed.touch()
    recorder.begin_cycle()
    recorder.record(FillConflict(fill(1, price=9.0)))
    recorder.record(fill(2))
    recorder.ship()
    eventually(lambda: dead_letters(database), what="the captured letter")
    captured = dead_letters(database)
    if armed.exists():
        assert (recorder.committed_seq, rows(database, "SELECT count(*) FROM fills")) == (1, [(1,)])
        armed.unlink()
    # Then the repetition makes neither a second letter nor a row of it
    with pytest.raises(DeadLettered, match="1 of the flushed records"):
        recorder.flush(30)
    assert dead_letters(database) == captured
    assert fate_of_every_seq(database, recorder.run_id) == {1: ["fill"], 2: ["dead letter"], 3: ["fill"]}
    assert rows(database, "SELECT dead_letters, committed_seq FROM run_cursors") == [(1, 3)]
    recorder.close()
