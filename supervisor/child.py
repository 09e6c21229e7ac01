"""One incarnation of one process: its pid, the channel to it, how it is stopped and how it ended.

A worker is a multiprocessing process of the spawn context, the writer a subprocess; both are started from the loop's thread, because a
child that asked for a signal at its parent's death gets it when the *thread* that started it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from horizon import channel, worker
from horizon.channel import Channel, Stop
from horizon.config import Config
from supervisor.log_channels import LineChannel, LogChannel, Sink

TERM_GRACE_S = 2.0


class Child:
    """A process that was started. `pidfd` becomes readable when it ends.

    Not multiprocessing's sentinel: helpers that a strategy forked keep that open after the worker's death.
    """

    def __init__(self, pid: int, end: Channel, poll: Callable[[], int | None], started_at: float) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = end
        self.started_at = started_at
        self.stop_by: float | None = None  # monotonic; None: nobody wants it to stop
        self.was_forced = False  # the deadline passed
        self._poll = poll
        self._told = False

    def exit_code(self) -> int | None:
        """None while it lives; a negative number is the signal that killed it."""
        with suppress(ChildProcessError):  # multiprocessing reaps when it starts another process
            if os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
        # Before it is reaped: until then its pid, which is the number of its group, belongs to nobody else.
        self._kill_group()
        return self._poll()

    def stop(self, by: float) -> None:
        """Want it gone by this time (monotonic). `press` makes it happen; a second call moves the deadline."""
        self.stop_by = by
        self._told = False

    def press(self, now: float) -> None:
        """Ask it to stop, SIGTERM at the deadline, SIGKILL a moment later; never waits."""
        assert self.stop_by is not None
        if not self._told:
            self._told = self.channel.send(Stop(max(0.0, self.stop_by - now)))
        if now >= self.stop_by + TERM_GRACE_S:
            self.kill()
        elif now >= self.stop_by and not self.was_forced:
            self.was_forced = True
            self._terminate()

    def kill(self) -> None:
        """SIGKILL, also for the helpers that it started in its process group."""
        with suppress(ProcessLookupError):
            # Its group does not exist yet in its first milliseconds; the process does.
            os.kill(self.pid, signal.SIGKILL)
        self._kill_group()

    def close(self) -> None:
        os.close(self.pidfd)
        self.channel.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _terminate(self) -> None:
        """SIGTERM, and SIGCONT after it: a stopped process would never see it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)


def start_worker(config: Config, name: str, sink: Sink, now: float) -> Child:
    """Start the process of one strategy. Raises: OSError."""
    log = LogChannel(name, sink)
    ours, theirs = channel.pair()
    process = multiprocessing.get_context("spawn").Process(
        target=worker.main, args=(config.only(name), theirs, log.worker_end(), os.getpid()), name=name
    )
    try:
        with _signals_held(), theirs:
            process.start()
    finally:
        log.let_go()
    assert process.pid is not None
    return Child(process.pid, Channel(ours), lambda: process.exitcode, now)


def start_writer(config: Config, sink: Sink, now: float) -> Child:
    """Start the process that owns the database. Raises: OSError."""
    log = LineChannel("writer", sink)
    ours, theirs = channel.pair()
    command = [sys.executable, "-P", "-m", "horizon.writer", "--database", str(config.database.path)]
    command += ["--durability", config.database.durability, "--supervised", "--channel-fd", str(theirs.fileno())]
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log.write_end,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
    finally:
        log.let_go()
    return Child(process.pid, Channel(ours), process.poll, now)


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
