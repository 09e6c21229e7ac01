"""The writer: the only process that opens the databases for writing.

`Writer.run` is a loop of four verbs: read what no message brought, receive messages, commit one batch, answer. One thread does all
that (checkpoints have their own) and commits whatever is there, so the pace sets the batch: alone a record waits for nothing, under
load thousands share a transaction.
An answer always says what is committed, never what was seen (acknowledging the highest seq seen loses data at the first kill).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import NoReturn

import zmq

from horizon import wire
from horizon.channel import Channel, Ready, Stop, WriterBeat
from horizon.clock import Clock
from horizon.errors import DecodeError, ForeignJournal, Halt, JournalCorrupt, StoreError, StoreStalled
from horizon.failpoints import ACTIVE, reach
from horizon.lifeline import Lifeline
from horizon.locks import FileLock
from horizon.metrics import SIZES, Metrics, Reading, Tally
from horizon.paths import SOCKET_NAME, DatabasePaths
from horizon.store.append import Outcome, Store
from horizon.telemetry import Sender
from horizon.writer.batch import Batch, Gap, Run
from horizon.writer.catchup import drained, is_dead, needs_reading, open_run, read_missing, remove
from horizon.writer.commands import obey

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.05  # at journal heads; a frame is read from there when two looks found it unread (R18: 100 ms)
_LIST_EVERY_S = 1.0  # the folder of journals (R14)
_RETRY_S = (0.1, 5.0)  # after a full disk or an I/O error, doubling (R20)
_REFUSE_FOR_S = 2.0  # how long a writer that cannot open its database tells so to those who ask
_PRIVATE_IDLE_S = 5.0  # a private writer leaves when nobody needed it for this long (R15)
_ORPHANED_MAX_S = 60.0  # how long a writer without a supervisor waits for the last strategy to leave
_CLOSING_MAX_S = 60.0  # and how long its last checkpoint may take
_BEAT_EVERY_S = 1.0
_PROBE_EVERY_S = 5.0  # without a commit for so long, an idle writer proves that it still can
# Five bytes each, so that an ack stays within one message. A run must hear of every one (R3): it would have to miss the acks of all these.
_NEWEST_DEAD_LETTERS = 100_000
_MESSAGES_A_ROUND = 1000  # so that no flood of them keeps the writer from committing
_RECEIVE_QUEUE = 64  # messages a run; beyond that its journal is read
_FREE = wire.Control()  # may do everything


class Kind(Enum):
    PRIVATE = "private"  # started by a lone run, belongs to nobody (R15)
    SUPERVISED = "supervised"


class Writer:
    """One writer of one database, from its lock to its last checkpoint."""

    def __init__(
        self,
        paths: DatabasePaths,
        lock: FileLock,
        kind: Kind,
        durability: str,
        channel: Channel | None,
        metrics: Metrics,
        clock: Clock,
        lifeline: Lifeline | None = None,
    ) -> None:
        self._paths = paths
        self._lock = lock
        self._kind = kind
        self._durability = durability
        self._channel = channel
        self._lifeline = lifeline
        self._metrics = metrics
        self._metrics.tell(self._figures)
        self._commit_seconds = Tally()
        self._batch_records = Tally(SIZES)
        self._rows: Counter[str] = Counter()  # committed, by kind
        self._clock = clock
        self._store: Store | None = None
        self._runs: dict[str, Run] = {}
        self._left_alone: set[str] = set()  # journals that are not ours to drain, named once
        self._hellos: dict[bytes, wire.Hello] = {}
        self._commands: dict[bytes, wire.Command] = {}
        self._controls: dict[str, wire.Control] | None = None  # None: to be read again
        self._batch = Batch()
        self._ready = False
        self._stalled: str | None = None  # why the database cannot be written now
        self._stall_s = 0.0
        self._retry_at = 0.0
        self._look_at = 0.0
        self._list_at = 0.0
        self._needed_at = clock.monotonic()
        self._rounds = 0
        self._committed = 0  # records
        self._dead_letters = 0
        self._committed_at = clock.monotonic()
        self._beat_at = 0.0
        self._sender = Sender(paths.metrics_socket, None, metrics.registry) if channel is not None else None
        self._leave_when_alone = False
        self._leave_by: float | None = None
        self._leave_now = False
        self._folder = os.open(paths.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._context = zmq.Context(io_threads=1)
        self._socket = self._bind()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        if channel is not None:
            self._poller.register(channel.fileno(), zmq.POLLIN)

    def run(self) -> None:
        """Serve until nobody needs this writer.

        Raises: Halt when a promise cannot be kept; StoreError for what time cannot cure.
        """
        try:
            while not self._may_leave():
                # Journals first: what is late already must not wait behind a flood of messages.
                self._read_journals()
                self._receive()
                self._commit()
                self._answer()
                self._beat()
        finally:
            self._close()

    def stop(self) -> None:
        """Leave: a private writer at once, a supervised one after the last strategy. Safe to call from a signal handler."""
        if self._kind is Kind.PRIVATE:
            self._leave_now = True
        else:
            self._leave_when_alone = True

    # ---- receive

    def _receive(self) -> None:
        has_work = bool(self._batch.stretches) or any(run.behind or run.dead for run in self._runs.values())
        ready = dict(self._poller.poll(0 if has_work and not self._stalled else int(_LOOK_EVERY_S * 1000)))
        if self._channel is not None and (self._channel.closed or self._channel.fileno() in ready):
            self._hear_supervisor(self._channel)
        if self._socket not in ready:
            return
        receive = self._socket.recv
        for number in range(_MESSAGES_A_ROUND):
            # A record often comes alone: to ask whether there is more takes a third of what the exception takes.
            if number == 1 and not self._poller.poll(0):
                return
            try:
                identity, part = receive(zmq.NOBLOCK), receive(zmq.NOBLOCK, copy=False)
                # A run sends one part. Of several the rest is read too, or it would be taken for the next identity.
                data = b"".join((part.bytes, *self._socket.recv_multipart(zmq.NOBLOCK))) if part.more else part.bytes
                message = wire.decode_from_run(data)
            except zmq.Again:
                return
            except DecodeError:
                self._drop("not_a_message")
                continue
            if isinstance(message, wire.Ship):
                self._take(identity, message)
            elif isinstance(message, wire.Hello):
                self._hellos[identity] = message
                self._list_at = 0.0
            elif isinstance(message, wire.Command):
                self._commands[identity] = message
            elif self._kind is Kind.PRIVATE:
                log.info("giving %s up to %s", self._paths.database, message.asked_by, extra={"action": "writer_give_up"})
                self._leave_now = True

    def _hear_supervisor(self, channel: Channel) -> None:
        for message in channel.receive():
            if isinstance(message, Stop):
                self._leave_when_alone, self._list_at = True, 0.0
                self._leave_by = self._clock.monotonic() + message.deadline_s
        if channel.closed:  # found now, or by a send before
            log.warning("the supervisor is gone; leaving after the last strategy", extra={"action": "supervisor_gone"})
            self._poller.unregister(channel.fileno())
            channel.close()
            self._channel = None
            self._leave_when_alone, self._list_at = True, 0.0
            if self._lifeline is not None:
                self._lifeline.leave_within(_ORPHANED_MAX_S + _CLOSING_MAX_S)

    def _take(self, identity: bytes, message: wire.Ship) -> None:
        run = self._runs.get(identity.decode("ascii", "replace"))
        if run is None:
            # A run that this writer has not met: a new one, or any after a restart. Its journal is found by listing the folder (R14).
            self._list_at = 0.0
            return
        run.owed = True
        if self._batch.full:
            # From its journal when there is room. Not left in the queue: a newcomer's Hello stands behind it.
            run.behind = True
            return
        end = message.offset + len(message.frames)
        if not message.frames or self._stalled or run.gap is not None or end <= run.offset:
            return
        # It may begin with what was read from the journal meanwhile.
        data = message.frames[max(0, run.offset - message.offset) :]
        frames = wire.read_frames(data, run.taken + 1, run.journal.salt)
        if frames.size < len(data):
            stranger = wire.seq_of_frame(memoryview(data), frames.size, run.journal.salt)
            self._drop("not_intact" if stranger is None else "out_of_order", run)
        elif not self._batch.take(run, frames, end, from_journal=False):
            self._drop("not_a_record", run)

    def _drop(self, reason: str, run: Run | None = None) -> None:
        """Drop a message: what it carried is read from the journal (R17), and at once, because more of that run may come behind it."""
        self._metrics.counter("horizon_messages_dropped_total").labels(reason).inc()
        if run is not None:
            run.behind = True

    # ---- read journals

    def _read_journals(self) -> None:
        now = self._clock.monotonic()
        if self._stalled or not self._open_store():
            return
        if now >= self._list_at:
            self._list_at = now + (_LOOK_EVERY_S if self._leave_when_alone else _LIST_EVERY_S)
            try:
                self._list_journals()
            except StoreStalled as error:
                self._stall(error)
                return
        look = now >= self._look_at
        if look:
            self._look_at = now + _LOOK_EVERY_S
        for run in list(self._runs.values()):
            if self._batch.full:
                break  # those that had no room stay in front of those that had
            if run.dead or run.behind or (look and needs_reading(run)):
                read_missing(run, self._batch)
                self._runs[run.run_id] = self._runs.pop(run.run_id)  # the next batch has room for others first

    def _open_store(self) -> bool:
        """Open the databases once; False while that has to wait. What time cannot cure ends the writer."""
        if self._store is not None:
            return True
        try:
            self._store = Store(self._paths, self._durability, self._clock)
        except StoreStalled as error:
            self._stall(error)
            return False
        except StoreError as error:
            self._refuse(str(error))
        return True

    def _refuse(self, reason: str) -> NoReturn:
        """Tell everybody who asks within a moment why there will be no service, then end."""
        until = self._clock.monotonic() + _REFUSE_FOR_S
        answer = wire.Refused(reason)
        for identity in self._hellos:
            self._send(identity, answer)
        while (left := until - self._clock.monotonic()) > 0:
            if self._poller.poll(int(left * 1000) + 1):
                with suppress(zmq.Again):
                    self._send(bytes(self._socket.recv_multipart(zmq.NOBLOCK)[0]), answer)
        raise StoreError(reason)

    def _list_journals(self) -> None:
        """Meet new runs, and notice dead ones: the kernel says so by their strategy's lock (R10)."""
        store = self._own_store()  # also when there is nothing to commit: a folder that was deleted needs no writer any more
        store.tend()  # what a checkpoint met is heard of also when nothing is committed
        for path in self._paths.journals():
            if path.stem not in self._runs and path.name not in self._left_alone:
                self._meet(path, store)
        for run in self._runs.values():
            run.dead = run.dead or is_dead(run.journal.path, run.strategy)
        for hello in self._hellos.values():
            self._bury_older_runs(hello)
        if self._hellos or not all(run.dead for run in self._runs.values()):
            self._needed_at = self._clock.monotonic()
        if not self._ready and not any(run.dead for run in self._runs.values()):
            self._ready = True
            log.info("ready: writing %s", self._paths.database, extra={"action": "writer_ready"})
            if self._channel is not None:
                self._channel.send(Ready(run_id=""))

    def _meet(self, path: Path, store: Store) -> None:
        try:
            run = open_run(path, store)
        except FileNotFoundError:
            return
        except (JournalCorrupt, ForeignJournal, IsADirectoryError, PermissionError) as error:
            self._left_alone.add(path.name)
            log.error("left alone: %s", error, extra={"action": "journal_left_alone"})
            return
        self._runs[run.run_id] = run

    def _bury_older_runs(self, hello: wire.Hello) -> None:
        """A run that says Hello holds its strategy's lock, so every other run of the strategy is dead (R10)."""
        lock = FileLock(self._paths.strategy_lock(hello.strategy))
        # A Hello may have lain in a queue while its sender died: only the lock's holder is believed.
        if f"run={hello.run_id} " in lock.hint() + " ":
            for run in self._runs.values():
                if run.strategy == hello.strategy and run.run_id != hello.run_id:
                    run.dead = True

    # ---- commit

    def _commit(self) -> None:
        if self._stalled and not self._resume():
            return
        batch, self._batch = self._batch, Batch()
        try:
            if batch.stretches:
                self._append(batch)
            for run in list(self._runs.values()):
                if run.gap is not None:
                    self._store_gap(run, run.gap)
                if drained(run):
                    self._finish(run)
            self._obey()
            if self._controls is None and self._store is not None:
                self._controls = self._store.controls()
            self._probe_when_due(has_proved=bool(batch.stretches))
        except StoreStalled as error:
            self._stall(error)
            return
        except StoreError as error:
            self._refuse(str(error))
        # Cured is what stored something again, not what could be opened: else a full disk would be told cured ten times a second.
        if self._stall_s and (batch.stretches or all(run.journal.head_seq <= run.committed for run in self._runs.values())):
            log.warning("resumed: %s can be written again", self._paths.database, extra={"action": "writer_resumed"})
            self._metrics.gauge("horizon_writer_stalled").set(0)
            self._stall_s = 0.0

    def _probe_when_due(self, has_proved: bool) -> None:
        """Only under a supervisor, who wants to know; and at once after a stall: what could be opened again is not yet cured."""
        is_due = self._stall_s > 0 or self._clock.monotonic() - self._committed_at >= _PROBE_EVERY_S
        if is_due and not has_proved and self._ready and self._channel is not None:
            self._own_store().probe()
            self._committed_at = self._clock.monotonic()

    def _append(self, batch: Batch) -> None:
        store = self._own_store()
        started = self._clock.monotonic()
        if ACTIVE:
            reach("writer.batch_taken")
        outcome: Outcome = store.append(batch.stretches)
        if ACTIVE:
            reach("writer.committed")
        self._committed_at = self._clock.monotonic()
        self._committed += batch.records
        self._commit_seconds.observe(self._committed_at - started)
        self._batch_records.observe(batch.records)
        self._rows.update(outcome.rows)
        if outcome.rows.get("risk_event"):
            self._controls = None
        for run_id in batch.runs:
            run = self._runs[run_id]
            run.advance()
            run.owed = True
            run.recover = run.recover or run_id in outcome.recover
            if dead := outcome.dead_letters.get(run_id):
                run.dead_letters += dead
                self._dead_letters += len(dead)
                self._metrics.counter("horizon_dead_letters_total").inc(len(dead))
                log.error(
                    "%d record(s) of %s could not be stored and lie in %s (run %s, seq %d…)",
                    len(dead), run.strategy, self._paths.dead_letters, run_id, dead[0],
                    extra={"action": "dead_letter", "run_id": run_id, "seq": dead[0]},
                )  # fmt: skip

    def _store_gap(self, run: Run, gap: Gap) -> None:
        if run.taken > run.committed:
            return  # what comes before the gap is not committed yet
        self._own_store().record_gap(run.run_id, run.strategy, gap.from_seq, gap.to_seq, gap.reason)
        run.step_over(gap)
        run.owed = True
        self._controls = None
        self._metrics.counter("horizon_gaps_total").inc()
        log.error(
            "records %d to %d of run %s of %s are missing: %s", gap.from_seq, gap.to_seq, run.run_id, run.strategy, gap.reason,
            extra={"action": "gap", "run_id": run.run_id, "seq": gap.from_seq},
        )  # fmt: skip

    def _finish(self, run: Run) -> None:
        self._own_store().close_died_run(run.run_id, self._clock.now())
        remove(run)
        del self._runs[run.run_id]
        self._list_at = 0.0
        log.info("drained run %s of %s", run.run_id, run.strategy, extra={"action": "run_drained", "run_id": run.run_id})

    def _obey(self) -> None:
        """Do what people asked for. A command that has to wait is not kept: it is given again, or given up."""
        if not self._ready or not self._commands:
            return
        runs = {run.run_id: run.strategy for run in self._runs.values()}
        while self._commands:
            identity, command = next(iter(self._commands.items()))
            if command.until is not None and command.until < self._clock.monotonic():
                del self._commands[identity]  # it lay in a queue; whoever gave it was told that it was not confirmed
                continue
            self._controls = None
            answer = obey(command, identity.decode("ascii", "replace"), self._own_store(), runs)
            del self._commands[identity]
            self._needed_at = self._clock.monotonic()
            self._send(identity, answer)

    def _own_store(self) -> Store:
        """The store, if its files still are the ones behind their names (R12). Raises: Halt."""
        assert self._store is not None
        if not (self._lock.has_its_name() and self._store.identity_holds()):
            raise Halt(
                f"{self._paths.database}, its -wal or {self._lock.path} was moved, replaced or deleted under the running writer. "
                "Nothing more is acknowledged; put the file back and start again: the journals have what is missing"
            )
        return self._store

    def _stall(self, error: StoreStalled) -> None:
        """Throw the batch away and wait: disk full, an I/O error, a lock (R19, R20). Nothing is acknowledged meanwhile."""
        self._batch = Batch()
        for run in self._runs.values():
            run.rewind()
        if not self._stall_s:
            self._metrics.gauge("horizon_writer_stalled").set(1)
            log.error("STALLED, nothing is acknowledged until this is cured: %s", error, extra={"action": "writer_stalled"})
        self._stall_s = min(self._stall_s * 2 or _RETRY_S[0], _RETRY_S[1])
        self._retry_at = self._clock.monotonic() + self._stall_s
        self._stalled = str(error)
        self._controls = None  # what was thrown away may be committed: SQLite does not always know

    def _resume(self) -> bool:
        """Try again once the pause is over: with a new connection and cursors reread (R21)."""
        if self._clock.monotonic() < self._retry_at:
            return False
        if self._store is None:
            self._stalled = None  # the next open says whether the cause is gone
            return False
        try:
            self._store.reopen()
        except StoreStalled as error:
            self._stall(error)
            return False
        self._stalled = None
        return True

    # ---- answer

    def _answer(self) -> None:
        for run in self._runs.values():
            # Before the ack: the control includes what the ack confirms.
            if not self._stalled and not run.dead and not self._tell_control(run):
                continue
            if run.owed:
                # Owed until it is on its way: after a restart of the writer the run may not have connected again yet.
                run.owed = not self._send(run.run_id.encode(), wire.Wait(self._stalled) if self._stalled else _ack(run))
        for identity, hello in list(self._hellos.items()):
            answer = self._welcome(hello)
            if isinstance(answer, wire.Welcome) and not self._list_at:
                continue  # it came after the folder was listed, and a journal may lie there that was not met yet (R14)
            if isinstance(answer, wire.Welcome):
                self._send(identity, self._control_of(hello.strategy))
            self._send(identity, answer)
            if not isinstance(answer, wire.Wait):
                del self._hellos[identity]
        for identity in self._commands:
            self._send(identity, wire.Wait(self._stalled or "the database is being opened, and older journals are being drained"))
        self._commands.clear()

    def _tell_control(self, run: Run) -> bool:
        """Tell a run what its strategy may do, when that has changed. Returns whether the run knows the newest."""
        control = self._control_of(run.strategy)
        if run.told != control and self._send(run.run_id.encode(), control):
            run.told = control
        return run.told == control

    def _control_of(self, strategy: str) -> wire.Control:
        return self._controls.get(strategy, _FREE) if self._controls else _FREE

    def _welcome(self, hello: wire.Hello) -> wire.FromWriter:
        if hello.protocol != wire.PROTOCOL:
            return wire.Refused(
                f"the writer of {self._paths.database} (pid {os.getpid()}) speaks protocol {wire.PROTOCOL}, "
                f"pid {hello.pid} speaks {hello.protocol}: run all programs of this database with one version of Horizon"
            )
        if self._stalled is not None or self._store is None or self._controls is None:
            return wire.Wait(self._stalled or "the database is being opened")
        older = [run for run in self._runs.values() if run.strategy == hello.strategy and run.run_id != hello.run_id]
        if older or not self._ready:
            return wire.Wait(f"{len(older) or len(self._runs)} older journal(s) are being drained")
        return wire.Welcome(wire.PROTOCOL, self._store.database_id, os.getpid())

    def _send(self, identity: bytes, message: wire.FromWriter) -> bool:
        """Returns whether it is on its way."""
        try:
            self._socket.send_multipart([identity, wire.encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # EHOSTUNREACH: the run is gone or not connected yet. EAGAIN: it does not read. Both ask again.
            log.debug("an answer could not be sent: %s", error, extra={"action": "answer_dropped"})
            return False
        return True

    # ---- tell the supervisor

    def _figures(self) -> Iterator[Reading]:
        yield Reading("horizon_commit_seconds", self._commit_seconds)
        yield Reading("horizon_batch_records", self._batch_records)
        for kind, count in self._rows.items():
            yield Reading("horizon_records_committed_total", count, (kind,))

    def _beat(self) -> None:
        """From the loop itself: a thread would go on beating for a loop that hangs. Dropped when the supervisor does not read."""
        self._rounds += 1
        now = self._clock.monotonic()
        if self._channel is None or now < self._beat_at:
            return
        self._beat_at = now + _BEAT_EVERY_S
        beat = WriterBeat(self._rounds, self._committed, now - self._committed_at, self._stalled or "", self._dead_letters)
        self._channel.send(beat)
        if self._sender is not None:
            self._sender.maybe_send(now)

    # ---- begin and end

    def _bind(self) -> zmq.Socket[bytes]:
        """Bind the socket; the lock is held, so whoever bound it before is gone (a second bind would silently steal it)."""
        bound: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        bound.setsockopt(zmq.LINGER, 0)
        bound.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else answers to unknown peers are dropped without a word
        bound.setsockopt(zmq.ROUTER_HANDOVER, 1)
        bound.setsockopt(zmq.MAXMSGSIZE, wire.MESSAGE_MAX_BYTES)
        bound.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE)
        bound.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        bound.bind(f"ipc:///proc/self/fd/{self._folder}/{SOCKET_NAME}")
        return bound

    def _may_leave(self) -> bool:
        now = self._clock.monotonic()
        if self._leave_now:
            return True
        if self._leave_when_alone:
            self._leave_by = self._leave_by or now + _ORPHANED_MAX_S
            return (self._ready and not self._stalled and self._is_alone()) or now > self._leave_by
        idle = not self._runs and not self._hellos and now - self._needed_at > _PRIVATE_IDLE_S
        return self._kind is Kind.PRIVATE and self._ready and idle

    def _is_alone(self) -> bool:
        """By the folder: a run that began a moment ago has a journal there, and was not met yet."""
        return not self._runs and all(path.name in self._left_alone for path in self._paths.journals())

    def _close(self) -> None:
        if ACTIVE:
            reach("writer.stopping")
        if self._sender is not None:
            self._sender.close()
        self._socket.close(linger=0)
        self._context.term()
        for run in self._runs.values():
            run.journal.close()
        if self._store is not None:
            try:
                self._store.checkpoint()
            except StoreError as error:
                log.warning(
                    "no last checkpoint, the next start makes up for it: %s", error, extra={"action": "checkpoint_failed"}
                )
            self._store.close()
        os.close(self._folder)
        self._lock.release()


def _ack(run: Run) -> wire.Ack:
    return wire.Ack(run.committed, tuple(run.dead_letters[-_NEWEST_DEAD_LETTERS:]), run.recover)
