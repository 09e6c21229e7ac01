"""The supervisor's loop: it starts the writer, then the strategies, starts again what a new start can cure, and stops all in order.

One thread, which never waits for a child, a terminal or a disk. After a wake-up those are looked at who caused it, and ten times a second
all of them, for what wakes nobody: deadlines, memory, what was printed. What happens to a process becomes an event of worker_states.py,
which decides; what it decides is done here.

Order: no worker starts before the writer is ready, and the writer is told to stop only when every worker is gone. The gateway comes beside
them and leaves last; nobody waits for it. A death touches nobody else: workers trade on while their writer is started again (they have
their journals).
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Protocol

from horizon.channel import Channel
from horizon.cli.live import StrategyRow
from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.config import Config
from horizon.control import Reply, StatusReply
from horizon.errors import ExitCode
from horizon.failpoints import ACTIVE, reach
from horizon.ids import new_run_id
from horizon.paths import DatabasePaths
from supervisor.cgroups import Groups
from supervisor.child import Child
from supervisor.control import AskAgain, ControlServer, without_harm
from supervisor.desired import Desired
from supervisor.judging import leaves_hangs_alone, rules_of, verdict_of
from supervisor.limits import Mark
from supervisor.liveness import Verdict, Watch, asleep
from supervisor.notify import Notifier
from supervisor.pace import Pace
from supervisor.policy import describe_end
from supervisor.reload import Plan
from supervisor.slot import Slot
from supervisor.strangers import Strangers
from supervisor.summary import is_up, status_line, status_of
from supervisor.wakeups import Wakeups
from supervisor.worker_states import (
    Action,
    AskToStop,
    Beat,
    BecameReady,
    Due,
    Ended,
    Event,
    Hung,
    Kill,
    Late,
    Life,
    Quarantine,
    Reset,
    Restart,
    Say,
    Spawn,
    Started,
    StartFailed,
    State,
    TooMuch,
    Unwant,
    Want,
    step,
)

log = logging.getLogger(__name__)

_TICK_S = 0.1  # how late a deadline may be noticed
_DUMP_TICK_S = 0.02  # the same while a process is asked what it does
_SHOW_EVERY_S = 0.5
_STARTING_S = 0.008  # of one turn goes into starts, of which one takes about 2 ms; at least one is made
# Each takes a processor for itself at first. More of them would only take it from one another, and from the strategies that trade already.
_LOADING_AT_ONCE = max(2, len(os.sched_getaffinity(0)))
_WRITER_START_S = 30.0  # how long a run of limited duration waits for its writer
# Without a writer nothing is acknowledged any more: workers cancel their orders, and their records wait in the journals.
_STOP_WITHOUT_WRITER_S = 3.0
_WRITER_AGAIN_S = 0.25  # between the starts of a writer that dies while all is being stopped
_GATEWAY_STOP_S = 2.0
_EXTEND_S = 10.0  # how much longer systemd shall wait while all is being stopped; every deadline is ours
_LAST_SAVE_S = 2.0
_ITSELF = "the supervisor"
_UNKILLABLE = (
    "was killed and does not end: it waits in the kernel, mostly for a disk or a network file system that does not answer; "
    "nothing can end it before that does"
)

Start = Callable[[Config, str, float], Child]  # name of the process, monotonic time; raises OSError, RuntimeError


class Lines(Protocol):
    """What the loop needs of the log sink: a place for what processes wrote past their logs. Never waits."""

    dropped: int

    def offer(self, process: str, text: str, pid: int | None = None, run_id: str = "", level: int = logging.WARNING) -> None: ...


class Supervisor:
    """One run of `horizon up`, from the start of its writer to the end of it."""

    def __init__(
        self,
        config: Config,
        paths: DatabasePaths,
        start: Start,
        show: Callable[[Sequence[StrategyRow]], None],
        *,
        sink: Lines | None = None,
        notifier: Notifier | None = None,
        strangers: Strangers | None = None,
        groups: Groups | None = None,
        why_no_groups: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
    ) -> None:
        """Raises: StoreError when what people decided about the strategies cannot be read."""
        self.config = config
        self.desired = Desired(paths.desired)
        self.writer = Slot("writer", "writer", Life())
        self.gateway = Slot("gateway", "gateway", Life()) if config.metrics.enabled else None
        self.workers = [Slot(name, "strategy", Life()) for name in config.strategies]
        self._control: ControlServer | None = None
        self._reload_by_signal: Callable[[], Reply | AskAgain] | None = None
        self._reloading: AskAgain | None = None
        self.pace = Pace()
        self.sink = sink
        self._paths = paths
        self._start = start
        self._show = show
        self._notifier = notifier or Notifier(None)
        self._strangers = strangers
        self._groups = groups
        self.why_no_groups = why_no_groups
        self._clock = clock
        self._random = random or Random()  # noqa: S311
        self._selector = selectors.DefaultSelector()
        self._begun_at = clock.monotonic()
        self._looked_at = self._begun_at
        self._looked_at_all_at = float("-inf")
        self._show_at = 0.0
        self._said_up = False
        self._first_run = new_run_id()  # run ids rise: what is larger was begun under this supervisor
        self._had_a_writer = False  # one that was ready
        self._end_at: float | None = None  # the end of the duration asked for
        self._ending: ExitCode | None = None  # with which code all ends, if it goes well
        self._stop_within_s: float | None = None  # when it is not the configuration's
        self._writer_stop_by: float | None = None  # set when the last worker is gone
        self._writer_again_at = 0.0
        self._writer_has_left = False
        self._someone_was_forced = False

    def steered_by(self, control: ControlServer, reload: Callable[[], Reply | AskAgain]) -> None:
        """Before `run`: where commands come in, and what SIGHUP does when a service manager started this process."""
        self._control = control
        self._reload_by_signal = reload

    def run(self, duration_s: float | None = None) -> ExitCode:
        """Supervise until a signal, until every strategy is done, or until `duration_s` are over.

        They count from the moment the writer is first ready; one that is not ready within half a minute ends a limited run.
        """
        self._end_at = None if duration_s is None else self._clock.monotonic() + _WRITER_START_S
        self._want_all()
        with Wakeups() as wakeups, self._selector:
            self._selector.register(wakeups, selectors.EVENT_READ)
            if self._control is not None:
                self._control.register(self._selector)
            while not self._is_over():
                more_is_due = self._start_what_is_due()
                woken_by = self._wait(may_sleep=not more_is_due)
                self._hear_signals(wakeups)
                self._look_at_the_living(woken_by, duration_s)
                self._stop_who_shall_stop()
                self._tell()
                if ACTIVE:
                    reach("supervisor.running")
        if self._strangers is not None:
            self._strangers.look(self._clock.monotonic(), frozenset(), someone_died=True)
        self.desired.finish(_LAST_SAVE_S)
        return self._result()

    def left_journals(self) -> list[Path]:
        """The journals of runs begun under this supervisor that are still there: the writer removes one when all of it is stored."""
        return [path for path in self._paths.journals() if path.stem >= self._first_run]

    @property
    def slots(self) -> Iterator[Slot]:
        """In the order of their start."""
        yield self.writer
        yield from self.workers
        if self.gateway is not None:
            yield self.gateway

    @property
    def is_stopping(self) -> bool:
        return self._ending is not None

    # ---- what people ask for; called in the loop's thread, done in its turns

    def status(self) -> StatusReply:
        return status_of(self, self._clock.monotonic() - self._begun_at, self._clock.monotonic())

    def want(self, name: str, by: str) -> None:
        self._steer(name, Want(by))

    def unwant(self, name: str, by: str) -> None:
        self._steer(name, Unwant(by))

    def restart(self, name: str, by: str) -> None:
        self._steer(name, Restart(by))

    def reset(self, name: str, by: str) -> None:
        self._steer(name, Reset(by))

    def starts(self, name: str) -> int:
        """How many incarnations a strategy has had under this supervisor. 0: there is no such strategy."""
        return next((slot.did.starts for slot in self.slots if slot.name == name), 0)

    def begin_dump(self, name: str) -> None:
        """Ask a process what each of its threads does; `dump_text` has the answer some turns later."""
        slot = self._slot(name)
        slot.dump_text = None
        child = slot.child
        if child is None:
            slot.dump_text = f"{name} is {slot.life.state.value}: no process of it runs"
        elif child.dump is None or not child.dump.ask(child.pid, self._clock.monotonic()):
            slot.dump_text = f"{name} (pid {child.pid}) cannot be asked: it has only begun, or has taken our signal for itself"

    def dump_text(self, name: str) -> str | None:
        return self._slot(name).dump_text

    def reload(self, new: Config, plan: Plan) -> None:
        """Put another configuration in force. It is valid, and `plan` is the difference to the one before."""
        self.config = new
        for name in plan.remove:
            slot = self._slot(name)
            slot.is_leaving = True
            self.desired.forget(name)
            self._feed(slot, Unwant("the configuration"))
            if slot.is_over:
                self._drop(slot)
        for name in plan.add:
            self._add(name)
        for name in plan.restart:
            slot = self._slot(name)
            if slot.life.state is State.QUARANTINED:
                self._feed(slot, Reset("the configuration"))  # what was wrong with it may be what was changed
            elif slot.life.wanted:
                self._feed(slot, Restart("the configuration"))
        order = list(new.strategies)
        self.workers.sort(key=lambda slot: order.index(slot.name) if slot.name in order else len(order))

    def down(self, by: str) -> None:
        if self._ending is None:
            log.info("%s: stopping the strategies, then the writer", by, extra={"action": "stop"})
            self._end(ExitCode.DONE)

    def _steer(self, name: str, event: Event) -> None:
        """Raises: KeyError."""
        slot = self._slot(name)
        if not slot.is_leaving:  # what the configuration does not have any more cannot be started, and is stopped already
            self._feed(slot, event)

    def _slot(self, name: str) -> Slot:
        """Raises: KeyError."""
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise KeyError(name)

    def _add(self, name: str) -> None:
        try:
            slot = self._slot(name)  # on its way out by an earlier reload
        except KeyError:
            kind = "gateway" if name == "gateway" else "strategy"
            slot = Slot(name, "gateway" if name == "gateway" else "strategy", Life())
            if kind == "gateway":
                self.gateway = slot
            else:
                self.workers.append(slot)
        slot.is_leaving = False
        self._feed(slot, Want("the configuration"))

    # ---- events and what they lead to

    def _want_all(self) -> None:
        for slot in self.slots:
            why = self.desired.quarantine_of(slot.name)
            if self.desired.is_stopped(slot.name):
                log.info(
                    "%s is not started: it was stopped by hand", slot.title, extra={"action": "left_stopped", "about": slot.name}
                )
                continue
            self._feed(slot, Want(_ITSELF))
            if why is not None:
                self._feed(slot, Quarantine(why))

    def _feed(self, slot: Slot, event: Event) -> None:
        """Let something happen to a process, and do what is to be done about it."""
        now = self._clock.monotonic()
        slot.life, actions = step(slot.life, event, now, rules_of(slot, self.config), self._random)
        for action in actions:
            self._act(slot, action, now)
        if slot.kind == "strategy" and self._ending is None and not slot.is_leaving:
            # A file that is wrong may be corrected while the supervisor is down: that quarantine is not kept.
            is_kept = slot.life.state is State.QUARANTINED and slot.exit_code not in (ExitCode.USAGE, ExitCode.STRATEGY)
            self.desired.note(slot.name, is_stopped=not slot.life.wanted, quarantine=slot.life.why if is_kept else None)

    def _act(self, slot: Slot, action: Action, now: float) -> None:
        match action:
            case Spawn():
                self._spawn(slot, now)
            case AskToStop():
                if slot.child is not None:
                    by = now + self._stop_timeout_s(slot)
                    slot.child.stop(by if slot.child.stop_by is None else min(by, slot.child.stop_by))
            case Kill():
                if slot.child is not None:
                    slot.child.kill_soon(now)
            case Say(level, sentence, key):
                self._say(slot, level, sentence, key)

    def _stop_timeout_s(self, slot: Slot) -> float:
        if slot.kind == "gateway":
            return _GATEWAY_STOP_S
        return self.config.supervisor.stop_timeout_s if self._stop_within_s is None else self._stop_within_s

    def _say(self, slot: Slot, level: int, sentence: str, key: str) -> None:
        log.log(level, "%s %s", slot.title, sentence, extra={"action": key, "about": slot.name})

    # ---- start

    def _start_what_is_due(self) -> bool:
        """Returns whether more is due than this turn has time for."""
        begun = now = self._clock.monotonic()
        due = [slot for slot in self.slots if slot.child is None and slot.life.start_at is not None and now >= slot.life.start_at]
        if not due:
            return False
        loading = sum(slot.is_loading(now) for slot in self.workers)
        for slot in due:
            if slot is not self.writer and (not self.writer.is_ready or loading >= _LOADING_AT_ONCE):
                continue
            if now - begun >= _STARTING_S:
                return True
            self._feed(slot, Due())
            loading += 1
            now = self._clock.monotonic()
        return False

    def _spawn(self, slot: Slot, now: float) -> None:
        try:
            child = self._start(self.config, slot.name, now)
        except (OSError, RuntimeError, MemoryError) as error:  # no thread to be had is a RuntimeError
            self._feed(slot, StartFailed(f"cannot be started: {error or 'no memory'}"))
            return
        if ACTIVE:
            reach("supervisor.starting")
        self._selector.register(child.pidfd, selectors.EVENT_READ, slot)
        self._selector.register(child.channel, selectors.EVENT_READ, slot)
        slot.begin(child, Watch(now, beats_before_ready=slot.kind == "writer"))
        self._feed(slot, Started(child.pid))

    # ---- wait

    def _wait(self, may_sleep: bool) -> Set[Slot]:
        """Until something happens or all are to be looked at. Returns whose process has said something or ended."""
        now = self._clock.monotonic()
        self.pace.end(now)
        events = self._selector.select(max(0.0, self._look_at_all_at() - now) if may_sleep else 0.0)
        self.pace.begin(self._clock.monotonic())
        return {key.data for key, _ in events if key.data is not None}

    def _look_at_all_at(self) -> float:
        is_asked = any(slot.child and slot.child.dump and slot.child.dump.is_asked for slot in self.slots)
        return self._looked_at_all_at + (_DUMP_TICK_S if is_asked else _TICK_S)

    # ---- look

    def _look_at_the_living(self, woken_by: Set[Slot], duration_s: float | None) -> None:
        now = self._clock.monotonic()
        self._forgive(self._looked_at, now)
        self._looked_at = now
        all_are_due = now >= self._look_at_all_at()
        if all_are_due:
            self._looked_at_all_at = now
        ended = 0
        for slot in list(self.slots if all_are_due else woken_by):
            if slot.child is not None:
                ended += self._look_at(slot, slot.child, now)
        if self.writer.is_ready and not self._had_a_writer:
            self._had_a_writer = True
            self._end_at = None if duration_s is None else now + duration_s
        if self._strangers is not None and (all_are_due or ended):
            self._strangers.look(now, {slot.child.pid for slot in self.slots if slot.child}, someone_died=bool(ended))
        if self._groups is not None:
            self._groups.sweep(now)

    def _forgive(self, previous: float, now: float) -> None:
        """Nobody is judged by the time in which the supervisor slept, or in which he had to wait for the writer."""
        gap_s = asleep(previous, now)
        writer_works = self.writer.is_ready and not (self.writer.writer_beat and self.writer.writer_beat.stalled)
        if gap_s or not writer_works:
            for slot in self.slots:
                slot.shift(now - previous if slot.waits_for_a_writer and not writer_works else gap_s)

    def _look_at(self, slot: Slot, child: Child, now: float) -> bool:
        """Returns whether it has ended."""
        exit_code = child.exit_code()  # asked first: what a dead process said is then complete
        if slot.hear(now):
            self._feed(slot, BecameReady())
        if new := slot.new_garbage(now, has_ended=exit_code is not None):
            self._say(slot, logging.WARNING, f"sent {new} messages that nobody understands", "garbage")
        if (trouble := slot.news_of_the_database()) is not None:
            sentence = f"cannot store: {trouble}" if trouble else "stores again"
            self._say(slot, logging.WARNING, sentence, "stalled" if trouble else "resumed")
        self._pass_on(slot, child)
        if child.channel.closed:
            self._ignore(child.channel)
        if exit_code is not None:
            self._bury(slot, child, exit_code)
            return True
        self._judge(slot, now)
        return False

    def _pass_on(self, slot: Slot, child: Child) -> None:
        """What it printed past its log, and what it answered when asked for its stacks."""
        if child.output is not None:
            for line in child.output.texts():
                self._offer(slot, line)
        if child.dump is not None and child.dump.is_asked and (text := child.dump.answer(self._clock.monotonic())) is not None:
            slot.dump_text = text or f"{slot.name} (pid {child.pid}) did not answer"
            log.warning(
                "%s (pid %d) does this:\n%s", slot.title, child.pid, slot.dump_text, extra={"action": "dump", "about": slot.name}
            )

    def _offer(self, slot: Slot, text: str) -> None:
        if self.sink is not None and slot.child is not None:
            self.sink.offer(slot.name, text, slot.child.pid, slot.run_id)

    def _judge(self, slot: Slot, now: float) -> None:
        """Whether it still shows signs of life. Who is being stopped or killed has a deadline of another kind."""
        assert slot.child is not None
        assert slot.watch is not None
        if slot.child.is_unkillable(now) and not slot.child.said_unkillable:
            slot.child.said_unkillable = True
            self._say(slot, logging.CRITICAL, f"(pid {slot.child.pid}) {_UNKILLABLE}", "unkillable")
        if slot.child.stop_by is not None or slot.child.kill_at is not None:
            return
        self._watch_memory(slot, slot.child, now)
        verdict = verdict_of(slot, now, self.config)
        if verdict is Verdict.FINE:
            slot.said_hang = False
            if slot.life.state is State.DEGRADED:
                self._feed(slot, Beat())
        elif verdict is Verdict.LATE:
            self._feed(slot, Late())
        elif not leaves_hangs_alone(slot, self.config):
            self._feed(slot, Hung(slot.hang(now)))
        elif not slot.said_hang:
            slot.said_hang = True
            self._feed(slot, Late())
            self._say(slot, logging.CRITICAL, f'{slot.silence(now)}; it is left alone because of on_hang = "alert"', "hang")
            if slot.child.dump is not None:
                slot.child.dump.ask(slot.child.pid, now)

    def _watch_memory(self, slot: Slot, child: Child, now: float) -> None:
        table = self.config.strategies.get(slot.name) if slot.kind == "strategy" else None
        if table is None:
            return
        mark, sentence = slot.memory.look(child.pid, table.limits, now)
        if mark is Mark.MAX:
            self._feed(slot, TooMuch(sentence))
        elif mark is Mark.HIGH:
            self._say(slot, logging.WARNING, sentence, "limit")

    def _bury(self, slot: Slot, child: Child, exit_code: int) -> None:
        self._ignore(child.pidfd)
        self._ignore(child.channel)
        self._hear_last_words(slot, child, exit_code)
        self._someone_was_forced |= child.was_forced and self._ending is not None
        was_told = child.stop_by is not None
        by_signal = slot.draining.by_signal if slot.draining else 0
        because = slot.why_killed(exit_code)
        if child.group is not None and self._groups is not None:
            because = because or (child.group.why_killed() if exit_code == -signal.SIGKILL else "")
            self._groups.let_go(child.group)
        slot.bury(exit_code, because or describe_end(exit_code))
        self._feed(slot, Ended(exit_code, was_told, by_signal, because))
        if slot.is_leaving and slot.is_over:
            self._drop(slot)

    def _hear_last_words(self, slot: Slot, child: Child, exit_code: int) -> None:
        """What the pipe still holds, and what the interpreter wrote about a segmentation fault."""
        if child.output is not None:
            for line in child.output.last():
                self._offer(slot, line)
        if child.dump is not None and exit_code < 0 and (text := child.dump.take()):
            log.warning("the last of %s (pid %d):\n%s", slot.title, child.pid, text, extra={"action": "dump", "about": slot.name})

    def _drop(self, slot: Slot) -> None:
        if slot is self.gateway:
            self.gateway = None
        else:
            self.workers.remove(slot)

    def _ignore(self, what: Channel | int) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(what)

    # ---- stop

    def _hear_signals(self, wakeups: Wakeups) -> None:
        for number in wakeups.take():
            if number == signal.SIGHUP and self._reload_by_signal is not None and self._notifier.is_heard:
                if self._ending is None:
                    self._begin_reload(self._reload_by_signal)
            elif self._ending is None:
                log.info("%s: stopping the strategies, then the writer", number.name, extra={"action": "stop"})
                self._end(ExitCode.DONE)
            else:
                log.info("%s again: half of the time that was left", number.name, extra={"action": "hurry"})
                self._hurry()

    def _stop_who_shall_stop(self) -> None:
        now = self._clock.monotonic()
        self._decide_to_end(now)
        if self._ending is not None:
            if ACTIVE:
                reach("supervisor.stopping")
            if all(slot.is_over for slot in self.workers):
                self._stop_the_writer(now)
            # One in quarantine is wanted and comes no more; the gateway may not even have been started then.
            is_without_writer = not self.writer.life.wanted or self.writer.life.state is State.QUARANTINED
            if self.writer.is_over and is_without_writer and self.gateway is not None:
                self._let_go(self.gateway)
        for slot in self.slots:
            if slot.child is not None:
                slot.child.press(now)

    def _decide_to_end(self, now: float) -> None:
        if self._ending is not None:
            return
        if self.writer.life.state is State.QUARANTINED:
            log.critical("without a writer nothing can be stored, so everything stops", extra={"action": "writer_failed"})
            code = self.writer.exit_code
            self._stop_within_s = _STOP_WITHOUT_WRITER_S
            self._end(ExitCode(code) if code in (ExitCode.STORE, ExitCode.USAGE) else ExitCode.FAILED)
        elif self._end_at is not None and now >= self._end_at:
            log.info("the time is over: stopping the strategies, then the writer", extra={"action": "stop"})
            # A writer that was never ready has its reasons in the log; whoever waits for the exit code must learn it too.
            self._end(ExitCode.DONE if self._had_a_writer else ExitCode.FAILED)
        elif self.workers and all(slot.life.is_done for slot in self.workers):
            log.info("every strategy has ended: stopping the writer", extra={"action": "stop"})
            self._end(ExitCode.DONE)
        elif self.workers and all(slot.is_a_wrong_start for slot in self.workers):
            log.info("no strategy can run as it is: stopping the writer", extra={"action": "stop"})
            self._end(ExitCode(next(slot.exit_code for slot in self.workers if slot.exit_code)))

    def _end(self, exit_code: ExitCode) -> None:
        self._ending = exit_code
        self._notifier.stopping()
        for slot in self.workers:
            self._let_go(slot)

    def _let_go(self, slot: Slot) -> None:
        """Not wanted any more, because all ends. What is in quarantine stays what it is."""
        if slot.life.wanted and slot.life.state is not State.QUARANTINED:
            self._feed(slot, Unwant(_ITSELF))

    def _hurry(self) -> None:
        now = self._clock.monotonic()
        for slot in self.slots:
            if slot.child is not None and slot.child.stop_by is not None:
                slot.child.stop(now + max(0.0, slot.child.stop_by - now) / 2)

    def _stop_the_writer(self, now: float) -> None:
        """Last, when nobody records any more. One that died is started again, as long as there is something to store."""
        writer = self.writer
        if self._writer_stop_by is None:
            self._writer_stop_by = now + self.config.supervisor.stop_timeout_s
        has_work = writer.life.state is not State.QUARANTINED and now < self._writer_stop_by and bool(self.left_journals())
        if writer.child is not None or not has_work:
            self._let_go(writer)
            self._writer_has_left = writer.child is None
        elif not writer.life.wanted and now >= self._writer_again_at:
            self._writer_again_at = now + _WRITER_AGAIN_S
            self._feed(writer, Want(_ITSELF))

    def _is_over(self) -> bool:
        return self._writer_has_left and all(slot.is_over for slot in self.slots)

    def _result(self) -> ExitCode:
        assert self._ending is not None
        unfinished = self._someone_was_forced or self.left_journals()
        return ExitCode.DEADLINE if unfinished and self._ending is ExitCode.DONE else self._ending

    # ---- a reload by signal

    def _begin_reload(self, reload: Callable[[], Reply | AskAgain]) -> None:
        """What comes of it is in the log."""
        self._notifier.reloading()
        answer = without_harm(reload)
        self._reloading = answer if callable(answer) else lambda: answer

    def _end_reload(self) -> None:
        if self._reloading is not None and without_harm(self._reloading) is not None:
            self._reloading = None
            if self._ending is None:
                self._notifier.ready(status_line(self))

    # ---- tell

    def _tell(self) -> None:
        """The others: people on the terminal and on the control socket, systemd, the file of decisions."""
        now = self._clock.monotonic()
        self.desired.keep(now)
        if self._control is not None:
            self._control.serve(now)
        self._end_reload()
        self._notifier.watchdog(now)
        if self._ending is not None:
            self._notifier.extend(now, _EXTEND_S)
        if now >= self._show_at:
            self._show_at = now + _SHOW_EVERY_S
            self._show([slot.row(now) for slot in self.workers])
            self._tell_systemd(now)

    def _tell_systemd(self, now: float) -> None:
        line = status_line(self)
        if (
            not self._said_up
            and self._ending is None
            and (is_up(self) or now - self._begun_at >= self.config.supervisor.start_timeout_s)
        ):
            self._said_up = True
            self._notifier.ready(line)
        else:
            self._notifier.status(line)
