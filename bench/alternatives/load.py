"""N processes that call one way: at a rate with intended times, without a pause, or until they are killed."""

from __future__ import annotations

import ctypes
import gc
import mmap
import multiprocessing
import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from bench.alternatives.way import Caller, Event, Service, Way
from bench.events import endless, mixed
from bench.open_loop import arrivals
from bench.options import MAX
from horizon.ids import new_run_id
from horizon.lifeline import die_with_parent

_TIMEOUT_S = 300.0
_SPIN_S = 50e-6
_LOOK_EVERY_S = 2e-4  # at acks, while some are awaited
_GIVE_UP = 2.0  # a way that is this many times longer at it than it should is not asked for the rest
_PREMADE = 200_000  # records that are made before the clock starts, over all callers
_KILL_AFTER_S = (0.3, 1.0)
_PR_SET_TIMERSLACK = 29


class Seen(NamedTuple):
    """What one caller saw. The times count from an event's intended moment; without a pace from the call."""

    began: float  # monotonic seconds, one clock for all processes
    ended: float  # everything committed
    stored: int
    unsent: int  # intended events that were not made, because the way was too slow for them
    errors: int  # events that were refused at first
    returned_us: list[float]  # until the strategy went on
    cycle_us: list[float]  # until the way had done all that it does in the caller
    committed_us: list[float]  # until the caller knew that anybody can read it


class Lost(NamedTuple):
    """Events whose call had returned and that nobody found afterwards."""

    returned: int
    lost: int


def drive(way: Way, folder: Path, callers: int, rate: float, seconds: float) -> list[Seen]:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(callers)
    processes, results = [], []
    for number in range(callers):
        result, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_caller, args=(way, folder, number, rate, seconds, together, theirs))
        process.start()
        theirs.close()
        processes.append(process)
        results.append(result)
    try:
        return [result.recv() for result in results]
    except EOFError as died:
        raise SystemExit(f"a caller of {way.name} has died; the lines above say why") from died
    finally:
        for process in processes:
            process.join()


def kill_callers(way: Way, folder: Path, service: Service, callers: int, seed: int) -> Lost:
    """SIGKILL the processes that call it, in the middle of it."""
    with _Doomed(way, folder, callers) as doomed:
        doomed.let_run(seed)
        doomed.kill()
        returned = doomed.returned()
    return Lost(returned, max(0, returned - service.count()))


def kill_service(way: Way, folder: Path, service: Service, callers: int, seed: int) -> Lost | None:
    """SIGKILL what stands behind them. None when nothing does."""
    with _Doomed(way, folder, callers) as doomed:
        doomed.let_run(seed)
        if not service.kill():
            doomed.kill()
            return None
        doomed.let_run(seed)  # those who can go on do
        doomed.tell_to_stop()
        returned = doomed.returned()
    return Lost(returned, max(0, returned - service.count()))


# ---- in the caller's process


def _caller(way: Way, folder: Path, number: int, rate: float, seconds: float, together: Barrier, result: Connection) -> None:
    die_with_parent(signal.SIGKILL)
    # The kernel may wake a sleeper late by 50 µs to save power; every way is measured without that.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    caller = way.open(folder, number)
    if rate == MAX:
        stream = endless(new_run_id())
        events = chain(list(islice(stream, _PREMADE // together.parties)), stream)
        _begin_together(together)
        result.send(_flooded(caller, events, seconds))
    else:
        due_after = arrivals(rate / together.parties, seconds, number)
        made = mixed(new_run_id(), len(due_after))
        _begin_together(together)
        result.send(_paced(caller, made, due_after, seconds))


def _begin_together(together: Barrier) -> None:
    gc.collect()
    gc.freeze()  # the stream is ours, not the strategy's: the collector must not walk through it while the clock runs
    together.wait(_TIMEOUT_S)


def _paced(caller: Caller, events: list[Event], due_after: list[float], seconds: float) -> Seen:
    returned_us: list[float] = []
    cycle_us: list[float] = []
    committed_us: list[float] = []
    waiting: deque[float] = deque()  # the intended times of what is not acknowledged
    began = time.monotonic()
    for event, after in zip(events, due_after, strict=True):
        due = began + after
        _wait_until(due, caller, waiting, committed_us)
        caller.store(event)
        returned = time.monotonic()
        returned_us.append((returned - due) * 1e6)
        caller.idle()
        cycle_us.append((time.monotonic() - due) * 1e6)
        waiting.append(due)
        _note_acks(caller, waiting, committed_us)
        if returned - began > _GIVE_UP * seconds:
            break
    until = time.monotonic() + _TIMEOUT_S
    while waiting and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S)
        caller.idle()
        _note_acks(caller, waiting, committed_us)
    caller.close()
    unsent = len(events) - len(returned_us)
    return Seen(began, time.monotonic(), len(returned_us), unsent, caller.errors, returned_us, cycle_us, committed_us)


def _wait_until(due: float, caller: Caller, waiting: deque[float], committed_us: list[float]) -> None:
    while (left := due - time.monotonic()) > 0:
        if left <= _SPIN_S:
            continue
        if not waiting:
            time.sleep(left - _SPIN_S)
            continue
        time.sleep(min(left - _SPIN_S, _LOOK_EVERY_S))
        if due - time.monotonic() > _SPIN_S:
            caller.idle()
            _note_acks(caller, waiting, committed_us)


def _note_acks(caller: Caller, waiting: deque[float], committed_us: list[float]) -> None:
    unacked, now = caller.unacked, time.monotonic()
    while len(waiting) > unacked:
        committed_us.append((now - waiting.popleft()) * 1e6)


def _flooded(caller: Caller, events: Iterator[Event], seconds: float) -> Seen:
    costs_us: list[float] = []
    began = before = time.monotonic()
    while before - began < seconds:
        caller.flood(next(events))
        after = time.monotonic()
        costs_us.append((after - before) * 1e6)
        before = after
    caller.close()
    return Seen(began, time.monotonic(), len(costs_us), 0, caller.errors, costs_us, costs_us, costs_us)


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
            process.start()
            self._processes.append(process)

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
        caller.close()
    except Exception as error:  # its server was killed; what its own library says about that is not ours to know
        print(f"  caller {number} of {way.name} ends: {type(error).__name__}")


def _words(path: Path) -> memoryview[int]:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
