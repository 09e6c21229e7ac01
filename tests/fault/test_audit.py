"""The audit of the kill tests notices what it is there to notice: a proof that cannot fail proves nothing."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from audit import assert_nothing_lost_nothing_twice
from besieged import STRATEGIES, Besieged

from horizon.paths import DatabasePaths

FILL = "(SELECT max(rowid) FROM fills WHERE market_id = 'alpha-told')"
SPOILED = {
    "lost a fill": f"DELETE FROM fills WHERE rowid = {FILL}",
    "lost an order event": "DELETE FROM order_events WHERE id = 9",
    "lost the tail of a run": "UPDATE run_cursors SET committed_seq = committed_seq - 1",
    "made a record up": "UPDATE run_cursors SET committed_seq = committed_seq + 1",
    "stored a fill twice": "INSERT INTO fills SELECT 'again', " + "{rest} FROM fills WHERE rowid = " + FILL,
    "stored an order event twice": "INSERT INTO order_events SELECT NULL, {event_rest} FROM order_events WHERE id = 9",
    "changed a price": f"UPDATE fills SET price = price + 1e-9 WHERE rowid = {FILL}",
    "changed a status": "UPDATE order_events SET status = 'rejected' WHERE id = 9",
    "swapped two order events": "UPDATE order_events SET id = CASE id WHEN 9 THEN -9 ELSE 0 END WHERE id = 9; "
    "UPDATE order_events SET id = 1000000 WHERE id = -9",
    "rounded a snapshot": "UPDATE position_snapshots SET exact_cost = exact_cost || '1' WHERE id = "
    "(SELECT max(id) FROM position_snapshots WHERE market_id = 'alpha-told')",
    "counted a duplicate": "INSERT INTO duplicates VALUES ('run', 1, 'fill')",
    "has a gap": "INSERT INTO run_gaps (run_id, from_seq, to_seq, reason, recorded_at) VALUES ('run', 1, 2, 'damaged', 0.0)",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system that traded and came to a clean end."""
    system = Besieged(tmp_path_factory.mktemp("ended"))
    try:
        system.start()
        system.trades()
        system.stop()
    finally:
        system.end()
    return system.folder


def test_a_system_that_nobody_killed_passes(ended: Path) -> None:
    assert assert_nothing_lost_nothing_twice(DatabasePaths.of(ended / "horizon.db"), *STRATEGIES) > 50


@pytest.mark.parametrize("claim", SPOILED)
def test_it_notices_a_database_that(claim: str, ended: Path, tmp_path: Path) -> None:
    Besieged(tmp_path, like=ended)
    connection = apsw.Connection(str(tmp_path / "horizon.db"))
    columns = [name for (_, name, *_) in connection.execute("PRAGMA table_info(fills)")]
    event_columns = [name for (_, name, *_) in connection.execute("PRAGMA table_info(order_events)")]
    connection.execute(SPOILED[claim].format(rest=", ".join(columns[1:]), event_rest=", ".join(event_columns[1:])))
    connection.close()
    with pytest.raises(AssertionError):
        assert_nothing_lost_nothing_twice(DatabasePaths.of(tmp_path / "horizon.db"), *STRATEGIES)
