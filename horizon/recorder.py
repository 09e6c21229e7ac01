"""The worker's half of the road: number a record, keep it in the journal, ship it, hear that it is committed, forget it.

`Recorder.open` is the whole start of a run, in this order: the strategy's lock, a writer that lets it in once every older journal of
the strategy is drained, a journal of its own (R10, R14). What `record` has taken survives the death of every process (P1).
"""

from __future__ import annotations

import logging
import os
import statistics
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

import psutil

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import (
    AckTimeout,
    ConfigError,
    DeadLettered,
    Halt,
    JournalError,
    JournalFull,
    RecordRejected,
    StoreError,
    StrategyBusy,
    WireError,
    is_disk_full,
)
from horizon.failpoints import ACTIVE, reach
from horizon.ids import new_run_id
from horizon.journal import DEFAULT_BYTES, About, Journal
from horizon.link import Link, Readable
from horizon.locks import FileLock
from horizon.metrics import Tally
from horizon.paths import DatabasePaths
from horizon.pulse import Pulse
from horizon.records import Record
from horizon.wire import Ack, Control

log = logging.getLogger(__name__)

SHIP_AT_BYTES = 64 * 1024
_LOCK_POLL_S = 0.05
_DISK_FULL_POLL_S = 2.0
_LATENCIES = 256


class Recorder:
    """One run of one strategy. Not thread-safe: the engine's one lock covers it (R25)."""

    def __init__(
        self,
        paths: DatabasePaths,
        strategy: str,
        run_id: str,
        lock: FileLock,
        link: Link,
        journal: Journal,
        clock: Clock,
        pulse: Pulse,
    ) -> None:
        self.paths = paths
        self.strategy = strategy
        self.run_id = run_id
        self.dead_letters: set[int] = set()  # seqs of this run that lie in dlq.db
        self.seconds_to_ack = Tally()  # from recorded to acknowledged, of the oldest record of each ack
        self._lock = lock
        self._link = link
        self._journal = journal
        self._clock = clock
        self._pulse = pulse
        self._pid = os.getpid()
        self._is_fork = False  # this is the child of a fork; told by the kernel's fork and not asked for on every record
        self._in_cycle = False
        self._flushed_seq = 0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        _open_recorders.add(self)

    @classmethod
    def open(
        cls,
        paths: DatabasePaths,
        strategy: str,
        *,
        durability: str = "process",
        may_start_writer: bool = True,
        timeout_s: float = 30.0,
        lock_timeout_s: float = 20.0,
        journal_bytes: int = DEFAULT_BYTES,
        clock: Clock = SYSTEM_CLOCK,
        pulse: Pulse | None = None,
    ) -> Recorder:
        """Begin a run: nothing is recorded yet, and every older run of the strategy is drained.

        Raises: ConfigError, StrategyBusy, LinkError, StoreError, VersionMismatch, JournalError. Waits, with a warning, while the
        disk is full.
        """
        run_id, pulse = new_run_id(), pulse or Pulse()
        if not strategy.isprintable():
            raise ConfigError(f"the strategy name {strategy!r} cannot be stored or shown: leave out what cannot be printed")
        if any("\ud800" <= character <= "\udfff" for character in str(paths.database)):
            raise ConfigError(f"{str(paths.database)!a}: the path is not UTF-8, which SQLite needs: choose another")
        if paths.database.is_dir():
            raise StoreError(f"{paths.database} is a folder: name the database in it")
        _make_folder(paths)
        lock = _take_strategy_lock(paths, strategy, run_id, lock_timeout_s, clock, pulse)
        with ExitStack() as undo:
            undo.callback(lock.release)
            link = Link(paths, run_id, durability, may_start_writer, clock)
            undo.callback(link.close)
            welcome = link.hello(strategy, timeout_s, pulse)
            about = About(welcome.database_id, run_id, strategy, durability, os.getpid())
            journal = _make_journal(paths, about, journal_bytes, link, pulse)
            if ACTIVE:
                reach("worker.journal_made")
            undo.pop_all()
        log.info("run %s of %s records to %s", run_id, strategy, paths.database, extra={"action": "run_open", "run_id": run_id})
        return cls(paths, strategy, run_id, lock, link, journal, clock, pulse)

    @property
    def last_seq(self) -> int:
        return self._journal.last_seq

    @property
    def committed_seq(self) -> int:
        return self._journal.acked_seq

    @property
    def unacked(self) -> int:
        """Records that the writer has not acknowledged yet."""
        return self._journal.unacked

    @property
    def unacked_bytes(self) -> int:
        """What they take in the journal."""
        return self._journal.head - self._journal.tail

    @property
    def control(self) -> Control:
        """What the strategy may do, as the writer said last; changes while acks are heard."""
        return self._link.control

    @property
    def journal_path(self) -> str:
        return str(self._journal.path)

    @property
    def latency_ms(self) -> float | None:
        """Median time from recorded to acknowledged over the newest acks."""
        return statistics.median(self._latencies) * 1000 if self._latencies else None

    def room_for_orders(self) -> bool:
        """False when the journal is so full that new orders must wait; the rest of it is kept for fills (R22)."""
        return self._journal.has_room_for_orders()

    def record(self, record: Record) -> int:
        """Keep a record and return its seq. It survives the death of any process from here.

        Raises: RecordRejected when it cannot be encoded; Halt when even the journal's reserve is used up: what cannot be recorded
        must not be applied.
        """
        if self._is_fork:
            self._refuse_in_child()
        journal, link = self._journal, self._link
        try:
            seq = journal.append(record)
        except JournalFull as full:
            self.hear()
            try:
                seq = journal.append(record)
            except JournalFull:
                raise Halt(f"{full}; the run stops because nothing more can be recorded") from full
        except (WireError, UnicodeEncodeError, TypeError, OverflowError) as error:
            raise RecordRejected(f"a {type(record).__name__} cannot be recorded: {error}") from error
        # Outside a cycle at once when nothing is on its way, else with the next ack: the pace sets the batch.
        if journal.head - link.shipped >= SHIP_AT_BYTES or (not self._in_cycle and journal.unacked == 1):
            link.ship(journal)
        elif not self._in_cycle:
            self.hear()
        return seq

    def begin_cycle(self) -> None:
        """From here to `ship`, records are gathered: nothing is sent while the strategy acts."""
        self._in_cycle = True

    def ship(self) -> None:
        """End a cycle: send what it recorded, or leave it to the next ack while two messages are on their way.

        So one lies ready when the writer has answered the other, and a slow writer gets few large messages, not many small ones.
        """
        self._in_cycle = False
        if self._journal.tail >= self._link.shipped_before:
            self._ship()

    def hear(self) -> bool:
        """Take the acks that have arrived, and ask when one is overdue. Returns whether anything new was acknowledged.

        Raises: Halt when memory and database may differ: a fill became a dead letter (R3), another run's fills came between (R2).
        """
        news = False
        for ack in self._link.hear():
            news = self._take(ack) or news
        self._link.ask(self._journal.oldest_unacked)
        if news and not self._in_cycle:
            self._ship()
        return news

    def wait(self, timeout_s: float, also: Sequence[Readable] = ()) -> None:
        """Sleep between cycles and hear acks meanwhile; wakes early when something in `also` is readable."""
        until = self._clock.monotonic() + timeout_s
        while True:
            self.hear()
            left = until - self._clock.monotonic()
            if left <= 0:
                return
            # An overdue ack is asked for from here, so no sleep is longer than that.
            if self._link.wait(min(left, 0.1) if self._journal.unacked else left, also):
                return

    def flush(self, timeout_s: float) -> None:
        """Wait until everything recorded so far is acknowledged.

        Raises: AckTimeout; DeadLettered when a record since the last flush became a dead letter.
        """
        target, since = self.last_seq, self._flushed_seq
        self.await_acks(timeout_s)
        self._flushed_seq = target
        lost = sorted(seq for seq in self.dead_letters if since < seq <= target)
        if lost:
            raise DeadLettered(
                f"{len(lost)} of the flushed records could not be stored (seq {', '.join(map(str, lost[:5]))}); "
                f"they lie in {self.paths.dead_letters} with their reasons"
            )

    def await_acks(self, timeout_s: float) -> None:
        """Wait until everything recorded so far is committed, be it as dead letters. Raises: AckTimeout."""
        self._refuse_in_child()
        target = self.last_seq
        self._link.ship(self._journal)
        until = self._clock.monotonic() + timeout_s
        while self.committed_seq < target:
            self.hear()
            left = until - self._clock.monotonic()
            if self.committed_seq < target and left <= 0:
                raise AckTimeout(
                    f"{self.unacked} records of {self.strategy} are not acknowledged after {timeout_s:g} s; "
                    f"they are kept in {self._journal.path} and will be stored when a writer runs"
                )
            if self.committed_seq < target:
                self._link.wait(min(left, 0.05))
                self._pulse.turn()

    def close(self) -> None:
        """Let go of the socket, the journal and the strategy's lock. The writer drains and removes the journal."""
        if self._pid != os.getpid() or self not in _open_recorders:
            return
        _open_recorders.discard(self)
        self._link.close()
        self._journal.close()
        self._lock.release()

    def _ship(self) -> None:
        self._link.ship(self._journal)
        self._journal.make_ready()

    def _take(self, ack: Ack) -> bool:
        lost_fills = self._note_dead_letters(ack.dead_letters) if ack.dead_letters else []
        oldest = self._journal.oldest_unacked
        recorded_at = self._journal.trim(min(ack.committed_seq, self.last_seq))
        if recorded_at is not None and oldest is not None:
            now = self._clock.monotonic()
            self._latencies.append(now - recorded_at)
            self.seconds_to_ack.observe(now - oldest)
        if lost_fills:
            raise Halt(
                f"the writer could not store a fill of {self.strategy} (seq {lost_fills[0]}); it lies in {self.paths.dead_letters}. "
                "The run stops, because its positions are in doubt, and recovers from the database at its next start"
            )
        if ack.recover:
            raise Halt(f"fills of another run of {self.strategy} were committed; the run stops and recovers at its next start")
        return recorded_at is not None

    def _note_dead_letters(self, seqs: Iterable[int]) -> list[int]:
        """Returns which of those that are news are fills. Call before the journal forgets what they were."""
        fresh = set(seqs) - self.dead_letters
        self.dead_letters |= fresh
        return sorted(seq for seq in fresh if self._journal.holds_fill(seq))

    def _refuse_in_child(self) -> None:
        if self._pid != os.getpid():
            raise JournalError(
                f"this Engine belongs to process {self._pid}; process {os.getpid()} is a fork of it and must not record. "
                "Record in the process that made the Engine, and let helpers return their results to it"
            )

    def _abandon(self) -> None:
        """In the child of a fork: close what would keep the parent's lock alive, touch nothing else (R24)."""
        self._is_fork = True
        self._lock.abandon()
        self._link.abandon()


_open_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _abandon_all() -> None:
    for recorder in list(_open_recorders):
        recorder._abandon()
    _open_recorders.clear()


os.register_at_fork(after_in_child=_abandon_all)


def _make_folder(paths: DatabasePaths) -> None:
    try:
        paths.folder.mkdir(mode=0o700, parents=False, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{paths.folder}: the folder beside the database cannot be made: {error.strerror}") from error


def _take_strategy_lock(
    paths: DatabasePaths, strategy: str, run_id: str, timeout_s: float, clock: Clock, pulse: Pulse
) -> FileLock:
    """One incarnation at a time (R10): wait for the last one to leave, then say who is still there."""
    lock = FileLock(paths.strategy_lock(strategy))
    until = clock.monotonic() + timeout_s
    while True:
        pulse.turn()
        try:
            if lock.take(f"pid={os.getpid()} run={run_id} strategy={strategy}"):
                return lock
        except OSError as error:
            if not is_disk_full(error):
                raise StoreError(f"{lock.path}: the strategy's lock cannot be taken: {error.strerror}") from error
            _say_disk_full(paths)
            until = clock.monotonic() + timeout_s
            time.sleep(_DISK_FULL_POLL_S)
            continue
        if clock.monotonic() >= until:
            raise StrategyBusy(
                f"a strategy named {strategy!r} already runs on {paths.database}: {_describe(lock.hint())}. "
                "Stop it first, or give this one another name"
            )
        time.sleep(_LOCK_POLL_S)


def _describe(hint: str) -> str:
    """The holder of a lock in words, from what it wrote about itself."""
    with suppress(psutil.Error, ValueError):
        process = psutil.Process(int(hint.split(" ", 1)[0].removeprefix("pid=")))  # what follows holds a name that anybody chose
        return f"pid {process.pid} ({' '.join(process.cmdline())[:120] or process.name()})"
    return hint or "by an unknown process"


def _make_journal(paths: DatabasePaths, about: About, capacity: int, link: Link, pulse: Pulse) -> Journal:
    """Make the run's journal, waiting while the disk is full: time may cure that (R20)."""
    while True:
        try:
            return Journal(paths.journal(about.run_id), about, capacity)
        except OSError as error:
            if not is_disk_full(error):
                raise
            _say_disk_full(paths)
            link.wait(_DISK_FULL_POLL_S)
            pulse.turn()


def _say_disk_full(paths: DatabasePaths) -> None:
    log.warning("the disk of %s is full; waiting until there is room for a journal", paths.folder, extra={"action": "disk_full"})
