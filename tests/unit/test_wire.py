"""Frames and messages: what is written is read back, and nothing else is."""

from __future__ import annotations

import pytest
from samples import fill, order_event

from horizon import wire
from horizon.errors import DecodeError, WireError
from horizon.records import (
    FillConflict,
    OrderStatus,
    PositionRow,
    PositionSnapshot,
    Record,
    RiskEvent,
    RiskEventType,
    RunEnded,
    RunStarted,
    Side,
)

RECORDS: list[Record] = [
    fill(1),
    order_event(1, OrderStatus.PartiallyFilled),
    PositionSnapshot(1.5, (PositionRow("m", Side.Yes, "paper", None, "1", "0.5", "0", "0", "0"),)),
    RiskEvent(RiskEventType.Violation, "price 2.0 is above 0.99", 1.0),
    FillConflict(fill(2)),
    RunStarted("maker", "paper", 1.0, "{}", 12, 7),
    RunEnded(2.0),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_its_frame(record: Record) -> None:
    (frame,) = wire.read_frames(wire.frame_of(record, 9, 77), 77)
    assert frame.seq == 9
    assert wire.decode_record(frame.payload) == record


def test_a_frame_with_another_runs_salt_is_not_read() -> None:
    with pytest.raises(WireError, match="no intact frame at byte 0"):
        wire.read_frames(wire.frame_of(fill(), 1, 77), 78)


def test_a_record_larger_than_a_frame_is_refused() -> None:
    rows = tuple(PositionRow(f"market-{i}" * 20, Side.Yes, "paper", None, "1", "1", "1", "1", "1") for i in range(8000))
    with pytest.raises(WireError, match="larger than a frame may be"):
        wire.frame_of(PositionSnapshot(1.0, rows), 1, 0)


@pytest.mark.parametrize(
    "message",
    [
        wire.Hello(1, "maker", "run", 3),
        wire.Ship(5, b"abc"),
        wire.GiveUp("pid 4"),
        wire.Command("trip", "maker", "alice", "why", {"seq": "1"}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_run_says_is_understood(message: wire.FromRun) -> None:
    assert wire.decode_from_run(wire.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        wire.Welcome(1, "id", 3),
        wire.Refused("no"),
        wire.Wait("disk full"),
        wire.Ack(7, (3, 4), True),
        wire.Control("loss", "gap", 1.0),
        wire.Done("done"),
        wire.NotDone("no"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_the_writer_says_is_understood(message: wire.FromWriter) -> None:
    assert wire.decode_from_writer(wire.encode(message)) == message


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"hello", b"\xff" * 1000, wire.encode(wire.Ack(1))])
def test_garbage_is_an_error_that_keeps_the_bytes(garbage: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        wire.decode_from_run(garbage)
    assert raised.value.data == garbage


def test_a_decoded_record_is_checked_like_a_built_one() -> None:
    (frame,) = wire.read_frames(wire.frame_of(fill(), 1, 0), 0)
    import msgspec

    values = msgspec.msgpack.decode(frame.payload)
    values[6] = float("nan")
    with pytest.raises(DecodeError, match="price must be a finite number"):
        wire.decode_record(msgspec.msgpack.encode(values))
