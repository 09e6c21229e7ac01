"""What crosses the socket between a run and the writer, and the bytes of a frame: one encoder, one decoder, one version.

A frame is a record with its place in a run: crc32, length, seq, payload (little endian). The crc covers everything behind it and
is seeded with the random salt of the run's journal, so bytes of another file or another run never pass. The same bytes lie in
the journal and travel in a message: nothing is encoded twice.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple, TypeVar

import msgspec

from horizon.errors import DecodeError, WireError
from horizon.records import Record

T = TypeVar("T")

PROTOCOL = 1
FRAME_MAX_BYTES = 1 << 20  # payload of one frame
MESSAGE_MAX_BYTES = FRAME_MAX_BYTES + (1 << 16) + 4096  # one frame of the largest size on top of a full message
HEAD = struct.Struct("<IIQ")  # crc32, payload length, seq
_BEHIND_CRC = struct.Struct("<IQ")
_CRC_BYTES = HEAD.size - _BEHIND_CRC.size


class Frame(NamedTuple):
    """One record of one run, as bytes."""

    seq: int
    payload: bytes


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

_encoder = msgspec.msgpack.Encoder()
_record_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
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


def frame_of(record: Record, seq: int, salt: int) -> bytes:
    """Encode a record as a frame. Raises: WireError when the record is larger than a frame may be."""
    payload = _encoder.encode(record)
    size = len(payload)
    if size > FRAME_MAX_BYTES:
        raise WireError(f"a {type(record).__name__} of {size} bytes is larger than a frame may be ({FRAME_MAX_BYTES})")
    # In two steps: all that is behind the crc, as it lies there.
    crc = zlib.crc32(payload, zlib.crc32(_BEHIND_CRC.pack(size, seq), salt))
    return HEAD.pack(crc, size, seq) + payload


def read_frame(data: memoryview, position: int, salt: int) -> Frame | None:
    """The frame at a byte position, or None when what lies there is not a whole, intact frame."""
    payload_at = position + HEAD.size
    if payload_at > len(data):
        return None
    crc, length, seq = HEAD.unpack_from(data, position)
    end = payload_at + length
    if length == 0 or length > FRAME_MAX_BYTES or end > len(data):
        return None
    if zlib.crc32(data[position + _CRC_BYTES : end], salt) != crc:
        return None
    return Frame(seq, bytes(data[payload_at:end]))


def read_frames(data: bytes, salt: int) -> list[Frame]:
    """All frames of a message. Raises: WireError when its bytes are not whole, intact frames one behind the other."""
    frames: list[Frame] = []
    position = 0
    with memoryview(data) as view:
        while position < len(view):
            frame = read_frame(view, position, salt)
            if frame is None:
                raise WireError(f"no intact frame at byte {position} of a message of {len(data)} bytes")
            frames.append(frame)
            position += HEAD.size + len(frame.payload)
    return frames


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise DecodeError(str(error), data) from error
