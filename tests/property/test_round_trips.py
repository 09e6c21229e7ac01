"""What is recorded is what is read: by the wire, by a journal however it is trimmed, and by both in any portions."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from horizon import wire
from horizon.journal import About, Journal, JournalReader
from horizon.records import (
    FeeCurrency,
    Fill,
    FillConflict,
    OrderEvent,
    OrderSide,
    OrderStatus,
    OrderType,
    PositionRow,
    PositionSnapshot,
    Record,
    RiskEvent,
    RiskEventType,
    RunEnded,
    RunStarted,
    Side,
    TimeInForce,
)

ABOUT = About("database-id", "run-1", "maker", "process", 1)
CAPACITY = 2 << 20

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
maybe_texts = st.none() | texts
numbers = st.floats(-1e100, 1e100)
sizes = st.floats(1e-9, 1e100)
sides = st.sampled_from(Side)
order_sides = st.sampled_from(OrderSide)
fills = st.builds(
    Fill, texts, texts, texts, sides, order_sides, numbers, sizes, numbers, numbers, maybe_texts, texts, st.booleans(), numbers,
    st.sampled_from(FeeCurrency),
)  # fmt: skip
order_events = st.builds(
    OrderEvent, texts, texts, sides, order_sides, numbers, sizes, numbers, numbers, st.sampled_from(OrderType),
    st.sampled_from(TimeInForce), st.sampled_from(OrderStatus), maybe_texts, texts, numbers, numbers,
)  # fmt: skip
rows = st.builds(
    PositionRow, texts, sides, texts, maybe_texts, texts, texts, texts, texts, texts, numbers, st.none() | numbers
)  # fmt: skip
snapshots = st.builds(PositionSnapshot, numbers, st.lists(rows, max_size=5).map(tuple), st.none() | numbers, st.none() | numbers)
records: st.SearchStrategy[Record] = st.one_of(
    fills,
    order_events,
    snapshots,
    st.builds(RiskEvent, st.sampled_from(RiskEventType), maybe_texts, numbers),
    fills.map(FillConflict),
    st.builds(RunStarted, texts, texts, numbers, maybe_texts, st.integers(0, 1 << 31), st.integers(0, 1 << 62)),
    st.builds(RunEnded, numbers, texts),
)
FREELY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FREELY
@given(told=st.lists(records, min_size=1, max_size=20), salt=st.integers(0, (1 << 32) - 1))
def test_a_message_of_any_records_is_read_as_it_was_written(told: list[Record], salt: int) -> None:
    message = b"".join(wire.frame_of(record, seq, salt) for seq, record in enumerate(told, start=1))
    shipped = wire.decode_from_run(wire.encode(wire.Ship(0, message)))
    assert isinstance(shipped, wire.Ship)
    frames = wire.read_frames(shipped.frames, 1, salt)
    assert (frames.last_seq, frames.size) == (len(told), len(message))
    assert [wire.decode_record(payload) for payload in frames.payloads] == told
    # Together they are the same, but for the types of those that are nearly all.
    together = wire.decode_records(frames.payloads)
    assert [msgspec.structs.astuple(record) for record in together] == [msgspec.structs.astuple(record) for record in told]


@FREELY
@given(told=st.lists(records, min_size=1, max_size=60), data=st.data())
def test_a_journal_gives_back_everything_that_was_not_trimmed(told: list[Record], data: st.DataObject) -> None:
    """R23: whoever reads, from wherever, in whatever portions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run-1.journal"
        journal = Journal(path, ABOUT, CAPACITY)
        trimmed = 0
        for seq, record in enumerate(told, start=1):
            assert journal.append(record) == seq
            if data.draw(st.booleans()):
                trimmed = data.draw(st.integers(trimmed, seq))
                journal.trim(trimmed)
        with closing(JournalReader(path)) as reader:
            offset, expected, seen = reader.tail, trimmed + 1, []
            while expected <= len(told):
                reading = reader.read(offset, expected, dead=data.draw(st.booleans()), max_bytes=data.draw(st.integers(1, 5000)))
                assert (reading.damage, bool(reading.frames.payloads)) == (None, True)
                seen += reading.frames.payloads
                offset, expected = reading.next_offset, expected + len(reading.frames.payloads)
        journal.close()
    assert [wire.decode_record(payload) for payload in seen] == told[trimmed:]
