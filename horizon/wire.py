"""What crosses the socket between a run and the writer, and the bytes of a frame: one encoder, one version.

A frame is a record with its place in a run: crc32, length, seq, payload (little endian). The crc covers everything behind it and
is seeded with the random salt of the run's journal, so bytes of another file or another run never pass. The same bytes lie in
the journal and travel in a message: nothing is encoded twice. Records are decoded many at once, and those that are refused so one by one.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from horizon.errors import DecodeError, WireError
from horizon.records import Fill, FillConflict, OrderEvent, PositionSnapshot, Record, RiskEvent, RunEnded, RunStarted

T = TypeVar("T")

PROTOCOL = 1
FRAME_MAX_BYTES = 1 << 20  # payload of one frame
MESSAGE_MAX_BYTES = FRAME_MAX_BYTES + (1 << 16) + 4096  # one frame of the largest size on top of a full message
HEAD = struct.Struct("<IIQ")  # crc32, payload length, seq
_BEHIND_CRC = struct.Struct("<IQ")
_CRC_BYTES = HEAD.size - _BEHIND_CRC.size


class Frames(NamedTuple):
    """Consecutive records of one run, as bytes."""

    first_seq: int
    payloads: list[bytes]
    size: int  # bytes that the frames take, heads included

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.payloads) - 1


class Hello(msgspec.Struct, frozen=True, tag="hello", array_like=True):
    """A run asks to be let in. Answered by Welcome once every older journal of its strategy is drained, or by Refused."""

    protocol: int
    strategy: str
    run_id: str
    pid: int


class Ship(msgspec.Struct, frozen=True, tag="ship", array_like=True):
    """Frames exactly as they lie in the journal from byte `offset` on; without frames a question for the committed seq."""

    offset: int
    frames: bytes


class GiveUp(msgspec.Struct, frozen=True, tag="give_up", array_like=True):
    """A supervised writer asks a private one to leave its place."""

    asked_by: str


class Command(msgspec.Struct, frozen=True, tag="command", array_like=True):
    """A person asks for something, with a name and a reason. Answered by Done, NotDone, Wait or Refused; done once however often it
    is sent, because the socket's identity is its id.

    `action` is one of trip, clear (kill switch), hold, release, accept_gap (arguments: run_id), resolve_orphan (order_id, status),
    replay, dismiss (run_id, seq of a dead letter).
    """

    action: str
    strategy: str  # may be empty where the arguments say whose it is
    who: str
    reason: str
    arguments: dict[str, str] = {}
    protocol: int = PROTOCOL
    until: float | None = None  # the host's monotonic seconds; later nobody waits for it any more, and it is not begun


FromRun = Hello | Ship | GiveUp | Command


class Welcome(msgspec.Struct, frozen=True, tag="welcome", array_like=True):
    protocol: int
    database_id: str
    writer_pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """The writer will not serve this run; waiting does not help."""

    reason: str


class Wait(msgspec.Struct, frozen=True, tag="wait", array_like=True):
    """The writer is alive and cannot serve now; deadlines stand still meanwhile (R20)."""

    reason: str


class Ack(msgspec.Struct, frozen=True, tag="ack", array_like=True):
    """Everything up to `committed_seq` is committed: as a row, a duplicate, a gap or a dead letter (P3)."""

    committed_seq: int
    dead_letters: tuple[int, ...] = ()  # every seq of this run that became a dead letter so far
    recover: bool = False  # a snapshot was not stored because another run's fills came between (R2)


class Control(msgspec.Struct, frozen=True, tag="control", array_like=True):
    """What a strategy may do, as committed. Comes before every Welcome, and when it has changed.

    It comes before the ack of the records that it includes: once a run's own kill switch events are acknowledged, the newest
    Control is the truth; until then the run knows better.
    """

    kill_switch: str | None = None  # why trading is forbidden
    hold: str | None = None  # why the strategy may cancel but not order
    released_at: float | None = None  # when a person last released a hold; whatever a run held back by itself before is decided


class Done(msgspec.Struct, frozen=True, tag="done", array_like=True):
    """A command is committed; `text` says what it did."""

    text: str


class NotDone(msgspec.Struct, frozen=True, tag="not_done", array_like=True):
    """A command changed nothing, and `reason` says what a person can do instead."""

    reason: str


FromWriter = Welcome | Refused | Wait | Ack | Control | Done | NotDone


def _without_checks(record: type[Fill | OrderEvent]) -> type[msgspec.Struct]:
    """The same bytes and the same fields, as they are: a `__post_init__` costs more than all of the decoding."""
    fields = [(field.name, field.type) for field in msgspec.structs.fields(record)]
    tag = record.__struct_config__.tag
    return msgspec.defstruct(f"{record.__name__}Values", fields, array_like=True, frozen=True, gc=False, tag=tag)


FillValues = _without_checks(Fill)
OrderEventValues = _without_checks(OrderEvent)

_encoder = msgspec.msgpack.Encoder()
_record_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_records_decoder: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(
    list[FillValues | OrderEventValues | PositionSnapshot | RiskEvent | FillConflict | RunStarted | RunEnded]  # type: ignore[valid-type]
)
_ARRAY_HEAD = struct.Struct(">BI")  # of msgpack, for any length
_from_run_decoder: msgspec.msgpack.Decoder[FromRun] = msgspec.msgpack.Decoder(FromRun)
_from_writer_decoder: msgspec.msgpack.Decoder[FromWriter] = msgspec.msgpack.Decoder(FromWriter)


def encode(message: FromRun | FromWriter) -> bytes:
    return _encoder.encode(message)


def decode_from_run(data: bytes) -> FromRun:
    """Raises: DecodeError."""
    return _decode(_from_run_decoder, data)


def decode_from_writer(data: bytes) -> FromWriter:
    """Raises: DecodeError."""
    return _decode(_from_writer_decoder, data)


def decode_record(payload: bytes) -> Record:
    """Raises: DecodeError, also for numbers that a record refuses."""
    return _decode(_record_decoder, payload)


def decode_records(payloads: Sequence[bytes]) -> list[Any]:
    """Decode many records at once: fills and order events as FillValues and OrderEventValues, all others as they are.

    Raises: DecodeError when one of them is not a record or has a value that a record refuses; `decode_record` says which.
    """
    data = b"".join((_ARRAY_HEAD.pack(0xDD, len(payloads)), *payloads))
    records = _decode(_records_decoder, data)
    for record in records:
        # What `__post_init__` refuses, in one look. NaN and infinity survive any sum; `decode_record` has the last word.
        kind = type(record)
        if kind is OrderEventValues:
            total = record.price + record.filled_size + record.remaining_size + record.created_at
            has_ids = record.order_id and record.market_id
        elif kind is FillValues:
            total = record.price + record.fee + record.timestamp + record.multiplier
            has_ids = record.fill_id and record.order_id and record.market_id
        else:
            continue
        if not (has_ids and math.isfinite(total) and 0.0 < record.size < math.inf):
            raise DecodeError("a value that a record refuses", data)
    return records


def frame_of(record: Record, seq: int, salt: int) -> bytes:
    """Encode a record as a frame. Raises: WireError when the record is larger than a frame may be."""
    payload = _encoder.encode(record)
    size = len(payload)
    if size > FRAME_MAX_BYTES:
        raise WireError(f"a {type(record).__name__} of {size} bytes is larger than a frame may be ({FRAME_MAX_BYTES})")
    # In two steps: all that is behind the crc, as it lies there.
    crc = zlib.crc32(payload, zlib.crc32(_BEHIND_CRC.pack(size, seq), salt))
    return HEAD.pack(crc, size, seq) + payload


def read_frames(data: bytes, seq: int, salt: int) -> Frames:
    """The whole, intact frames at the start of `data`, the first of them with this seq and each next one with the next."""
    payloads: list[bytes] = []
    expected, position = seq, 0
    size, head, read_head, crc32 = len(data), HEAD.size, HEAD.unpack_from, zlib.crc32  # looked up once, not for every frame
    while position + head <= size:
        crc, length, found = read_head(data, position)
        payload_at = position + head
        end = payload_at + length
        if found != expected or not 0 < length <= FRAME_MAX_BYTES or end > size:
            break
        if crc32(data[position + _CRC_BYTES : end], salt) != crc:
            break
        payloads.append(data[payload_at:end])
        expected += 1
        position = end
    return Frames(seq, payloads, position)


def seq_of_frame(data: memoryview, position: int, salt: int) -> int | None:
    """The seq of the frame at a byte position, or None when what lies there is not a whole, intact frame."""
    if position + HEAD.size > len(data):
        return None
    crc, length, seq = HEAD.unpack_from(data, position)
    end = position + HEAD.size + length
    if not 0 < length <= FRAME_MAX_BYTES or end > len(data) or zlib.crc32(data[position + _CRC_BYTES : end], salt) != crc:
        return None
    return int(seq)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise DecodeError(str(error), data) from error
