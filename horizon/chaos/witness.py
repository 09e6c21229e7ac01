"""The independent log: one line before and one after each `record()`, and what the victim holds after each cycle.

Every line is one `os.write` to a file, so it lies outside the victim's memory before the victim goes on, and survives its kill. One file
a run, named like it. Lines begin with a letter: `r` whose run this is, `b` before a record (its JSON), `a` after it (its seq), `x` instead
when `record` refused it, `s` the positions (the newest seq, then JSON). A last line without an end was cut by the kill and does not count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import wraps
from pathlib import Path
from typing import NamedTuple

import msgspec

from horizon.errors import RecordRejected
from horizon.recorder import Recorder
from horizon.records import Position, Record

SUFFIX = ".log"


class About(msgspec.Struct, frozen=True):
    """The first line of a file: whose run it tells of."""

    run_id: str
    strategy: str
    pid: int


class Held(msgspec.Struct, frozen=True, array_like=True):
    """One position as the victim's engine showed it."""

    exchange: str
    market_id: str
    side: str
    size: float
    avg_entry_price: float
    realized_pnl: float
    fees: float
    base_fees: float


class State(NamedTuple):
    """What the victim held when `seq` was the newest record it had been promised."""

    seq: int
    held: frozenset[Held]


class Testimony(NamedTuple):
    """What one run's file says. The record with seq n is `records[n - 1]`, as JSON."""

    about: About
    records: list[bytes]
    promised: int  # so many of them had their "after": `record` returned
    states: list[State]


def held(positions: Iterable[Position]) -> frozenset[Held]:
    return frozenset(
        Held(
            *(position.exchange, position.market_id, position.side.value, position.size, position.avg_entry_price),
            *(position.realized_pnl, position.fees, position.base_fees),
        )
        for position in positions
    )


class Witness:
    """Stands beside every Recorder of this process and writes down what it is asked and what it answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._seq = 0

    def attend(self) -> None:
        """Look on at every `record` from here. In the victim only: nothing of this is on the road of a real strategy."""
        record_it = Recorder.record

        @wraps(record_it)
        def record(recorder: Recorder, record: Record) -> int:
            if self._fd < 0:
                self._open(About(recorder.run_id, recorder.strategy, os.getpid()))
            self._write(b"b " + msgspec.json.encode(record))
            try:
                self._seq = record_it(recorder, record)
            except RecordRejected:
                self._write(b"x")
                raise
            self._write(b"a %d" % self._seq)
            return self._seq

        setattr(Recorder, "record", record)  # noqa: B010

    def note(self, positions: Iterable[Position]) -> None:
        """The victim's state after everything that it has recorded so far."""
        self._write(b"s %d " % self._seq + msgspec.json.encode(held(positions)))

    def _open(self, about: About) -> None:
        path = self._folder / f"{about.run_id}{SUFFIX}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._write(b"r " + msgspec.json.encode(about))

    def _write(self, line: bytes) -> None:
        os.write(self._fd, line + b"\n")


def read(path: Path) -> Testimony | None:
    """What a file says; None when its run was killed before it could say whose it is."""
    lines = path.read_bytes().split(b"\n")[:-1]
    if not lines:
        return None
    about = msgspec.json.decode(lines[0][2:], type=About)
    records: list[bytes] = []
    promised = 0
    states: list[State] = []
    for line in lines[1:]:
        kind = line[:1]
        if kind == b"b":
            records.append(line[2:])
        elif kind == b"a":
            promised += 1
            if int(line[2:]) != promised or promised != len(records):
                raise ValueError(f"{path}: {line!r} is no answer to record {len(records)}: the witness is not to be believed")
        elif kind == b"x":
            records.pop()
        else:
            seq, _, rest = line[2:].partition(b" ")
            states.append(State(int(seq), msgspec.json.decode(rest, type=frozenset[Held])))
    return Testimony(about, records, promised, states)
