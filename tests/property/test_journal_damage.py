"""Any truncation or bit flip of a journal loses only what it hit, and never invents a record."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from samples import fill

from horizon.journal import About, Journal, JournalReader
from horizon.wire import decode_record

ABOUT = About("database-id", "run-1", "maker", "process", 1)
DATA_AT = 4096
RECORDS = [fill(number, order_id="o" * (number % 50 + 1)) for number in range(1, 41)]


def _journal(folder: str) -> tuple[Path, int]:
    path = Path(folder) / "run-1.journal"
    journal = Journal(path, ABOUT, 2 << 20)
    for record in RECORDS:
        journal.append(record)
    head = journal.head
    journal.close()
    return path, head


def _read_all(path: Path) -> tuple[list[int], bool]:
    """Every seq that a reader which goes round damage gets, each compared with what was recorded."""
    reader = JournalReader(path)
    offset, expected, seqs, damaged = 0, 1, [], False
    while True:
        reading = reader.read(offset, expected, dead=True)
        for seq, payload in enumerate(reading.frames.payloads, expected):
            assert decode_record(payload) == RECORDS[seq - 1]
            seqs.append(seq)
        offset, expected = reading.next_offset, expected + len(reading.frames.payloads)
        if reading.damage is None:
            if not reading.frames.payloads:
                return seqs, damaged
            continue
        damaged = True
        place = reader.find(expected)
        if place is None:
            return seqs, damaged
        found = reader.first_seq(place)
        assert found is not None
        assert found >= expected
        offset, expected = place, found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_costs_one_record_at_most(data: st.DataObject) -> None:
    """R23."""
    with tempfile.TemporaryDirectory() as folder:
        path, head = _journal(folder)
        at = data.draw(st.integers(DATA_AT, DATA_AT + head - 1))
        bit = data.draw(st.integers(0, 7))
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))
        seqs, damaged = _read_all(path)
        assert damaged
        assert len(seqs) == len(RECORDS) - 1
        assert seqs == sorted(set(seqs))


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 6000))
def test_a_truncated_file_keeps_everything_before_the_cut(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, head = _journal(folder)
        cut = min(cut, head)
        with path.open("r+b") as file:
            file.truncate(DATA_AT + head - cut)
        seqs, _ = _read_all(path)
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= len(RECORDS) - 1 - cut // 60


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 5000), junk=st.binary(min_size=1, max_size=300))
def test_overwritten_bytes_never_become_records(at: int, junk: bytes) -> None:
    """R23."""
    with tempfile.TemporaryDirectory() as folder:
        path, head = _journal(folder)
        with path.open("r+b") as file:
            file.seek(DATA_AT + min(at, head - 1))
            file.write(junk)
        seqs, _ = _read_all(path)
        assert seqs == sorted(set(seqs))
        assert set(seqs) <= set(range(1, len(RECORDS) + 1))
