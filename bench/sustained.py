"""A steady load on a supervised writer, and what the processes under it look like meanwhile."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import random
import signal
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple, cast

import psutil

from bench.events import endless
from bench.open_loop import Alarm
from bench.paced import Listener
from bench.together import without_interrupts
from horizon.errors import JournalError
from horizon.journal import JournalReader
from horizon.lifeline import die_with_parent
from horizon.paths import DatabasePaths
from horizon.records import RunStarted

_TIMEOUT_S = 120.0
_ROOM_EVERY_S = 1e-3
_CYCLE_MAX = 250
_MIB = 2**20


class Window(NamedTuple):
    """What one worker saw in one stretch of time; times count from an event's intended moment (bench/paced.py)."""

    number: int
    recorded_us: array[float]  # until its cycle had shipped it
    committed_ms: array[float]  # until the ack was heard


class Load:
    """Workers that record at a rate, Poisson, until they are told to stop."""

    def __init__(self, folder: Path, paths: DatabasePaths, workers: int, rate: float, durability: str, window_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        together = context.Barrier(workers + 1)
        flag = folder / "stop"
        flag.write_bytes(bytes(8))
        self._flag = _flag(flag)
        self._results: list[Connection] = []
        self._processes = []
        self.recorded = 0
        for number in range(workers):
            result, theirs = context.Pipe(duplex=False)
            arguments = (paths, f"load-{number}", rate / workers, durability, window_s, number, flag, together, theirs)
            process = context.Process(target=_work, args=arguments)
            with without_interrupts():
                process.start()
            theirs.close()
            self._processes.append(process)
            self._results.append(result)
        together.wait(_TIMEOUT_S)
        self.pids = [process.pid for process in self._processes if process.pid is not None]

    def windows(self, timeout_s: float) -> list[Window]:
        """What has come in, waiting for the first of it."""
        found = []
        for result in wait(self._results, timeout_s):
            assert isinstance(result, Connection)
            try:
                message = result.recv()
            except EOFError:
                raise SystemExit("a worker of the load has died; the lines above say why") from None
            if isinstance(message, Window):
                found.append(message)
        return found

    def stop(self) -> list[Window]:
        """Let everything be acknowledged. Returns what had not come in yet; a second time, nothing."""
        self._flag[0] = 1
        rest = []
        while self._results:
            result = self._results.pop()
            while isinstance(message := result.recv(), Window):
                rest.append(message)
            self.recorded += message
        for process in self._processes:
            process.join()
        return rest

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._flag.release()


class Process(NamedTuple):
    """One look at one process."""

    rss_mib: float  # with what it shares: mapped files count, and those grow with the database
    pss_mib: float  # the same, what is shared divided by those who share it
    private_mib: float  # what would be free if it ended
    files: int


def look(pid: int) -> Process:
    process = psutil.Process(pid)
    memory = process.memory_full_info()
    return Process(memory.rss / _MIB, memory.pss / _MIB, memory.uss / _MIB, process.num_fds())


class Files(NamedTuple):
    """One look at the files of a database."""

    database_mib: float
    wal_mib: float
    unacked_kib: float  # in all journals
    journals: int


def look_at_files(paths: DatabasePaths) -> Files:
    wal = paths.database.with_name(paths.database.name + "-wal")
    journals = paths.journals()
    unacked = sum(_unacked_bytes(journal) for journal in journals)
    return Files(_mib(paths.database), _mib(wal), unacked / 1024, len(journals))


@contextmanager
def loaded(folder: Path, paths: DatabasePaths, workers: int, rate: float, durability: str, window_s: float) -> Iterator[Load]:
    """Its workers are killed when the block fails; else the block, or its end, stops them."""
    load = Load(folder, paths, workers, rate, durability, window_s)
    try:
        yield load
        load.stop()
    finally:
        load.kill()


# ---- in a worker's process


def _work(
    paths: DatabasePaths,
    name: str,
    rate: float,
    durability: str,
    window_s: float,
    seed: int,
    flag: Path,
    together: Barrier,
    result: Connection,
) -> None:
    die_with_parent(signal.SIGKILL)
    stop = _flag(flag)
    recorder = cast(Listener, Listener.open(paths, name, durability=durability, may_start_writer=False))
    recorder.record(RunStarted(name, "bench", time.time()))
    recorder.flush(_TIMEOUT_S)
    gc.collect()
    gc.freeze()
    together.wait(_TIMEOUT_S)
    before = recorder.last_seq
    stream, chance = endless(recorder.run_id), random.Random(seed)
    began = time.monotonic()
    due = began + chance.expovariate(rate)
    window = Window(0, array("d"), recorder.committed_ms)
    with closing(Alarm()) as alarm:
        while not stop[0]:
            if (left := due - time.monotonic()) > 0:
                alarm.set(due)
                recorder.wait(left, (alarm,))
                continue
            if not recorder.room_for_orders():
                recorder.wait(_ROOM_EVERY_S)
                continue
            if due - began >= (window.number + 1) * window_s:
                result.send(window)
                recorder.committed_ms = array("d")
                window = Window(int((due - began) / window_s), array("d"), recorder.committed_ms)
            cycle: list[float] = []
            recorder.begin_cycle()
            while due <= time.monotonic() and len(cycle) < _CYCLE_MAX:  # what is due goes into one cycle
                recorder.record(next(stream))
                cycle.append(due)
                due += chance.expovariate(rate)
            recorder.ship()
            shipped = time.monotonic()
            window.recorded_us.extend([(shipped - moment) * 1e6 for moment in cycle])
            recorder.waiting.extend(cycle)
            recorder.hear()
    recorder.flush(_TIMEOUT_S)
    result.send(window)
    result.send(recorder.last_seq - before)
    recorder.close()
    stop.release()


def _flag(path: Path) -> memoryview[int]:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")


def _unacked_bytes(path: Path) -> int:
    try:
        journal = JournalReader(path)
    except (JournalError, FileNotFoundError):
        return 0  # its run has just ended
    try:
        return journal.head - journal.tail
    finally:
        journal.close()


def _mib(path: Path) -> float:
    try:
        return path.stat().st_size / _MIB
    except FileNotFoundError:
        return 0.0
