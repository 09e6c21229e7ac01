"""`python -P -m supervisor`: what `horizon up` becomes."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import horizon
from horizon.cli.output import emit
from horizon.config import DEFAULT_FILE, Config
from horizon.control import Reload
from horizon.errors import HorizonError, StoreError, is_disk_full
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from supervisor.cgroups import Groups, NotDelegated
from supervisor.child import start
from supervisor.control import ControlServer
from supervisor.log_channels import start_resource_tracker
from supervisor.log_files import Sink
from supervisor.loop import Supervisor
from supervisor.notify import Notifier, end_when_hung
from supervisor.reload import read
from supervisor.report import report
from supervisor.strangers import Strangers
from supervisor.terminal import Terminal
from supervisor.verbs import Verbs

log = logging.getLogger("supervisor")

_LAST_WORDS_S = 2.0
_DISK_FULL_POLL_S = 2.0
# How long a thread may keep Python's lock while another wants it. The receivers of many talkative strategies must not hold up the loop.
_SWITCH_S = 0.0005


def main(arguments: Sequence[str] | None = None) -> int:
    """Supervise until all is over. Returns the exit code."""
    options = _parser().parse_args(arguments)
    notifier = Notifier.from_environment()  # before any process is started, which would inherit the variables
    if notifier.is_heard:
        end_when_hung()
    # Who started this process may have ignored it, which programs inherit: the kernel would then keep no exit code for us.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Before anything of multiprocessing is made: its queues and locks belong to a start method.
    multiprocessing.set_start_method("spawn")
    sys.setswitchinterval(_SWITCH_S)
    start_resource_tracker()
    try:
        config = read(options.config)
        paths = DatabasePaths.of(config.database.path)
        lock = _own(paths, notifier)
        # Relative paths in a strategy's table, and in its file, are relative to horizon.toml.
        os.chdir(config.folder)
        try:
            return _supervise(config, paths, options.duration, options.plain, notifier)
        finally:
            lock.release()
    except HorizonError as error:
        print(f"horizon up: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="horizon up", description="Run the strategies of a horizon.toml until Ctrl-C.")
    parser.add_argument("--config", type=Path, default=Path(DEFAULT_FILE), help="the file to run (default: ./horizon.toml)")
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="stop by itself after this time")
    parser.add_argument("--plain", action="store_true", help="plain lines instead of the live table")
    return parser


def _own(paths: DatabasePaths, notifier: Notifier) -> FileLock:
    """Be the one supervisor of this database; waits while the disk is full (R20). Raises: StoreError."""
    lock = FileLock(paths.supervisor_lock)
    said = False
    while True:
        try:
            paths.folder.mkdir(mode=0o700, exist_ok=True)
            if lock.take(f"pid={os.getpid()}"):
                return lock
            break
        except OSError as error:
            if not is_disk_full(error):
                raise StoreError(f"{lock.path} cannot be used: {error.strerror}") from error
        if not said:
            print(f"horizon up: the disk of {paths.folder} is full; waiting until there is room", file=sys.stderr, flush=True)
            said = True
        notifier.status("waiting for room on the disk")
        notifier.extend(time.monotonic(), 10 * _DISK_FULL_POLL_S)
        time.sleep(_DISK_FULL_POLL_S)
    raise StoreError(f"{paths.database} is already supervised ({lock.hint()}); stop that one first, or use another database")


def _supervise(config: Config, paths: DatabasePaths, duration_s: float | None, plain: bool, notifier: Notifier) -> int:
    """Raises: HorizonError when something is wrong that shows before anything is started."""
    groups, why_no_groups = _groups()
    terminal = Terminal(plain, as_json=config.logs.format == "json")
    terminal.start()
    sink = Sink(config.logs, paths, terminal)
    sink.start()
    sink.hear_own_log()
    try:
        supervisor = Supervisor(
            config,
            paths,
            partial(start, sink, groups),
            terminal.show,
            sink=sink,
            notifier=notifier,
            strangers=Strangers(),
            groups=groups,
            why_no_groups=why_no_groups,
        )
        verbs = Verbs(supervisor)
        control = ControlServer(config.supervisor.control_socket or paths.control_socket, verbs.answer)
        control.open()
        try:
            supervisor.steered_by(control, lambda: verbs.answer(Reload(), "SIGHUP"))
            # What is loaded now stays: to walk through it with every full collection would hold up the loop for some milliseconds.
            gc.freeze()
            log.info("horizon %s runs %s on %s", horizon.__version__, ", ".join(config.strategies), paths.database)
            exit_code = supervisor.run(duration_s)
        finally:
            control.close()
    finally:
        _hear_last_words()
        sink.close(_LAST_WORDS_S)
        terminal.close(_LAST_WORDS_S)
        if groups is not None:
            groups.close()
    emit("\n".join(report(supervisor, config.database.path)))
    return exit_code


def _groups() -> tuple[Groups | None, str]:
    """Where strategies get control groups of their own, or why there are none."""
    try:
        return Groups.open(), ""
    except NotDelegated as error:
        return None, str(error)


def _hear_last_words() -> None:
    """Every receiver ends by itself when its process is dead and its last line is passed on; helpers that fled may delay that."""
    deadline = time.monotonic() + _LAST_WORDS_S
    for thread in threading.enumerate():
        if thread.name.startswith("log of "):
            thread.join(max(0.0, deadline - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
