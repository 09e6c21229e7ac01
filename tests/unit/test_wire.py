"""Frames and messages: what is written is read back, and nothing else is."""

from __future__ import annotations

import math
from typing import get_args

import msgspec
import pytest
from samples import fill, order_event

from horizon import wire
from horizon.errors import DecodeError, WireError
from horizon.records import (
    Fill,
    FillConflict,
    OrderEvent,
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
    data = wire.frame_of(record, 9, 77)
    frames = wire.read_frames(data, 9, 77)
    assert (frames.first_seq, frames.last_seq, frames.size) == (9, 9, len(data))
    assert [wire.decode_record(payload) for payload in frames.payloads] == [record]


def test_a_frame_with_another_runs_salt_is_not_read() -> None:
    data = wire.frame_of(fill(), 1, 77)
    assert wire.read_frames(data, 1, 78) == wire.Frames(1, [], 0)
    assert wire.seq_of_frame(memoryview(data), 0, 78) is None


def test_frames_are_read_as_far_as_they_are_whole_and_in_order() -> None:
    one, two, four = (wire.frame_of(fill(seq), seq, 77) for seq in (1, 2, 4))
    assert wire.read_frames(one + two + four, 1, 77).size == len(one + two)
    assert wire.read_frames(one + two[:-1], 1, 77).size == len(one)
    assert wire.read_frames(two, 1, 77).size == 0
    assert wire.seq_of_frame(memoryview(one + four), len(one), 77) == 4


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
    values = msgspec.msgpack.decode(msgspec.msgpack.encode(fill()))
    values[6] = float("nan")
    with pytest.raises(DecodeError, match="price must be a finite number"):
        wire.decode_record(msgspec.msgpack.encode(values))


def test_records_that_are_decoded_together_have_the_values_of_those_decoded_singly() -> None:
    assert {type(record) for record in RECORDS} == {*get_args(Record)}
    payloads = [msgspec.msgpack.encode(record) for record in RECORDS]
    for record, values in zip(RECORDS, wire.decode_records(payloads), strict=True):
        assert msgspec.structs.astuple(values) == msgspec.structs.astuple(record)


@pytest.mark.parametrize("record", [fill(1), order_event(1)], ids=lambda record: type(record).__name__)
def test_what_a_record_refuses_is_refused_among_many(record: Fill | OrderEvent) -> None:
    names = ["tag", *record.__struct_fields__]
    good = msgspec.msgpack.encode(record)
    numbers = [name for name in names[1:] if type(getattr(record, name)) is float and name != "recorded_at"]
    ids = [name for name in ("fill_id", "order_id", "market_id") if name in names]
    refused = [*((name, value) for name in numbers for value in (math.nan, math.inf, -math.inf)), *((name, "") for name in ids)]
    for name, bad in [*refused, ("size", 0.0), ("side", "up")]:
        values = msgspec.msgpack.decode(good)
        values[names.index(name)] = bad
        payload = msgspec.msgpack.encode(values)
        with pytest.raises(DecodeError):
            wire.decode_record(payload)
        with pytest.raises(DecodeError):
            wire.decode_records([good, payload, good])
