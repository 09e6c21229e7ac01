"""The journal: what was appended is read back, in order, until it is trimmed; what does not fit is refused, never dropped."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from samples import fill

from horizon.errors import JournalCorrupt, JournalError, JournalFull
from horizon.journal import About, Journal, JournalReader
from horizon.wire import decode_record, read_frames

ABOUT = About("database-id", "run-1", "maker", "power", 1234)
CAPACITY = 2 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run-1.journal"


def test_a_reader_sees_every_frame_up_to_the_head(path: Path) -> None:
    journal = Journal(path, ABOUT, CAPACITY)
    records = [fill(number) for number in range(1, 101)]
    assert [journal.append(record) for record in records] == list(range(1, 101))
    reading = JournalReader(path).read(0, 1, dead=False)
    assert [decode_record(payload) for payload in reading.frames.payloads] == records
    assert reading.damage is None


def test_the_header_says_whose_journal_it_is(path: Path) -> None:
    Journal(path, ABOUT, CAPACITY)
    assert JournalReader(path).about == ABOUT


def test_the_file_is_readable_by_its_owner_only_and_has_no_holes(path: Path) -> None:
    """R22: a hole would be a SIGBUS on a full disk."""
    Journal(path, ABOUT, CAPACITY)
    status = path.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_blocks * 512 >= CAPACITY


def test_the_ring_is_used_again_and_again_without_losing_order(path: Path) -> None:
    journal = Journal(path, ABOUT, CAPACITY)
    reader = JournalReader(path)
    offset, expected, shipped, heard = 0, 1, 0, 0
    for number in range(1, 60_001):
        journal.append(fill(number, order_id="x" * (number % 300 + 1)))
        if number % 997 == 0:
            while shipped < journal.head:
                shipped, data = journal.since(shipped)
                frames = read_frames(data, heard + 1, journal.salt)
                assert frames.size == len(data)
                heard = frames.last_seq
                shipped += len(data)
            while frames_read := (reading := reader.read(offset, expected, dead=False)).frames.payloads:
                offset, expected = reading.next_offset, expected + len(frames_read)
            assert expected == number + 1
            journal.trim(number)
            journal.make_ready()
    assert journal.head > 3 * CAPACITY, "the ring went round several times"


def test_what_is_appended_next_takes_no_page_fault(path: Path) -> None:
    journal = Journal(path, ABOUT, CAPACITY)
    records = [fill(number, order_id="x" * 4000) for number in range(3)]  # about a page each
    faults = 0
    for _ in range(10):
        journal.make_ready()
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for record in records:
            journal.append(record)
        faults += resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
    assert faults < 10


def test_a_full_journal_refuses_and_keeps_what_it_has(path: Path) -> None:
    """R22."""
    journal = Journal(path, ABOUT, CAPACITY)
    while journal.head - journal.tail < CAPACITY - 400:
        journal.append(fill(1))
    with pytest.raises(JournalFull, match="has not acknowledged"):
        journal.append(fill(1, order_id="x" * 400))
    kept = journal.unacked
    assert journal.last_seq == kept
    journal.trim(kept // 2)
    assert journal.append(fill(kept + 1)) == kept + 1


def test_new_orders_are_refused_before_the_reserve_is_touched(path: Path) -> None:
    """R22."""
    journal = Journal(path, ABOUT, CAPACITY)
    number = 0
    while journal.has_room_for_orders():
        journal.append(fill(number := number + 1))
    assert 0.74 * CAPACITY < journal.head < 0.76 * CAPACITY
    journal.append(fill(number + 1))


def test_trimming_says_when_the_newest_forgotten_record_was_recorded(path: Path) -> None:
    journal = Journal(path, ABOUT, CAPACITY)
    assert journal.trim(0) is None
    journal.append(fill(1))
    assert journal.oldest_unacked is not None
    assert journal.trim(1) is not None
    assert journal.oldest_unacked is None


def test_a_dead_runs_journal_is_read_past_its_head(path: Path) -> None:
    """R23."""
    journal = Journal(path, ABOUT, CAPACITY)
    journal.append(fill(1))
    head_before = journal.head
    journal.append(fill(2))
    # The process died after the bytes of the second frame and before the head was published.
    journal._words[0] = head_before
    reader = JournalReader(path)
    assert len(reader.read(0, 1, dead=False).frames.payloads) == 1
    assert len(reader.read(0, 1, dead=True).frames.payloads) == 2


def test_bytes_of_an_older_lap_are_not_taken_for_new_frames(path: Path) -> None:
    """R23."""
    journal = Journal(path, ABOUT, CAPACITY)
    while journal.head < CAPACITY + CAPACITY // 2:
        journal.trim(journal.append(fill(1)))
    reading = JournalReader(path).read(journal.head, journal.last_seq + 1, dead=True)
    assert reading.frames.payloads == []
    assert reading.damage is None


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 8192, b"SQLite format 3\0" + b"\0" * 8192])
def test_a_file_that_is_no_journal_is_refused_with_its_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalCorrupt, match=r"run-1\.journal"):
        JournalReader(path)


def test_a_damaged_header_is_refused(path: Path) -> None:
    Journal(path, ABOUT, CAPACITY).close()
    with path.open("r+b") as file:
        file.seek(260)
        file.write(b"?")
    with pytest.raises(JournalCorrupt, match="header is damaged"):
        JournalReader(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises((JournalError, FileNotFoundError)):
        Journal(tmp_path / "missing" / "run-1.journal", ABOUT, CAPACITY)


def test_no_other_file_is_left_beside_the_journal(path: Path) -> None:
    Journal(path, ABOUT, CAPACITY)
    assert os.listdir(path.parent) == [path.name]
