"""Horizon: `store` returns when the event is in the journal, which outlives every process; the commit follows and is acknowledged."""

from __future__ import annotations

import os
import signal
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.alternatives.page import count
from bench.alternatives.way import Caller, Event, Service
from bench.open_loop import Alarm
from bench.writer import private_writer, writer_pid
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import RunStarted

_TIMEOUT_S = 120.0
_CYCLE = 64  # events of one cycle when they never stop
_LOOK_EVERY_S = 1e-3


@dataclass(frozen=True)
class Horizon:
    name: str
    durability: str
    paced: bool = True
    flooded: bool = True

    def missing(self) -> str | None:
        return None

    def made_of(self) -> str:
        return ""

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Service]:
        paths = _paths(folder)
        with private_writer(paths, self.durability):
            yield _Writer(paths)

    def open(self, folder: Path, number: int) -> Caller:
        return _Caller(_paths(folder), f"s{number}", self.durability)


class _Writer:
    def __init__(self, paths: DatabasePaths) -> None:
        self._paths = paths

    def count(self) -> int | None:
        """When every journal but the keeper's is drained: what a killed strategy left in its own is stored a moment later."""
        until = time.monotonic() + _TIMEOUT_S
        while len(self._paths.journals()) > 1:
            if time.monotonic() > until:
                raise SystemExit(f"the journals in {self._paths.folder} were not drained within {_TIMEOUT_S:g} s")
            time.sleep(0.02)
        return count([self._paths.database])

    def kill(self) -> bool:
        """The strategies start another one."""
        os.kill(writer_pid(self._paths), signal.SIGKILL)
        return True


class _Caller:
    errors = 0

    def __init__(self, paths: DatabasePaths, name: str, durability: str) -> None:
        recorder = _Listener.open(paths, name, durability=durability)
        assert isinstance(recorder, _Listener)
        self._recorder = recorder
        self._in_cycle = 0
        # The writer meets a run with its first record, which takes up to 0.1 s: a start's cost, not the road's.
        self._recorder.record(RunStarted(name, "bench", time.time()))
        self._recorder.flush(_TIMEOUT_S)

    @property
    def unacked(self) -> int:
        return self._recorder.unacked

    def store(self, event: Event) -> None:
        self._recorder.begin_cycle()
        self._recorder.record(event)

    def end_cycle(self) -> None:
        self._recorder.ship()
        self._recorder.hear()

    def wait(self, alarm: Alarm, timeout_s: float) -> None:
        self._recorder.wait(timeout_s, (alarm,))

    def flood(self, event: Event) -> None:
        if self._in_cycle == 0:
            self._recorder.begin_cycle()
        self._recorder.record(event)
        self._in_cycle += 1
        if self._in_cycle == _CYCLE:
            self._in_cycle = 0
            self.end_cycle()
            while not self._recorder.room_for_orders():
                time.sleep(_LOOK_EVERY_S)
                self._recorder.hear()

    def settle(self) -> None:
        self._recorder.flush(_TIMEOUT_S)

    def known_at(self, events: int) -> Sequence[float] | None:
        return self._recorder.heard_at[-events:]

    def close(self) -> None:
        self._recorder.close()


class _Listener(Recorder):
    """Notes when it hears of each commit."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.heard_at = array("d")

    def hear(self) -> bool:
        before = self.committed_seq
        news = super().hear()
        if news:
            self.heard_at.extend([time.monotonic()] * (self.committed_seq - before))
        return news


def _paths(folder: Path) -> DatabasePaths:
    return DatabasePaths.of(folder / "horizon.db")
