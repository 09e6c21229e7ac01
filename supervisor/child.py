"""One incarnation of one process: its pid, the channel to it, how it is stopped and how it ended.

A worker is a multiprocessing process of the spawn context, writer and gateway are subprocesses; all are started from the loop's thread,
because a child that asked for a signal at its parent's death gets it when the *thread* that started it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.reduction import DupFd
from typing import Any

from horizon import channel, worker
from horizon.channel import Channel, Stop
from horizon.config import Config
from supervisor.cgroups import Group, Groups
from supervisor.dumps import Dump
from supervisor.limits import resident_bytes
from supervisor.log_channels import LineChannel, LogChannel
from supervisor.log_files import Sink
from supervisor.output import Output

TERM_GRACE_S = 2.0  # between SIGTERM and SIGKILL; half of it for a stack dump, if the process still lives then
DUMP_WITHIN_S = 2.0  # what a process that hangs has to say where, before it is killed
UNKILLABLE_AFTER_S = 3.0  # a killed process that is still there sits in the kernel, mostly before a disk that does not answer


class Child:
    """A process that was started. `pidfd` becomes readable when it ends.

    Not multiprocessing's sentinel: helpers that a strategy forked keep that open after the worker's death.
    """

    def __init__(
        self,
        pid: int,
        end: Channel,
        poll: Callable[[], int | None],
        started_at: float,
        dump: Dump | None = None,
        output: Output | None = None,
        group: Group | None = None,
    ) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = end
        self.started_at = started_at
        self.dump = dump
        self.output = output
        self.group = group
        self.stop_by: float | None = None  # monotonic; None: nobody wants it to stop
        self.was_forced = False  # the deadline passed
        self.kill_at: float | None = None  # set when it is to be killed without being asked to stop
        self.killed_at: float | None = None
        self.said_unkillable = False
        self._poll = poll
        self._told = False
        self._asked_where = False

    def exit_code(self) -> int | None:
        """None while it lives; a negative number is the signal that killed it."""
        with suppress(ChildProcessError):  # multiprocessing reaps when it starts another process
            if os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
        # Before it is reaped: until then its pid, which is the number of its process group, belongs to nobody else.
        self._kill_helpers()
        return self._poll()

    def stop(self, by: float) -> None:
        """Want it gone by this time (monotonic). `press` makes it happen; a second call moves the deadline."""
        self.stop_by = by
        self._told = False

    def kill_soon(self, now: float) -> None:
        """Kill it as soon as it has said where it hangs."""
        if self.kill_at is None:
            self.kill_at = now + DUMP_WITHIN_S if self.ask_where(now) else now

    def press(self, now: float) -> None:
        """Ask it to stop, SIGTERM at the deadline, ask where it hangs, SIGKILL; never waits."""
        if self.kill_at is not None:
            if now >= self.kill_at or not (self.dump and self.dump.is_asked):
                self.kill(now)
            return
        if self.stop_by is None:
            return
        if not self._told:
            self._told = self.channel.send(Stop(max(0.0, self.stop_by - now)))
        if now >= self.stop_by + TERM_GRACE_S:
            self.kill(now)
        elif now >= self.stop_by + TERM_GRACE_S / 2:
            self.ask_where(now)
        elif now >= self.stop_by and not self.was_forced:
            self.was_forced = True
            self._terminate()

    def ask_where(self, now: float) -> bool:
        """Ask for its stacks, once in the course of its end. Returns whether an answer may come."""
        if not self._asked_where and self.dump is not None:
            self._asked_where = self.dump.ask(self.pid, now)
        return self._asked_where

    def kill(self, now: float) -> None:
        """SIGKILL, also for the helpers that it started: those of its process group, and where it has a cgroup all of them."""
        self.killed_at = now if self.killed_at is None else self.killed_at
        with suppress(ProcessLookupError):
            # Its group does not exist yet in its first milliseconds; the process does.
            os.kill(self.pid, signal.SIGKILL)
        self._kill_helpers()

    def is_unkillable(self, now: float) -> bool:
        """Whether it was killed and is still there."""
        return self.killed_at is not None and now - self.killed_at >= UNKILLABLE_AFTER_S

    def rss_bytes(self) -> int | None:
        """What it has in memory now; None when it has just ended."""
        return resident_bytes(self.pid) or None

    def close(self) -> None:
        os.close(self.pidfd)
        self.channel.close()
        if self.dump is not None:
            self.dump.close()
        if self.output is not None:
            self.output.close()

    def _kill_helpers(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.group is not None:
            self.group.kill()

    def _terminate(self) -> None:
        """SIGTERM, and SIGCONT after it: a stopped process would never see it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)


def start(sink: Sink, groups: Groups | None, config: Config, name: str, now: float) -> Child:
    """Start the process of this name. Raises: OSError, or RuntimeError for want of a thread; then nothing of it is left."""
    if name == "writer":
        command = [sys.executable, "-P", "-m", "horizon.writer", "--database", str(config.database.path), "--supervised"]
        return _start_command("writer", [*command, "--durability", config.database.durability], sink, now)
    if name == "gateway":
        command = [sys.executable, "-P", "-m", "supervisor.gateway", "--config", str(config.path)]
        return _start_command("gateway", command, sink, now)
    group = None if groups is None else groups.make(name, config.strategies[name].limits)
    try:
        return _start_worker(name, config, sink, now, group)
    except BaseException:
        if groups is not None and group is not None:
            groups.let_go(group)
        raise


def _start_worker(name: str, config: Config, sink: Sink, now: float, group: Group | None) -> Child:
    with ExitStack() as handed_over, ExitStack() as on_failure:
        log = LogChannel(name, sink)
        handed_over.callback(log.let_go)
        ours, theirs = channel.pair()
        on_failure.enter_context(ours)
        handed_over.enter_context(theirs)
        dump = Dump()
        on_failure.callback(dump.close)
        output = Output()
        on_failure.callback(output.close)
        handed_over.callback(output.let_go)
        process = multiprocessing.get_context("spawn").Process(
            target=worker.main,
            args=(config.only(name), theirs, log.worker_end(), os.getpid(), _Handed(dump.fd), _Handed(output.write_end)),
            kwargs={"group": None if group is None else group.folder},
            name=name,
        )
        with _signals_held():
            process.start()
        on_failure.callback(process.kill)
        assert process.pid is not None
        child = Child(process.pid, Channel(ours), lambda: process.exitcode, now, dump, output, group)
        on_failure.pop_all()
    return child


def _start_command(name: str, command: Sequence[str], sink: Sink, now: float) -> Child:
    with ExitStack() as handed_over, ExitStack() as on_failure:
        log = LineChannel(name, sink)
        handed_over.callback(log.let_go)
        ours, theirs = channel.pair()
        on_failure.enter_context(ours)
        handed_over.enter_context(theirs)
        dump = Dump()
        on_failure.callback(dump.close)
        process = subprocess.Popen(  # noqa: S603
            [*command, f"--channel-fd={theirs.fileno()}", f"--dump-fd={dump.fd}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log.write_end,
            pass_fds=[theirs.fileno(), dump.fd],
            start_new_session=True,
        )
        on_failure.callback(process.kill)
        log.pid = process.pid
        child = Child(process.pid, Channel(ours), process.poll, now, dump)
        on_failure.pop_all()
    return child


class _Handed:
    """A descriptor as an argument of a process's start; there `detach()` returns its number."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        handed: Any = DupFd(self._fd)  # known only while a process is being started
        return type(handed), (handed.fd,)


@contextmanager
def _signals_held() -> Iterator[None]:
    """A Ctrl-C of the terminal reaches every process of its group: a worker must not die of it before it has left the group.

    The mask is inherited; the worker takes it off when it has a session of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, worker.HELD_AT_START)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
