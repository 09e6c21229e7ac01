"""The supervisor's loop: it starts the writer, then the strategies, starts again what a new start can cure, and stops all in order.

One thread, which never waits for a child, a terminal or a disk. Every child is looked at after every wake-up, whoever caused it: for fifty
of them that costs less than a millisecond, and no event can be missed.

Order: no worker starts before the writer is ready, and the writer is told to stop only when every worker is gone. A death touches nobody
else: workers trade on while their writer is started again (they have their journals).
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from horizon.channel import Channel
from horizon.cli.live import StrategyRow
from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import ExitCode
from horizon.failpoints import ACTIVE, reach
from horizon.ids import new_run_id
from horizon.paths import DatabasePaths
from supervisor.child import Child
from supervisor.policy import Verdict, judge_worker, judge_writer
from supervisor.slot import Slot, Start

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_S = 0.1  # how late a deadline may be noticed
_SHOW_EVERY_S = 0.5
_WRITER_START_S = 30.0  # how long a run of limited duration waits for its writer
# Without a writer nothing is acknowledged any more: workers cancel their orders, and their records wait in the journals.
_STOP_WITHOUT_WRITER_S = 3.0


class Supervisor:
    """One run of `horizon up`, from the start of its writer to the end of it."""

    def __init__(
        self,
        paths: DatabasePaths,
        writer: Start,
        workers: dict[str, Start],
        stop_timeout_s: float,
        show: Callable[[Sequence[StrategyRow]], None],
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
    ) -> None:
        self.writer = Slot("writer", writer)
        self.workers = [Slot(name, start) for name, start in workers.items()]
        self._paths = paths
        self._stop_timeout_s = stop_timeout_s
        self._show = show
        self._clock = clock
        self._random = random or Random()  # noqa: S311
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._stop_at: float | None = None  # the end of the duration asked for
        self._had_a_writer = False  # one that was ready
        self._stopping: ExitCode | None = None  # with which code all ends, if it goes well
        self._writer_stop_by: float | None = None  # set when the last worker is gone
        self._someone_was_forced = False
        self._first_run = new_run_id()  # run ids rise: what is larger was begun under this supervisor
        self._show_at = 0.0

    def run(self, duration_s: float | None = None) -> ExitCode:
        """Supervise until a signal, until every strategy is done, or until `duration_s` are over.

        They count from the moment the writer is first ready; one that is not ready within half a minute ends a limited run.
        """
        now = self._clock.monotonic()
        self._stop_at = None if duration_s is None else now + _WRITER_START_S
        for slot in (self.writer, *self.workers):
            slot.start_at = now
        with self._signals_noted() as wakeups:
            while not self._is_over():
                self._start_what_is_due()
                self._wait(wakeups)
                self._look_at_the_living(duration_s)
                self._decide_to_stop()
                self._press_who_shall_stop()
                if ACTIVE:
                    reach("supervisor.running")
        return self._result()

    def left_journals(self) -> list[Path]:
        """The journals of runs begun under this supervisor that are still there: the writer removes one when all of it is stored."""
        return [path for path in self._paths.journals() if path.stem >= self._first_run]

    # ---- start

    def _start_what_is_due(self) -> None:
        now = self._clock.monotonic()
        for slot in (self.writer, *self.workers):
            if slot.start_at is not None and now >= slot.start_at and (slot is self.writer or self.writer.ready):
                self._start(slot, now)

    def _start(self, slot: Slot, now: float) -> None:
        try:
            child = slot.start(now)
        except OSError as error:
            wait_s = self._start_again(slot, now)
            log.error("%s cannot be started: %s; trying again in %.2f s", slot.name, error, wait_s)
            return
        if ACTIVE:
            reach("supervisor.starting")
        self._selector.register(child.pidfd, selectors.EVENT_READ)
        self._selector.register(child.channel, selectors.EVENT_READ)
        log.info("started %s (pid %d)", slot.name, child.pid, extra={"action": "started"})

    def _start_again(self, slot: Slot, now: float) -> float:
        slot.deaths = slot.deaths.after_death(now)
        wait_s = slot.deaths.wait_s(self._random)
        slot.start_at = now + wait_s
        return wait_s

    # ---- wait

    def _wait(self, wakeups: socket.socket) -> None:
        self._selector.select(_TICK_S)
        with suppress(BlockingIOError):
            wakeups.recv(4096)
        now = self._clock.monotonic()
        if now >= self._show_at:
            self._show_at = now + _SHOW_EVERY_S
            self._show([slot.row(now) for slot in self.workers])

    # ---- look

    def _look_at_the_living(self, duration_s: float | None) -> None:
        now = self._clock.monotonic()
        for slot in (self.writer, *self.workers):
            if slot.child is None:
                continue
            exit_code = slot.child.exit_code()  # asked first: what a dead process said is then complete
            was_ready = slot.ready
            slot.hear(now)
            if slot.ready and not was_ready:
                log.info("%s is ready", slot.name, extra={"action": "ready"})
            if slot.child.channel.closed:
                self._ignore(slot.child.channel)
            if exit_code is not None:
                self._bury(slot, slot.child, exit_code, now)
        if self.writer.ready and not self._had_a_writer:
            self._had_a_writer = True
            self._stop_at = None if duration_s is None else now + duration_s

    def _bury(self, slot: Slot, child: Child, exit_code: int, now: float) -> None:
        self._ignore(child.pidfd)
        self._ignore(child.channel)
        self._someone_was_forced |= child.was_forced
        slot.bury(exit_code)
        if slot is self.writer:
            self._after_the_writer(child, exit_code, now)
        else:
            self._after_a_worker(slot, child, exit_code, now)

    def _ignore(self, what: Channel | int) -> None:
        with suppress(KeyError):
            self._selector.unregister(what)

    def _after_a_worker(self, slot: Slot, child: Child, exit_code: int, now: float) -> None:
        end = f"{slot.name} (pid {child.pid}) {describe_end(exit_code)}"
        verdict = judge_worker(exit_code)
        if verdict is Verdict.DONE or self._stopping is not None:
            log.log(logging.INFO if verdict is Verdict.DONE else logging.WARNING, "%s", end, extra={"action": "ended"})
        elif verdict is Verdict.FINAL:
            log.error("%s; it is not started again: correct it, then start anew", end, extra={"action": "failed"})
        else:
            wait_s = self._start_again(slot, now)
            log.warning("%s; it is started again in %.2f s", end, wait_s, extra={"action": "backoff"})

    def _after_the_writer(self, child: Child, exit_code: int, now: float) -> None:
        end = f"the writer (pid {child.pid}) {describe_end(exit_code)}"
        if judge_writer(exit_code) is Verdict.FINAL:
            log.critical("%s; without it nothing can be stored, so everything stops", end, extra={"action": "writer_failed"})
            self._stop(ExitCode(exit_code), _STOP_WITHOUT_WRITER_S)
        elif exit_code == ExitCode.DONE and self._stopping is not None and all(slot.is_over for slot in self.workers):
            log.info("%s", end, extra={"action": "ended"})
        else:
            wait_s = self._start_again(self.writer, now)
            log.warning("%s; the strategies go on, it is started again in %.2f s", end, wait_s, extra={"action": "backoff"})

    # ---- stop

    def _decide_to_stop(self) -> None:
        while self._signals:
            name = signal.Signals(self._signals.pop(0)).name
            if self._stopping is None:
                log.info("%s: stopping the strategies, then the writer", name, extra={"action": "stop"})
                self._stop(ExitCode.DONE, self._stop_timeout_s)
            else:
                log.info("%s again: half of the time that was left", name, extra={"action": "hurry"})
                self._hurry()
        if self._stopping is not None:
            return
        if self._stop_at is not None and self._clock.monotonic() >= self._stop_at:
            log.info("the time is over: stopping the strategies, then the writer", extra={"action": "stop"})
            # A writer that was never ready has its reasons in the log; whoever waits for the exit code must learn it too.
            self._stop(ExitCode.DONE if self._had_a_writer else ExitCode.FAILED, self._stop_timeout_s)
        elif all(slot.is_over for slot in self.workers):
            log.info("every strategy has ended: stopping the writer", extra={"action": "stop"})
            failed = (slot.exit_code for slot in self.workers if slot.exit_code)
            self._stop(ExitCode(next(failed, ExitCode.DONE)), self._stop_timeout_s)

    def _stop(self, exit_code: ExitCode, timeout_s: float) -> None:
        self._stopping = exit_code
        by = self._clock.monotonic() + timeout_s
        for slot in self.workers:
            slot.start_at = None
            if slot.child is not None:
                slot.child.stop(min(by, slot.child.stop_by or by))

    def _hurry(self) -> None:
        now = self._clock.monotonic()
        for slot in (self.writer, *self.workers):
            if slot.child is not None and slot.child.stop_by is not None:
                slot.child.stop(now + max(0.0, slot.child.stop_by - now) / 2)

    def _press_who_shall_stop(self) -> None:
        if self._stopping is None:
            return
        now = self._clock.monotonic()
        for slot in self.workers:
            if slot.child is not None:
                slot.child.press(now)
        if ACTIVE:
            reach("supervisor.stopping")
        if all(slot.is_over for slot in self.workers):
            self._stop_the_writer(now)

    def _stop_the_writer(self, now: float) -> None:
        """Last, when nobody records any more. One that died is started again, as long as there is something to store."""
        if self._writer_stop_by is None:
            self._writer_stop_by = now + self._stop_timeout_s
        if self.writer.child is not None:
            if self.writer.child.stop_by is None:
                self.writer.child.stop(self._writer_stop_by)
            self.writer.child.press(now)
        elif now >= self._writer_stop_by or not self.left_journals():
            self.writer.start_at = None

    def _is_over(self) -> bool:
        return self._stopping is not None and all(slot.is_over for slot in (self.writer, *self.workers))

    def _result(self) -> ExitCode:
        assert self._stopping is not None
        unfinished = self._someone_was_forced or self.left_journals()
        return ExitCode.DEADLINE if unfinished and self._stopping is ExitCode.DONE else self._stopping

    @contextmanager
    def _signals_noted(self) -> Iterator[socket.socket]:
        """Signals are only noted, and wake the loop through a socket: nothing else is safe in a handler."""
        wakeups, write_end = socket.socketpair()
        wakeups.setblocking(False)
        write_end.setblocking(False)
        self._selector.register(wakeups, selectors.EVENT_READ)
        # Under nohup a SIGHUP stays ignored.
        numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP]
        handlers = {number: signal.signal(number, lambda number, _: self._signals.append(number)) for number in numbers}
        fd = signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
        try:
            yield wakeups
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._selector.close()
            wakeups.close()
            write_end.close()


def describe_end(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code == ExitCode.DONE:
        return "is done"
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    meaning = ExitCode(exit_code).meaning if exit_code in list(ExitCode) else "a code of its own"
    return f"ended with exit code {exit_code} ({meaning})"
