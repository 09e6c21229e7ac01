"""The store of the writer process: commit batches of frames, once each, and say what became of them.

Why record by record only after a refusal: a batch of good records is one executemany per table, twenty times cheaper than a savepoint
for each. A bad record or a known fill is rare; then the batch is rolled back and repeated singly, and no neighbour suffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import astuple

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import StoreError, StoreRefused
from horizon.failpoints import ACTIVE, reach
from horizon.paths import DatabasePaths
from horizon.store.actions import Task, letter_of, perform
from horizon.store.checkpoints import beside
from horizon.store.connection import check_durability, open_writer, set_durability
from horizon.store.controls import all_controls
from horizon.store.dead_letters import DeadLetters
from horizon.store.place import refuse_unfit_place
from horizon.store.sql import QUERIES
from horizon.store.transaction import Advance, Entry, FillKnown, Stretch, Transaction
from horizon.store.translate import savepoint, transaction, translated
from horizon.wire import Command, Control

__all__ = ["Outcome", "Store", "Stretch"]

_CAPTURED = "it became a dead letter before, in a transaction that was cut off"


class Outcome(NamedTuple):
    """What one append did."""

    committed: dict[str, int]  # run_id -> committed_seq, for every run that had a record
    dead_letters: dict[str, list[int]]  # run_id -> seqs that became dead letters
    recover: set[str]  # runs whose snapshot was refused because they do not know all fills of their strategy (R2)
    rows: dict[str, int]  # how many: fill, order_event, snapshot, risk_event, run, duplicate, amended, conflict, …


class Store:
    """The open databases of one writer. For one thread.

    Durability: what `append` returned survives the death of every process; with `power` a power cut too.
    Raises: StoreStalled when nothing was done and another try may work; StoreError when a person has to act.
    """

    database_id: str  # random, given when the database is made or upgraded

    def __init__(self, paths: DatabasePaths, durability: str = "process", clock: Clock = SYSTEM_CLOCK) -> None:
        check_durability(durability)
        self._paths = paths
        self._durability = durability
        self._clock = clock
        _refuse_lost_database(paths)
        with translated(paths.folder):
            refuse_unfit_place(paths.database)
            paths.folder.mkdir(exist_ok=True)
        self._open()

    def append(self, stretches: Iterable[Stretch]) -> Outcome:
        """Commit records in one transaction, in their order.

        Shape: several runs may mix; per run a seq up to its cursor is skipped, beyond that they rise by 1.
        Raises: ValueError when a seq is missing; StoreStalled, StoreError with nothing committed. A bad record never raises: it
        becomes a dead letter, committed before its seq is passed (R27).
        """
        self.tend()
        committed, pending = self._pending(stretches)
        if not pending:
            return Outcome(committed, {}, set(), {})
        try:
            done = self._commit(pending)
        except BaseException:
            self._captured.clear()  # letters may have been captured by what failed
            raise
        dead_letters: dict[str, list[int]] = {}
        for letter in done.dead_letters:
            dead_letters.setdefault(letter.run_id, []).append(letter.seq)
        return Outcome(committed, dead_letters, done.recover, dict(+done.counts))

    def cursor(self, run_id: str) -> int:
        """The committed seq of a run; 0 for one that is not known."""
        with translated(self._paths.database):
            row = self._connection.execute(QUERIES["committed_seq"], (run_id,)).fetchone()
        return 0 if row is None else int(row[0])

    def dead_letters(self, run_id: str) -> list[int]:
        """Every seq of a run that is a dead letter, rising."""
        return self._dead_letters.seqs(run_id)

    def record_gap(self, run_id: str, strategy: str, from_seq: int, to_seq: int, reason: str) -> None:
        """Pass seqs that no journal can give back (R13). Nothing happens when they are passed already.

        Raises: ValueError when the gap does not begin behind the run's cursor.
        """
        cursor = self.cursor(run_id)
        if to_seq <= cursor:
            return
        if from_seq != cursor + 1:
            raise ValueError(f"run {run_id} is committed up to {cursor}: a gap cannot begin at {from_seq}")
        with translated(self._paths.database), transaction(self._connection):
            self._connection.execute(QUERIES["insert_gap"], (run_id, from_seq, to_seq, reason, self._clock.now()))
            self._connection.execute(QUERIES["advance_run"], astuple(Advance(run_id, strategy, to_seq)))

    def close_died_run(self, run_id: str, ended_at: float) -> None:
        """End a run whose process is gone. Nothing happens to one that has ended, or is not known."""
        with translated(self._paths.database), transaction(self._connection):
            self._connection.execute(QUERIES["end_died_run"], {"run_id": run_id, "ended_at": ended_at})

    def operate(self, command_id: str, command: Command, runs: Mapping[str, str]) -> str:
        """Do what a person asks for, once for each id, and return what was done.

        `runs` are the runs that live or are not drained yet, with their strategies. Raises: CommandRefused with nothing changed;
        StoreStalled and StoreError, after which the same command may be given again.
        """
        now = self._clock.now()
        with translated(self._paths.database), transaction(self._connection):
            done = perform(Task(self._connection, self._dead_letters, command_id, command, now, runs))
        # After the commit: a lost mark is made up for when the command comes again, a mark without the deed would be a lie.
        if command.action == "replay":
            self._dead_letters.mark_replayed(*letter_of(command), now)
        elif command.action == "dismiss":
            self._dead_letters.mark_dismissed(*letter_of(command), now, command.who)
        return done

    def probe(self) -> None:
        """Commit something, to know that it can be done now. Raises: StoreStalled, StoreError."""
        self.tend()
        with translated(self._paths.database), transaction(self._connection):
            self._connection.execute(QUERIES["probe"], {"now": self._clock.now()})

    def controls(self) -> dict[str, Control]:
        """What every strategy may do that is not free to do everything."""
        with translated(self._paths.database):
            return all_controls(self._connection)

    def raise_durability(self, durability: str) -> None:
        """Commit with the highest durability that any run asked for (R26); never lowers it."""
        check_durability(durability)
        if durability == "power" and self._durability != "power":
            self._durability = durability
            with translated(self._paths.database):
                set_durability(self._connection, durability)
            self._dead_letters.set_durability(durability)

    def tend(self) -> None:
        """Keep the checkpoints beside the commits going. Raises: StoreStalled, StoreError, also for what happened there."""
        if self._checkpoints is not None:
            self._checkpoints.tend()

    def checkpoint(self) -> None:
        """Move what is committed from the WAL into the database, as far as readers allow, and sync it."""
        if ACTIVE:
            reach("writer.checkpointing")
        if self._checkpoints is not None:
            self._checkpoints.finish()
        else:
            with translated(self._paths.database):
                self._connection.wal_checkpoint()
        self._dead_letters.checkpoint()

    def reopen(self) -> None:
        """Start over with fresh connections after a failed commit (R21); the caller reads its cursors again.

        Raises: StoreStalled, StoreError. The store takes nothing until a reopen has succeeded.
        """
        self.close()
        if _identity(self._paths.database) != self._identities[0]:
            raise StoreError(
                f"{self._paths.database} was moved, deleted or replaced while its writer ran: put the right file back"
            )
        self._open()
        self.checkpoint()

    def identity_holds(self) -> bool:
        """Whether the database and its -wal still are the files that were opened, by device and inode (R12)."""
        return self._identities == (_identity(self._paths.database), _identity(self._wal))

    def close(self) -> None:
        """Close the connections; SQLite checkpoints when the last one to a file closes."""
        if self._checkpoints is not None:
            self._checkpoints.close()
        self._connection.close()
        self._dead_letters.close()

    def _open(self) -> None:
        with ExitStack() as opened:
            self._connection = opened.enter_context(closing(open_writer(self._paths.database, self._durability, self._clock)))
            with translated(self._paths.database):
                self.database_id = str(self._connection.execute(QUERIES["meta"], {"key": "database_id"}).get)
                self._wal = Path(self._connection.filename_wal)
            self._identities = (_identity(self._paths.database), _identity(self._wal))
            self._dead_letters = opened.enter_context(closing(DeadLetters(self._paths.dead_letters, self._durability)))
            with translated(self._paths.database):
                self._checkpoints = beside(self._connection, self._paths.database, self.identity_holds)
            opened.pop_all()
        self._captured: dict[str, frozenset[int]] = {}  # run_id -> dead letters whose seq is not passed yet

    def _pending(self, stretches: Iterable[Stretch]) -> tuple[dict[str, int], list[Stretch]]:
        """How far each run will be, and what is not committed yet."""
        seqs: dict[str, int] = {}
        pending: list[Stretch] = []
        for stretch in stretches:
            run_id = stretch.run_id
            last = seqs.get(run_id)
            if last is None:
                # Read each time, though it is a tenth of the cost of a single record: somebody may put an older database in place.
                last = seqs[run_id] = self.cursor(run_id)
                if run_id not in self._captured:
                    self._captured[run_id] = frozenset(self._dead_letters.seqs(run_id, after=last))
            if stretch.last_seq <= last:
                continue
            if stretch.first_seq > last + 1:
                raise ValueError(f"run {run_id} is at seq {last}: {stretch.first_seq} cannot come next")
            seqs[run_id] = stretch.last_seq
            fresh = stretch.behind(last)
            captured = dict.fromkeys(self._captured[run_id].intersection(fresh.seqs), _CAPTURED)
            pending.append(fresh._replace(problems={**fresh.problems, **captured}) if captured else fresh)
        return seqs, pending

    def _commit(self, stretches: Sequence[Stretch]) -> Transaction:
        try:
            with self._transaction() as work:
                work.write(stretches)
        except (StoreRefused, FillKnown):
            with self._transaction() as work:
                for entry in chain.from_iterable(stretch.entries() for stretch in stretches):
                    self._write_singly(work, entry)
        return work

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        with translated(self._paths.database), transaction(self._connection):
            work = Transaction(self._connection, self._clock.now())
            yield work
            work.finish()
            if work.dead_letters:
                self._dead_letters.capture(work.dead_letters)

    def _write_singly(self, work: Transaction, entry: Entry) -> None:
        try:
            with translated(self._paths.database), savepoint(self._connection):
                try:
                    work.write((Stretch.of(entry),))
                except FillKnown:
                    work.write_known_fill(entry)
        except StoreRefused as error:
            work.bury(entry, "unstorable", str(error))


def _refuse_lost_database(paths: DatabasePaths) -> None:
    """A database is made only where no journal is left: its records would look like those of another one (R13)."""
    is_new = not paths.database.exists() or paths.database.stat().st_size == 0
    if is_new and paths.journals():
        raise StoreError(
            f"{paths.database} is missing, but {paths.folder} holds journals with records of it: restore the database from a backup, "
            "or move the journals away to begin with an empty one"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
