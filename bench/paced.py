"""One strategy under a load with intended times: how long each of its events took to be recorded, and until its ack was heard.

An event that is due wakes the strategy, as a venue's socket would. All that is due by then is recorded in one cycle: one event as long
as the strategy keeps up with single ones, several when it does not, as with any engine. Between cycles it waits in `Recorder.wait`, as
`hz.run` does, so an ack wakes it too.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

from bench.open_loop import Alarm
from horizon.recorder import Recorder
from horizon.records import Record

_PATIENCE_S = 120.0
_ROOM_EVERY_S = 1e-3
_CYCLE_MAX = 250  # events: what a strategy that was held up records before it looks for acks


class Seen(NamedTuple):
    """What one strategy saw; times of events whose intended moments lie behind the warm-up."""

    recorded: int  # with the warm-up
    cycles: int
    recorded_us: array[float]  # from an event's intended moment until its cycle had shipped it
    committed_ms: array[float]  # from there until its ack was heard
    cpu_s: float  # processor time of the process, all its threads, with the warm-up


class Listener(Recorder):
    """A recorder that notes when it hears acks, also while it waits."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.waiting: deque[float] = deque()  # the intended moments of what is not acknowledged
        self.committed_ms = array("d")

    def hear(self) -> bool:
        news = super().hear()
        if news:
            now, waiting, unacked = time.monotonic(), self.waiting, self.unacked
            while len(waiting) > unacked:
                self.committed_ms.append((now - waiting.popleft()) * 1000)
        return news


def drive(recorder: Listener, records: Sequence[Record], due_after: Sequence[float], warm_up_s: float) -> Seen:
    """Record each at its moment, in seconds from now, and wait for the last ack."""
    recorded_us = array("d")
    at = cycles = 0
    began, used = time.monotonic(), time.process_time()
    with closing(Alarm()) as alarm:
        while at < len(records):
            due = began + due_after[at]
            if (left := due - time.monotonic()) > 0:
                alarm.set(due)
                recorder.wait(left, (alarm,))
                continue
            if not recorder.room_for_orders():
                recorder.wait(_ROOM_EVERY_S)  # the journal is full of what the writer has not taken: all that is due waits
                continue
            cycle: list[float] = []
            recorder.begin_cycle()
            for after in due_after[at : at + _CYCLE_MAX]:
                if began + after > time.monotonic():
                    break
                recorder.record(records[at + len(cycle)])
                cycle.append(began + after)
            at += len(cycle)
            recorder.ship()
            shipped = time.monotonic()
            recorder.waiting.extend(cycle)
            recorded_us.extend([(shipped - due) * 1e6 for due in cycle])
            recorder.hear()
            cycles += 1
    _await_acks(recorder)
    warm = sum(after < warm_up_s for after in due_after)
    return Seen(at, cycles, recorded_us[warm:], recorder.committed_ms[warm:], time.process_time() - used)


def _await_acks(recorder: Listener) -> None:
    until = time.monotonic() + _PATIENCE_S
    while recorder.waiting:
        if time.monotonic() > until:
            raise SystemExit(f"{len(recorder.waiting)} events were not acknowledged within {_PATIENCE_S:g} s")
        recorder.wait(0.01)
