"""A run's journal: what was recorded and is not yet acknowledged, in a file that outlives the process.

One file per run, preallocated and memory-mapped: an append is a copy into the page cache, with no system call, and survives kill -9
of anything. The data part is a ring. Positions in it are absolute byte offsets that only rise; `head` and `tail` are published
as single 8-byte stores after the bytes they cover. Frames never straddle the end of the ring. The worker appends and trims; the
writer only reads, always at or behind the tail, so the two never touch the same bytes at once.

Rejected: a ring in /dev/shm (a reboot or a container restart takes it with it), and continuing an old journal (each incarnation
has its own run and file, so no two processes ever disagree about a seq: R23).
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import time
import zlib
from collections import deque
from pathlib import Path
from typing import NamedTuple

import msgspec

from horizon.errors import JournalCorrupt, JournalError, JournalFull, is_disk_full
from horizon.failpoints import ACTIVE, reach
from horizon.ids import strategy_lock_name
from horizon.paths import sync_folder
from horizon.records import Fill, Record
from horizon.wire import FRAME_MAX_BYTES, HEAD, Frames, frame_of, read_frames, seq_of_frame

DEFAULT_BYTES = 16 << 20
_MAGIC = b"HZJRNL01"
_DATA_AT = 4096
_ABOUT_AT = 256
_FIXED = struct.Struct("<8sQII")  # magic, capacity of the ring, salt, length of the description
_ABOUT_CRC_AT = _FIXED.size
_WORDS_AT = 64
_HEAD, _HEAD_SEQ, _TAIL = range(3)  # the published words, 8 bytes each
_WRAP = 0xFFFFFFFF  # a length that says: the next frame is at the start of the ring
_READY_BYTES = 16 << 10  # some 100 records, more than a cycle makes: what lies ready too long is written to disk meanwhile
_ORDERS_UP_TO = 0.75  # share of the ring that new orders may use; the rest is the reserve of everything else (R22)


class About(msgspec.Struct, frozen=True):
    """Whose journal this is, as its header says."""

    database_id: str
    run_id: str
    strategy: str
    durability: str
    pid: int


# One unacknowledged frame: where it ends, when it was recorded (monotonic seconds), and whether it is a fill. Not named: that costs
# 0.3 us a record, and what holds nothing but numbers is left alone by the garbage collector.
Unacked = tuple[int, float, bool]


class Journal:
    """The worker's side: append, ship from, trim."""

    def __init__(self, path: Path, about: About, capacity: int = DEFAULT_BYTES) -> None:
        """Make a new journal. Raises: JournalError; OSError with ENOSPC or EDQUOT when there is no room for the file."""
        if capacity < 2 * FRAME_MAX_BYTES:
            raise JournalError(f"a journal needs at least {2 * FRAME_MAX_BYTES} bytes, got {capacity}")
        self.path = path
        self.salt = int.from_bytes(os.urandom(4), "little")
        self.capacity = capacity
        self._map = _make_file(path, about, capacity, self.salt)
        self._view = memoryview(self._map)
        self._words = self._view[_WORDS_AT : _WORDS_AT + 24].cast("Q")
        self._unacked: deque[Unacked] = deque()
        self._orders_up_to = int(capacity * _ORDERS_UP_TO)
        self.head = 0
        self.tail = 0
        self.last_seq = 0
        # The one place between tail and head where the bytes are not contiguous: the end of the ring.
        self._lap_end = 0
        self._lap_start = 0
        self._ready_up_to = 0
        self.make_ready()

    @property
    def acked_seq(self) -> int:
        return self.last_seq - len(self._unacked)

    @property
    def unacked(self) -> int:
        return len(self._unacked)

    @property
    def oldest_unacked(self) -> float | None:
        """Monotonic seconds at which the oldest unacknowledged record was recorded."""
        return self._unacked[0][1] if self._unacked else None

    def has_room_for_orders(self) -> bool:
        return self.head - self.tail < self._orders_up_to

    def append(self, record: Record) -> int:
        """Append a record as the run's next frame and return its seq; it survives the death of any process from here.

        Raises: JournalFull when even the reserve is used up; WireError when the record is too large. Neither appends anything.
        """
        seq = self.last_seq + 1
        frame = frame_of(record, seq, self.salt)
        length = len(frame)
        head = self.head
        at = head % self.capacity
        skipped = self.capacity - at if at + length > self.capacity else 0
        end = head + skipped + length
        if end - self.tail > self.capacity:
            raise JournalFull(
                f"{self.path}: all {self.capacity} bytes hold records that the writer has not acknowledged ({self.unacked} of them)"
            )
        if skipped:
            if skipped >= HEAD.size:
                HEAD.pack_into(self._view, _DATA_AT + at, 0, _WRAP, seq)
            self._lap_end, self._lap_start = head, head + skipped
            at = 0
        start = _DATA_AT + at
        self._view[start : start + length] = frame
        if ACTIVE:
            reach("worker.appending")
        self.head = end
        # The bytes first, the head next, its seq last: no reader sees a seq whose frame lies behind the head.
        self._words[_HEAD] = end
        self._words[_HEAD_SEQ] = seq
        self.last_seq = seq
        self._unacked.append((end, time.monotonic(), type(record) is Fill))
        return seq

    def make_ready(self) -> None:
        """Take the page faults of what is appended next, at a moment when nobody waits.

        Each costs as much as three appends, comes with the first write to a page, and again when the kernel has written it to disk.
        Rejected: MAP_POPULATE, which makes the pages of a shared file readable only.
        """
        place = max(self._ready_up_to, self.head)
        until = min(self.head + _READY_BYTES, self.tail + self.capacity)
        while place < until:
            at = _DATA_AT + place % self.capacity
            self._view[at] = self._view[at]
            place += mmap.PAGESIZE
        self._ready_up_to = place

    def since(self, offset: int) -> tuple[int, bytes]:
        """The contiguous frames from an offset on, up to the head or the end of the ring: (where they start, their bytes)."""
        if offset < self._lap_end:
            end = self._lap_end
        else:
            offset, end = max(offset, self._lap_start), self.head
        at = _DATA_AT + offset % self.capacity
        return offset, bytes(self._view[at : at + end - offset])

    def holds_fill(self, seq: int) -> bool:
        """Whether an unacknowledged frame is a fill; False when it is trimmed already."""
        index = seq - self.acked_seq - 1
        return 0 <= index < len(self._unacked) and self._unacked[index][2]

    def trim(self, seq: int) -> float | None:
        """Forget everything up to `seq`. Returns when the newest record forgotten was recorded, None if none was."""
        recorded_at = None
        for _ in range(seq - self.acked_seq):
            self.tail, recorded_at, _ = self._unacked.popleft()
        if recorded_at is not None:
            self._words[_TAIL] = self.tail
        return recorded_at

    def close(self) -> None:
        """Unmap. The file stays: the writer removes it once it has drained it."""
        self._words.release()
        self._view.release()
        self._map.close()


class Reading(NamedTuple):
    """What one look into a journal brought: frames without a break, perhaps none. `damage` says what stopped it short of the head."""

    frames: Frames
    next_offset: int
    damage: str | None = None


class JournalReader:
    """The writer's side of a journal, live or left behind by a dead run."""

    def __init__(self, path: Path) -> None:
        """Raises: JournalCorrupt when the header is not one of ours; FileNotFoundError."""
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _DATA_AT:
                raise JournalCorrupt(f"{path}: {size} bytes are too short for a journal")
            self._map = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        self._view = memoryview(self._map)
        self._words = self._view[_WORDS_AT : _WORDS_AT + 24].cast("Q")
        try:
            self.about, self.capacity, self.salt = _read_header(path, self._view)
        except JournalCorrupt:
            self.close()
            raise
        self._data = self._view[_DATA_AT : _DATA_AT + self.capacity]

    @property
    def head(self) -> int:
        return int(self._words[_HEAD])

    @property
    def head_seq(self) -> int:
        return int(self._words[_HEAD_SEQ])

    @property
    def tail(self) -> int:
        return int(self._words[_TAIL])

    def read(self, offset: int, expected: int, *, dead: bool, max_bytes: int = 1 << 20) -> Reading:
        """Frames from `offset` on, the first of them with seq `expected`.

        In a live journal the head is the limit. In a dead run's journal reading goes past the head as long as frames fit: the
        process may have died between the bytes and the head (R23). Short of the head a frame that does not fit is damage.
        """
        head = self.head
        payloads: list[bytes] = []
        size = 0
        while (offset < head or dead) and size < max_bytes:
            place = self._next_place(offset)
            found = read_frames(self._bytes_at(place, head, max_bytes - size, dead=dead), expected + len(payloads), self.salt)
            if not found.payloads:
                damage = None if place >= head else self._what_lies_at(place, found.first_seq)
                return Reading(Frames(expected, payloads, size), offset, damage)
            payloads += found.payloads
            size += found.size
            offset = place + found.size
        return Reading(Frames(expected, payloads, size), offset)

    def find(self, seq: int) -> int | None:
        """The offset of the first intact frame with this seq or a later one that is not yet trimmed, in whatever order it lies.

        Looks at every byte: for the start behind a tail that is not to be trusted, and for what follows damage.
        """
        best: tuple[int, int] | None = None
        for match in _FRAME_LOOKALIKE.finditer(self._data):
            found = HEAD.unpack_from(self._data, match.start())[2]
            # Compared first: the checksums of a whole journal take seconds, in which the writer serves nobody.
            is_better = found >= seq and (best is None or found < best[0])
            if is_better and seq_of_frame(self._data, match.start(), self.salt) is not None:
                best = found, match.start()
                if found == seq:
                    break
        if best is None:
            return None
        place = best[1]
        offset = self.head - ((self.head - 1 - place) % self.capacity + 1)
        return offset if offset >= 0 else place

    def first_seq(self, offset: int) -> int | None:
        """The seq of the intact frame at an offset, or None."""
        return seq_of_frame(self._data, self._next_place(offset) % self.capacity, self.salt)

    def close(self) -> None:
        if hasattr(self, "_data"):
            self._data.release()
        self._words.release()
        self._view.release()
        self._map.close()

    def _bytes_at(self, place: int, head: int, max_bytes: int, *, dead: bool) -> bytes:
        """A copy of what may be read in one piece from `place` on: at least a whole frame, if one lies there."""
        at = place % self.capacity
        if at + HEAD.size > len(self._data):
            return b""
        length = HEAD.unpack_from(self._data, at)[1]
        size = max(max_bytes, HEAD.size + min(length, FRAME_MAX_BYTES))
        return bytes(self._data[at : at + (size if dead else min(size, max(0, head - place)))])

    def _what_lies_at(self, place: int, expected: int) -> str:
        seq = seq_of_frame(self._data, place % self.capacity, self.salt)
        return f"expected seq {expected} at byte {place}, found {'nothing intact' if seq is None else f'seq {seq}'}"

    def _next_place(self, offset: int) -> int:
        """Where the frame at an offset really lies: past the end of the ring when it did not fit there."""
        at = offset % self.capacity
        to_end = self.capacity - at
        if to_end < HEAD.size:
            return offset + to_end
        if at + HEAD.size <= len(self._data) and HEAD.unpack_from(self._data, at)[1] == _WRAP:
            return offset + to_end
        return offset


# Not zeros: a crc, a length of at most 1 MiB, a seq below 2**40. The look-ahead finds overlapping candidates too.
_FRAME_LOOKALIKE = re.compile(rb"(?!\x00{8})(?=.{4}.{2}[\x00-\x10]\x00.{5}\x00\x00\x00)", re.DOTALL)


def _make_file(path: Path, about: About, capacity: int, salt: int) -> mmap.mmap:
    """Write a whole, zeroed file under a temporary name, then rename it: no reader ever sees half a header (R22).

    The name is the strategy's, whose lock the run holds: what a killed run left half made, the next one makes anew.
    """
    header = _header(about, capacity, salt)
    temporary = path.with_name(f".{strategy_lock_name(about.strategy)}.journal.new")
    size = _DATA_AT + capacity
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        # A sparse file on a full disk is a SIGBUS at the first touch; reserved and written blocks are not.
        os.posix_fallocate(fd, 0, size)
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            os.pwrite(fd, zeros[: size - start], start)
        os.pwrite(fd, header, 0)
        if about.durability == "power":
            os.fsync(fd)  # a power cut must leave a file that says whose it was: else nobody ever ends that run
        mapping = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        # A child of a fork must not write here, not even by mistake (R24).
        mapping.madvise(mmap.MADV_DONTFORK)
        if ACTIVE:
            reach("worker.journal_unnamed")
        temporary.rename(path)
        if about.durability == "power":
            sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise
        raise JournalError(f"{path}: the journal cannot be made: {error.strerror}") from error
    finally:
        os.close(fd)
    return mapping


def _header(about: About, capacity: int, salt: int) -> bytes:
    described = msgspec.msgpack.encode(about)
    if len(described) > _DATA_AT - _ABOUT_AT:
        raise JournalError(f"the strategy name is too long for a journal's header: {about.strategy[:80]!r}…")
    header = bytearray(_DATA_AT)
    _FIXED.pack_into(header, 0, _MAGIC, capacity, salt, len(described))
    header[_ABOUT_AT : _ABOUT_AT + len(described)] = described
    struct.pack_into("<I", header, _ABOUT_CRC_AT, zlib.crc32(described, zlib.crc32(header[: _FIXED.size])))
    return bytes(header)


def _read_header(path: Path, view: memoryview) -> tuple[About, int, int]:
    magic, capacity, salt, length = _FIXED.unpack_from(view, 0)
    if magic != _MAGIC:
        raise JournalCorrupt(f"{path}: not a journal of this version (it starts with {bytes(view[:8])!r})")
    (crc,) = struct.unpack_from("<I", view, _ABOUT_CRC_AT)
    described = bytes(view[_ABOUT_AT : _ABOUT_AT + length]) if length <= _DATA_AT - _ABOUT_AT else b""
    if zlib.crc32(described, zlib.crc32(view[: _FIXED.size])) != crc:
        raise JournalCorrupt(f"{path}: the header is damaged")
    return msgspec.msgpack.decode(described, type=About), capacity, salt
