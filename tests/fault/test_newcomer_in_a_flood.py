"""Who has just begun must be let in, and be acknowledged, while others record more than the writer can commit."""

from __future__ import annotations

import subprocess
import sys

import pytest
from eventually import eventually
from road import OpenRecorder, script
from samples import fill

from horizon.paths import DatabasePaths

FLOODS = 4


@pytest.mark.timeout(180)
def test_a_newcomer_is_served_while_others_record_more_than_the_writer_can_commit(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    floods = [
        subprocess.Popen(
            [sys.executable, script("flooding.py"), str(database.database), f"flood-{number}"], stdin=subprocess.PIPE
        )
        for number in range(FLOODS)
    ]
    try:
        eventually(lambda: len(database.journals()) == FLOODS, 30)
        newcomer = open_recorder(database, "newcomer", timeout_s=20.0)
        newcomer.record(fill(1))
        newcomer.flush(20.0)
        assert all(flood.poll() is None for flood in floods), "they recorded all the time"
    finally:
        for flood in floods:
            assert flood.stdin is not None
            flood.stdin.close()
        for flood in floods:
            flood.wait(30)
