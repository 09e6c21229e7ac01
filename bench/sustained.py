"""A steady load on a supervised writer, and what the processes under it look like meanwhile."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import random
import signal
import time
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.events import endless
from bench.open_loop import wait_until
from horizon.errors import JournalError
from horizon.journal import JournalReader
from horizon.lifeline import die_with_parent
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import RunStarted

_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 5e-4
_MIB = 2**20


class Window(NamedTuple):
    """What one worker saw in one stretch of time; times count from an event's intended moment."""

    number: int
    recorded_us: array[float]  # until `record` and `ship` had returned
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
        """Let everything be acknowledged. Returns what had not come in yet."""
        self._flag[0] = 1
        rest = []
        for result in self._results:
            while isinstance(message := result.recv(), Window):
                rest.append(message)
            self.recorded += message
        for process in self._processes:
            process.join()
        self._flag.release()
        return rest


class Process(NamedTuple):
    """One look at one process."""

    rss_mib: float  # with what it shares: mapped files count, and those grow with the database
    private_mib: float  # what would be free if it ended
    files: int


def look(pid: int) -> Process:
    process = psutil.Process(pid)
    memory = process.memory_full_info()
    return Process(memory.rss / _MIB, memory.uss / _MIB, process.num_fds())


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
    load = Load(folder, paths, workers, rate, durability, window_s)
    try:
        yield load
    finally:
        load.stop()


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
    recorder = Recorder.open(paths, name, durability=durability, may_start_writer=False)
    recorder.record(RunStarted(name, "bench", time.time()))
    recorder.flush(_TIMEOUT_S)
    gc.collect()
    gc.freeze()
    together.wait(_TIMEOUT_S)
    before = recorder.last_seq
    chance = random.Random(seed)
    waiting: deque[float] = deque()
    began = due = time.monotonic()
    window = Window(0, array("d"), array("d"))
    for event in endless(recorder.run_id):
        due += chance.expovariate(rate)
        while (left := due - time.monotonic()) > _LOOK_EVERY_S:
            time.sleep(min(left - _LOOK_EVERY_S / 2, _LOOK_EVERY_S) if waiting else left - _LOOK_EVERY_S / 2)
            _hear(recorder, waiting, window)
        wait_until(due)
        if stop[0]:
            break
        if due - began >= (window.number + 1) * window_s:
            result.send(window)
            window = Window(int((due - began) / window_s), array("d"), array("d"))
        recorder.begin_cycle()
        recorder.record(event)
        recorder.ship()
        window.recorded_us.append((time.monotonic() - due) * 1e6)
        waiting.append(due)
        _hear(recorder, waiting, window)
    recorder.flush(_TIMEOUT_S)
    _hear(recorder, waiting, window)
    result.send(window)
    result.send(recorder.last_seq - before)
    recorder.close()
    stop.release()


def _hear(recorder: Recorder, waiting: deque[float], window: Window) -> None:
    recorder.hear()
    now = time.monotonic()
    while len(waiting) > recorder.unacked:
        window.committed_ms.append((now - waiting.popleft()) * 1000)


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
