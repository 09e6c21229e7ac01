"""N processes that call one way: at a rate with intended times, without a pause, or until they are killed.

Before a rate's first event each caller sleeps until shortly before the moment that is meant and spins from there, whatever the way: so
a sleep that ends late is nobody's cost, and an event that waits for a busy processor is everybody's.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import signal
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from bench.alternatives.way import Caller, Event, Service, Way
from bench.events import endless, mixed
from bench.open_loop import Alarm, arrivals
from bench.options import MAX
from bench.together import Begin, run_together, without_interrupts
from horizon.ids import new_run_id
from horizon.lifeline import die_with_parent

_TIMEOUT_S = 120.0
_SPIN_S = (50e-6, 300e-6)  # an alarm wakes up late by nearly the first, at times by the second
_SPIN_SHARE = 0.1  # of the time; more only when the least is more, so that nobody's server lacks a processor because of it
_WARM_UP = 100  # events of each caller before the clock starts: statements are prepared, caches filled, files grown
_GIVE_UP = 2.0  # a way that is this many times longer at it than it should is not asked for the rest
_PREMADE = 200_000  # records that are made before the clock starts, over all callers
_KILL_AFTER_S = (0.2, 0.6)


class Seen(NamedTuple):
    """What one caller saw. The times count from an event's intended moment; without a pace from the call."""

    began: float  # monotonic seconds, one clock for all processes
    stopped: float  # the last call returned
    ended: float  # everything committed
    warm: int  # events that were stored before
    stored: int
    behind: int  # of them not known to be committed when the last call returned
    unsent: int  # intended events that were not made, because the way was too slow for them
    errors: int  # events that were refused at first
    returned_us: array[float]  # until the strategy went on
    call_us: array[float]  # the call alone, from when the caller had come to it
    cycle_us: array[float]  # until the way had done all that it does in the caller
    committed_us: array[float]  # until the caller knew that anybody can read it


class Lost(NamedTuple):
    """Events whose call had returned and that nobody found afterwards."""

    returned: int
    lost: int


def drive(way: Way, folder: Path, callers: int, rate: float, seconds: float) -> list[Seen]:
    return run_together(_call, [(way, folder, number, callers, rate, seconds) for number in range(callers)])


def kill_callers(way: Way, folder: Path, service: Service, callers: int, seed: int) -> Lost:
    """SIGKILL the processes that call it, in the middle of it."""
    before = _counted(service)
    with _Doomed(way, folder, callers) as doomed:
        doomed.let_run(seed)
        doomed.kill()
        returned = doomed.returned()
    return Lost(returned, max(0, returned - (_counted(service) - before)))


def kill_service(way: Way, folder: Path, service: Service, callers: int, seed: int) -> Lost | None:
    """SIGKILL what stands behind them. None when nothing does."""
    before = _counted(service)
    with _Doomed(way, folder, callers) as doomed:
        doomed.let_run(seed)
        if not service.kill():
            doomed.kill()
            return None
        doomed.let_run(seed)  # those who can go on do
        doomed.tell_to_stop()
        returned = doomed.returned()
    return Lost(returned, max(0, returned - (_counted(service) - before)))


def _counted(service: Service) -> int:
    return service.count() or 0


# ---- in the caller's process


def _call(begin: Begin, way: Way, folder: Path, number: int, callers: int, rate: float, seconds: float) -> Seen:
    caller = way.open(folder, number)
    for event in mixed(new_run_id(), _WARM_UP):
        caller.store(event)
        caller.end_cycle()
    caller.settle()
    refused = caller.errors
    if rate == MAX:
        stream = endless(new_run_id())
        events = chain(list(islice(stream, _PREMADE // callers)), stream)
        begin()
        seen = _flooded(caller, events, seconds)
    else:
        due_after = arrivals(rate / callers, seconds, number)
        made = mixed(new_run_id(), len(due_after))
        begin()
        spin_s = min(max(_SPIN_SHARE * callers / rate, _SPIN_S[0]), _SPIN_S[1])
        seen = _paced(caller, made, due_after, seconds, spin_s)
    caller.close()
    return seen._replace(errors=seen.errors - refused)


def _paced(caller: Caller, events: list[Event], due_after: list[float], seconds: float, spin_s: float) -> Seen:
    called_at, returned_at, cycled_at = array("d"), array("d"), array("d")
    began = time.monotonic()
    with closing(Alarm()) as alarm:
        for event, after in zip(events, due_after, strict=True):
            due = began + after
            if (left := due - spin_s - time.monotonic()) > 0:
                alarm.set(due - spin_s)
                caller.wait(alarm, left + 1)
            while (now := time.monotonic()) < due:
                pass
            called_at.append(now)
            caller.store(event)
            returned_at.append(time.monotonic())
            caller.end_cycle()
            cycled_at.append(time.monotonic())
            if cycled_at[-1] - began > _GIVE_UP * seconds:
                break
    behind = caller.unacked
    caller.settle()
    ended = time.monotonic()
    stored = len(returned_at)
    due_at = [began + after for after in due_after[:stored]]
    returned_us, cycle_us, committed_us = (
        array("d", [(moment - due) * 1e6 for moment, due in zip(moments, due_at, strict=True)])
        for moments in (returned_at, cycled_at, caller.known_at(stored) or returned_at)
    )
    call_us = array("d", [(end - start) * 1e6 for start, end in zip(called_at, returned_at, strict=True)])
    unsent = len(events) - stored
    return Seen(
        began, cycled_at[-1], ended, _WARM_UP, stored, behind, unsent, caller.errors, returned_us, call_us, cycle_us, committed_us,
    )  # fmt: skip


def _flooded(caller: Caller, events: Iterator[Event], seconds: float) -> Seen:
    costs_us = array("d")
    began = after = time.monotonic()
    for event in events:
        before = time.monotonic()
        caller.flood(event)
        after = time.monotonic()
        costs_us.append((after - before) * 1e6)
        if after - began > seconds:
            break
    behind = caller.unacked
    caller.settle()
    ended = time.monotonic()
    return Seen(began, after, ended, _WARM_UP, len(costs_us), behind, 0, caller.errors, costs_us, costs_us, costs_us, costs_us)


# ---- those who will be killed


class _Doomed:
    """Callers that never stop. Each counts in shared memory, after each call, how many have returned."""

    def __init__(self, way: Way, folder: Path, callers: int) -> None:
        path = folder / f"returned-{time.monotonic_ns()}"
        path.write_bytes(bytes(8 * (callers + 1)))
        self._words, self._callers = _words(path), callers
        context = multiprocessing.get_context("spawn")
        self._together = context.Barrier(callers)  # kept: it goes with its last reference
        self._processes: list[BaseProcess] = []
        for number in range(callers):
            process = context.Process(target=_store_until_killed, args=(way, folder, number, path, self._together))
            self._processes.append(process)
            with without_interrupts():
                process.start()

    def __enter__(self) -> _Doomed:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._words.release()

    def let_run(self, seed: int) -> None:
        """Until each has stored something, and then until a moment that nobody chose."""
        until = time.monotonic() + _TIMEOUT_S
        while 0 in list(self._words[: self._callers]):
            if time.monotonic() > until or not any(process.is_alive() for process in self._processes):
                raise SystemExit("a caller has stored nothing: a kill that loses nothing would be no news")
            time.sleep(0.001)
        time.sleep(random.Random(seed).uniform(*_KILL_AFTER_S))

    def kill(self) -> None:
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.join()

    def tell_to_stop(self) -> None:
        self._words[self._callers] = 1
        for process in self._processes:
            process.join(_TIMEOUT_S)

    def returned(self) -> int:
        return sum(self._words[: self._callers])


def _store_until_killed(way: Way, folder: Path, number: int, path: Path, together: Barrier) -> None:
    die_with_parent(signal.SIGKILL)
    words = _words(path)
    stop = len(words) - 1
    caller = way.open(folder, number)
    together.wait(_TIMEOUT_S)
    try:
        for event in endless(new_run_id()):
            caller.flood(event)
            words[number] += 1
            if words[stop]:
                break
        caller.settle()
        caller.close()
    except Exception as error:  # its server was killed; what its own library says about that is not ours to know
        print(f"  caller {number} of {way.name} ends: {type(error).__name__}", file=sys.stderr)


def _words(path: Path) -> memoryview[int]:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
