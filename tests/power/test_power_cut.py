"""Pull the plug of a machine on which two runs trade, start it again, and compare with what it said before.

`durability = "power"` promises that what is acknowledged is there; `"process"` promises less, and still that nothing is there twice and
that positions are those of the fills that are there. The two share one guest, one disk and one cut.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec
import pytest
from debian_guest import Guest, Said

from horizon.positions import Book
from horizon.records import Fill, OrderEvent, Position, Record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ACKNOWLEDGED = 400  # records of each run, before the plug is pulled
DURABILITIES = ("power", "process")
ROWS = {Fill: "fills", OrderEvent: "order_events"}

Place = tuple[str, int]  # run_id, seq


class Cut(NamedTuple):
    """What was said on the console before the plug was pulled, and what the next boot found."""

    before: Said
    after: Said

    def recorded(self, durability: str) -> dict[Place, Record]:
        """Of both runs, in the order recorded."""
        told = _of(self.before, durability, "recorded")
        return {(one["run_id"], one["seq"]): msgspec.convert(one["record"], Record) for one in told}

    def acknowledged(self, durability: str) -> dict[Place, Record]:
        """All of the run that ended in peace, and what the other heard before the cut."""
        recorded = self.recorded(durability)
        last, heard = self.run_id(durability), _heard(self.before, durability)
        return {place: record for place, record in recorded.items() if place[0] != last or place[1] <= heard}

    def run_id(self, durability: str) -> str:
        """Of the run that was cut off."""
        return list(self.recorded(durability))[-1][0]

    def found(self, durability: str, what: str) -> Said:
        return _of(self.after, durability, what)

    def rows(self, durability: str) -> dict[str, list[Place]]:
        """Where the rows of fills and order events come from, in commit order."""
        return {table: [(row["run_id"], row["seq"]) for row in self.found(durability, table)] for table in ROWS.values()}


@pytest.fixture(scope="module")
def cut(guest: Guest) -> Cut:
    before = guest.boot("trade", lambda said: all(_heard(said, one) >= ACKNOWLEDGED for one in DURABILITIES), timeout_s=600)
    after = guest.boot("look", lambda said: any(one["what"] == "finished" for one in said), timeout_s=600)
    return Cut(before, after)


def test_every_acknowledged_record_survives_a_power_cut(cut: Cut) -> None:
    stored = {table: {(row["run_id"], row["seq"]): row for row in cut.found("power", table)} for table in ROWS.values()}
    acknowledged = cut.acknowledged("power")
    assert len(acknowledged) > ACKNOWLEDGED
    for place, record in acknowledged.items():
        if isinstance(record, Fill | OrderEvent):
            row = stored[ROWS[type(record)]][place]
            assert (row["order_id"], row["price"], row["size"]) == (record.order_id, record.price, record.size)
    (cursor,) = (one for one in cut.found("power", "run_cursors") if one["run_id"] == cut.run_id("power"))
    assert cursor["committed_seq"] >= _heard(cut.before, "power")
    assert not cut.found("power", "run_gaps")


def test_a_run_that_a_power_cut_ended_is_seen_to_have_died(cut: Cut) -> None:
    (run,) = (one for one in cut.found("power", "strategy_runs") if one["run_id"] == cut.run_id("power"))
    assert run["status"] == "died"
    assert run["ended_at"] is not None


@pytest.mark.parametrize("durability", DURABILITIES)
def test_nothing_is_there_twice_after_a_power_cut_and_nothing_that_was_never_recorded(cut: Cut, durability: str) -> None:
    recorded = cut.recorded(durability)
    for table, places in cut.rows(durability).items():
        assert [place for place, count in Counter(places).items() if count > 1] == []
        assert all(ROWS[type(recorded[place])] == table for place in places)  # type: ignore[index]
    assert not cut.found(durability, "duplicates")


@pytest.mark.parametrize("durability", DURABILITIES)
def test_positions_after_a_power_cut_are_those_of_the_fills_that_are_there(cut: Cut, durability: str) -> None:
    recorded = cut.recorded(durability)
    book = Book()
    for place in cut.rows(durability)["fills"]:
        fill = recorded[place]
        assert isinstance(fill, Fill)
        book.apply(fill)
    (recovered,) = cut.found(durability, "positions")
    # The price that a position is valued at is no record: it is not compared.
    expected = [msgspec.structs.replace(one, unrealized_pnl=0.0) for one in book.all_positions()]
    assert expected
    assert [
        msgspec.structs.replace(one, unrealized_pnl=0.0) for one in msgspec.convert(recovered["positions"], list[Position])
    ] == expected


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_power_cut_leaves_a_sound_database(cut: Cut, durability: str) -> None:
    assert not cut.found(durability, "failed")
    assert [one["answer"] for one in cut.found(durability, "integrity")] == ["ok"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_what_a_power_cut_took_is_written_down_as_missing(cut: Cut, durability: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = cut.run_id(durability)
    recorded = {seq: record for (run, seq), record in cut.recorded(durability).items() if run == run_id}
    (cursor,) = (one["committed_seq"] for one in cut.found(durability, "run_cursors") if one["run_id"] == run_id)
    # Up to the run's cursor everything is a row, or in a range that is known to be missing.
    gaps = [gap for gap in cut.found(durability, "run_gaps") if gap["run_id"] == run_id]
    missing = {seq for gap in gaps for seq in range(gap["from_seq"], gap["to_seq"] + 1)}
    there = {seq for places in cut.rows(durability).values() for run, seq in places if run == run_id}
    others = {seq for seq, record in recorded.items() if type(record) not in ROWS}
    assert there | missing | others >= set(range(1, cursor + 1))
    assert not there & missing
    assert cursor <= max(recorded)
    with capsys.disabled():
        heard = _heard(cut.before, durability)
        print(f"\n{durability}: {max(recorded)} recorded, {heard} acknowledged, {cursor - len(missing)} there after the cut")


def _of(said: Said, durability: str, what: str) -> Said:
    return [one for one in said if (one["durability"], one["what"]) == (durability, what)]


def _heard(said: Said, durability: str) -> int:
    """How far the run that was cut off had heard that it is committed."""
    return max((one["seq"] for one in _of(said, durability, "acknowledged")), default=0)
