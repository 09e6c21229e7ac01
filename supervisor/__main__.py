"""`python -P -m supervisor`: what `horizon up` becomes."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import horizon
from horizon import worker
from horizon.cli.output import emit
from horizon.config import DEFAULT_FILE, Config, load
from horizon.errors import ConfigError, HorizonError, StoreError, is_disk_full
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from supervisor.child import start_worker, start_writer
from supervisor.loop import Supervisor
from supervisor.report import report
from supervisor.terminal import Terminal

log = logging.getLogger("supervisor")

_LAST_WORDS_S = 2.0
_DISK_FULL_POLL_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Supervise until all is over. Returns the exit code."""
    options = _parser().parse_args(arguments)
    # Before anything of multiprocessing is made: its queues and locks belong to a start method.
    multiprocessing.set_start_method("spawn")
    try:
        config = _checked(options.config)
        paths = DatabasePaths.of(config.database.path)
        lock = _own(paths)
    except HorizonError as error:
        print(f"horizon up: {error}", file=sys.stderr)
        return error.exit_code
    # Relative paths in a strategy's table, and in its file, are relative to horizon.toml.
    os.chdir(config.folder)
    try:
        return _supervise(config, paths, options.duration, options.plain)
    finally:
        lock.release()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="horizon up", description="Run the strategies of a horizon.toml until Ctrl-C.")
    parser.add_argument("--config", type=Path, default=Path(DEFAULT_FILE), help="the file to run (default: ./horizon.toml)")
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="stop by itself after this time")
    parser.add_argument("--plain", action="store_true", help="plain lines instead of the live table")
    return parser


def _checked(path: Path) -> Config:
    """Raises: ConfigError."""
    config = load(path)
    if not config.strategies:
        raise ConfigError(f'{path}: there is no strategy in it; add a table [strategies.NAME] with file = "..."')
    worker.check_built_in_feeds(config)
    return config


def _own(paths: DatabasePaths) -> FileLock:
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
        time.sleep(_DISK_FULL_POLL_S)
    raise StoreError(f"{paths.database} is already supervised ({lock.hint()}); stop that one first, or use another database")


def _supervise(config: Config, paths: DatabasePaths, duration_s: float | None, plain: bool) -> int:
    terminal = Terminal(plain)
    terminal.start()
    logging.root.addHandler(terminal.handler())
    logging.root.setLevel(logging.INFO)
    names = list(config.strategies)
    log.info("horizon %s runs %s on %s", horizon.__version__, ", ".join(names), paths.database)
    supervisor = Supervisor(
        paths,
        writer=partial(start_writer, config, terminal.say),
        workers={name: partial(start_worker, config, name, terminal.say) for name in names},
        stop_timeout_s=config.supervisor.stop_timeout_s,
        show=terminal.show,
    )
    exit_code = supervisor.run(duration_s)
    _hear_last_words()
    terminal.close(_LAST_WORDS_S)
    emit("\n".join(report(supervisor, config.database.path)))
    return exit_code


def _hear_last_words() -> None:
    """Every receiver ends by itself when its process is dead and its last line is passed on; helpers that fled may delay that."""
    deadline = time.monotonic() + _LAST_WORDS_S
    for thread in threading.enumerate():
        if thread.name.startswith("log of "):
            thread.join(max(0.0, deadline - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
