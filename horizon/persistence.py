"""One run's dealings with the database: its name, its records, what it recovers, what it looks up. The engine trades, this keeps.

A run begins lazily: an Engine without a name may learn it from `start_run` or from the database (R9), and only then is there a lock
to take and a journal to make. Without a database everything here does nothing, and ids are still made.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from horizon.clock import Clock
from horizon.errors import AckTimeout, ConfigError, DeadLettered, Halt, HorizonError, JournalCorrupt, RecordRejected
from horizon.ids import new_run_id
from horizon.journal import JournalReader
from horizon.link import Readable
from horizon.metrics import Tally
from horizon.paths import DatabasePaths
from horizon.pulse import Pulse
from horizon.recorder import Recorder
from horizon.records import Fill, Record
from horizon.store.connection import open_reader
from horizon.store.read import fill_by_id, fills, strategy_of_run
from horizon.store.recovery import Recovered, only_strategy, recover
from horizon.turns import TurnLock
from horizon.wire import Control

DEFAULT_STRATEGY = "default"
_RUN_ID_LENGTH = len(new_run_id())
_LOOKUPS_SHARE_S = 0.1


class Persistence:
    """Not thread-safe by itself: the engine's lock covers it, except `wait`, which takes that lock itself (R25)."""

    def __init__(
        self,
        paths: DatabasePaths | None,
        strategy: str | None,
        *,
        durability: str,
        may_start_writer: bool,
        lock_timeout_s: float,
        clock: Clock,
        pulse: Pulse,
    ) -> None:
        self.paths = paths
        self.halt: Halt | None = None  # why this run may record nothing more
        self._strategy = strategy
        self._durability = durability
        self._may_start_writer = may_start_writer
        self._lock_timeout_s = lock_timeout_s
        self._clock = clock
        self._pulse = pulse
        self._recorder: Recorder | None = None
        self._reader: apsw.Connection | None = None
        self._reader_since = 0.0
        self._own_run_id = new_run_id() if paths is None else None
        if strategy is not None:
            self.open(strategy)

    @property
    def is_on(self) -> bool:
        return self.paths is not None

    @property
    def strategy(self) -> str:
        return self._strategy or DEFAULT_STRATEGY

    @property
    def run_id(self) -> str:
        """Of this run, or the one it would have with a database: ids of orders are made of it."""
        if self._recorder is not None:
            return self._recorder.run_id
        assert self._own_run_id is not None, "the run has not been opened"
        return self._own_run_id

    @property
    def last_seq(self) -> int:
        return self._recorder.last_seq if self._recorder is not None else 0

    @property
    def committed_seq(self) -> int:
        return self._recorder.committed_seq if self._recorder is not None else 0

    @property
    def unacked(self) -> int:
        return self._recorder.unacked if self._recorder is not None else 0

    @property
    def unacked_bytes(self) -> int:
        return self._recorder.unacked_bytes if self._recorder is not None else 0

    @property
    def seconds_to_ack(self) -> Tally | None:
        return self._recorder.seconds_to_ack if self._recorder is not None else None

    @property
    def latency_ms(self) -> float | None:
        return self._recorder.latency_ms if self._recorder is not None else None

    @property
    def journal_path(self) -> str:
        return self._recorder.journal_path if self._recorder is not None else ""

    def control(self) -> Control | None:
        """What people allow the strategy, as the writer said last; None without a database."""
        return self._recorder.control if self._recorder is not None else None

    def open(self, strategy: str | None = None) -> None:
        """Take the strategy's lock and make the run's journal, once. Without a name it is the database's only strategy (R9).

        Raises: ConfigError when there are several or another name was in use; what `Recorder.open` raises.
        """
        if self._recorder is not None and strategy not in (None, self._strategy):
            raise ConfigError(
                f"this engine records as strategy {self._strategy!r} already and cannot become {strategy!r}: "
                "give Engine(strategy=...) the name, or call start_run before anything else"
            )
        if self.paths is None or self._recorder is not None:
            self._strategy = self._strategy or strategy
            return
        name = strategy or self._strategy or self._only_strategy() or DEFAULT_STRATEGY
        self._recorder = Recorder.open(
            self.paths,
            name,
            durability=self._durability,
            may_start_writer=self._may_start_writer,
            lock_timeout_s=self._lock_timeout_s,
            clock=self._clock,
            pulse=self._pulse,
        )
        self._strategy = name

    def room_for_orders(self) -> bool:
        return self._recorder is None or self._recorder.room_for_orders()

    def record(self, record: Record) -> int:
        """Keep a record and return its seq (0 without a database).

        Raises: RecordRejected; Halt, from then on always, when recording failed: memory must not run ahead of the journal.
        """
        if self.halt is not None:
            raise self.halt
        if self._recorder is None:
            return 0
        try:
            return self._recorder.record(record)
        except RecordRejected:
            raise
        except Halt as halt:
            self.halt = halt
            raise
        except HorizonError as error:
            raise self.halted(str(error)) from error

    def halted(self, why: str) -> Halt:
        """The halt to raise. It is remembered: another thread than the strategy's may be the first to meet it."""
        self.halt = Halt(why)
        return self.halt

    def begin_cycle(self) -> None:
        if self._recorder is not None:
            self._recorder.begin_cycle()

    def ship(self) -> None:
        """End a cycle: send what it recorded and take the acks that are there. Raises: Halt."""
        self.end_lookups()
        if self._recorder is not None:
            self._recorder.ship()
        self.hear()

    def hear(self) -> None:
        """Raises: Halt."""
        if self.halt is not None:
            raise self.halt
        if self._recorder is not None:
            with self._halting():
                self._recorder.hear()

    def wait(self, timeout_s: float, also: Sequence[Readable], lock: TurnLock) -> None:
        """Sleep, hear acks meanwhile, and wake early when something in `also` is readable. Raises: Halt."""
        until = self._clock.monotonic() + timeout_s
        while (left := until - self._clock.monotonic()) > 0:
            if self._recorder is None:
                select.select(also, [], [], left)
                return
            with lock, self._halting():
                self.hear()
                self._recorder.wait(left, [*also, lock])
            lock.hand_over()
            if select.select(also, [], [], 0)[0]:
                return

    def flush(self, timeout_s: float) -> None:
        """Raises: AckTimeout, DeadLettered, Halt."""
        if self._recorder is not None:
            with self._halting():
                self._recorder.flush(timeout_s)

    def commit(self, seq: int, timeout_s: float) -> None:
        """Wait until the record with this seq is a row that every reader sees. Raises: AckTimeout, DeadLettered, Halt."""
        if self._recorder is None:
            return
        with self._halting():
            self._recorder.await_acks(timeout_s)
        if seq in self._recorder.dead_letters:
            raise DeadLettered(
                f"record {seq} could not be stored; it lies in {self._recorder.paths.dead_letters} with its reason"
            )

    def recover(self) -> Recovered | None:
        """What the database knows of this strategy, with everything that this run recorded; None when there is nothing to know."""
        if self.paths is None or (self._strategy is None and self._only_strategy() is None):
            return None
        self.open()
        if self.last_seq:
            self.flush(self._lock_timeout_s)
        return self._read()

    def recover_again(self) -> Recovered | None:
        """The same once more, with what this run recorded since; what became a dead letter is told by the next flush."""
        if self._recorder is None:
            return None
        with self._halting():
            self._recorder.await_acks(self._lock_timeout_s)
        return self._read()

    def newest_fill_time(self) -> float | None:
        """When the venue executed the strategy's newest committed fill."""
        if self._recorder is None:
            return None
        with closing(open_reader(self._recorder.paths.database)) as reader:
            return next((row.timestamp for row in fills(reader, strategy=self.strategy, limit=1)), None)

    def fill_by_id(self, fill_id: str) -> tuple[str, Fill] | None:
        """(strategy, fill) of a committed fill, by primary key (R1); what a program of the original inserted counts as ours."""
        stored = fill_by_id(self._lookups(), fill_id) if self._recorder is not None else None
        return None if stored is None else (stored[0] or self.strategy, stored[1])

    def owns(self, order_id: str) -> bool:
        """Whether an order was made by a run of this strategy: the ids of its orders begin with the id of the run."""
        run_id = order_id[:_RUN_ID_LENGTH]
        if self._recorder is None or run_id == self.run_id:
            return run_id == self.run_id
        return strategy_of_run(self._lookups(), run_id) == self.strategy

    def end_lookups(self) -> None:
        """Let go of the connection that a burst of lookups shared."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        self.end_lookups()
        if self._recorder is not None:
            self._recorder.close()

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """What the road raises is the end of the run, except where a method promises it."""
        try:
            yield
        except (AckTimeout, DeadLettered):
            raise
        except Halt as halt:
            self.halt = halt
            raise
        except HorizonError as error:
            raise self.halted(str(error)) from error

    def _read(self) -> Recovered:
        assert self.paths is not None
        with closing(open_reader(self.paths.database)) as reader:
            return recover(reader, self.strategy)

    def _lookups(self) -> apsw.Connection:
        """A connection for lookups, shared by a burst of them. Never an old one: a strategy that opens and closes the database by
        itself drops the locks of this process, and what is read without them may be the past (R11)."""
        now = self._clock.monotonic()
        if self._reader is not None and now - self._reader_since > _LOOKUPS_SHARE_S:
            self.end_lookups()
        if self._reader is None:
            assert self.paths is not None
            self._reader, self._reader_since = open_reader(self.paths.database), now
        return self._reader

    def _only_strategy(self) -> str | None:
        """The one strategy that has rows in the database or records that are still in a journal. Raises: ConfigError for several."""
        assert self.paths is not None
        names = {name for path in self.paths.journals() if (name := _strategy_of(path)) is not None}
        if self.paths.database.exists() and self.paths.database.stat().st_size:
            with closing(open_reader(self.paths.database)) as reader:
                stored = only_strategy(reader)
            names |= set() if stored is None else {stored}
        if len(names) > 1:
            raise ConfigError(
                f"{self.paths.database} holds several strategies ({', '.join(sorted(names))}): say which with Engine(strategy=...)"
            )
        return next(iter(names), None)


def _strategy_of(journal: Path) -> str | None:
    try:
        with closing(JournalReader(journal)) as reader:
            return reader.about.strategy
    except (JournalCorrupt, OSError):
        return None  # damaged or unreadable: the writer reports it; gone: the writer has drained it
