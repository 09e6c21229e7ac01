"""One strategy process under the supervisor: it becomes a session of its own, then runs the strategy's file as `__main__`.

The file is the same that works alone: its `hz.run` finds the assignment that is left for it in `horizon.runner` and takes name, database
and what else the strategy's table says from there. Nothing of the strategy is imported before this process has its name, its log, its
limits, an answer to the question what it is doing (faulthandler, in C: also for one that hangs with Python's lock in its hands) and the
kernel's word that it does not outlive its parent for long.
"""

from __future__ import annotations

import difflib
import faulthandler
import inspect
import io
import logging
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import psutil

from horizon.channel import Channel, Phase
from horizon.config import BUILT_IN_VENUES, Config, FeedTable, StrategyTable
from horizon.errors import ConfigError, ExitCode, Halt, HorizonError, StrategyError
from horizon.lifeline import Lifeline, adopt_orphans, name_process
from horizon.limits import enter, take_limits

log = logging.getLogger(__name__)

# Blocked by the supervisor around the start; taken off here, once the process has left the terminal's group.
HELD_AT_START = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_LINE_MAX = 4096  # characters; a progress bar has no end of line


class Handed(Protocol):
    """A descriptor that was handed over at the start of this process."""

    def detach(self) -> int: ...


def main(
    config: Config,
    end: socket.socket,
    log_handler: logging.Handler,
    supervisor_pid: int,
    dump: Handed,
    output: Handed,
    group: Path | None = None,
) -> None:
    """The first function of the process. `config` holds one strategy. Never returns: leaves with an exit code of errors.py.

    `dump` takes the answer to SIGUSR2, `output` what is written to descriptors 1 and 2, `group` is the cgroup of this incarnation.
    """
    (strategy,) = config.strategies.values()
    _leave_the_terminal(strategy.name)
    lifeline = Lifeline(supervisor_pid, _patience_s(config, strategy))
    adopt_orphans()
    _answer_dumps(_taken(dump))
    _write_to(_taken(output), log_handler)
    printed = _log_to(log_handler, config.logs.level)
    if group is not None:
        _enter(group)
    # The supervisor's choice of "spawn" is not the strategy's: a process pool in it starts as it would alone.
    multiprocessing.set_start_method(None, force=True)
    end.setblocking(False)
    os.set_inheritable(end.fileno(), False)
    channel = Channel(end)
    try:
        code = run(config, strategy, channel, lifeline, log_handler)
    finally:
        for stream in printed:
            stream.end_line()
        log_handler.close()
        channel.receive()
        if channel.closed:
            _end_helpers()
    sys.exit(code)


def run(config: Config, strategy: StrategyTable, channel: Channel, lifeline: Lifeline, log_handler: logging.Handler) -> int:
    """Run a strategy's file and return the exit code; whatever ends it is logged as a sentence."""
    channel.send(Phase("loading"))
    # Imported here: the supervisor imports this module and wants neither ZeroMQ nor SQLite.
    from horizon import runner

    look_for_modules(strategy.file, config.folder)
    try:
        take_limits(strategy.limits, f"{config.path}: strategies.{strategy.name}.limits")
        runner.assignment = runner.Assignment(
            name=strategy.name,
            db_path=config.database.path,
            durability=config.database.durability,
            interval=strategy.interval,
            params=strategy.params,
            exchange=load_exchange(config, strategy),
            feeds=load_feeds(config, strategy),
            risk=strategy.risk,
            orphans=strategy.orphans,
            intent=strategy.intent,
            snapshot_every=strategy.snapshot_every,
            stop_timeout_s=config.supervisor.stop_timeout_s,
            channel=channel,
            lifeline=lifeline,
            log=log_handler,
        )
        run_file(strategy.file)
    except StrategyError as error:
        log.error("%s", error, exc_info=error.__cause__)
        return error.exit_code
    except HorizonError as error:
        log.error("%s", error)
        return error.exit_code
    except Halt as halt:
        log.critical("halted: %s", halt.reason)
        return halt.exit_code
    except SystemExit as leaving:
        return _code_of(leaving)
    except KeyboardInterrupt:
        log.error("interrupted by a second signal; what was recorded is kept in the journal")
        return ExitCode.INTERRUPTED
    except Exception as error:
        log.critical("the strategy failed: %s", _in_short(error), exc_info=_without_our_frames(error, strategy.file))
        return ExitCode.FAILED
    return ExitCode.DONE


def load_exchange(config: Config, strategy: StrategyTable) -> object | None:
    """The venue that the table names: None when it names none, the text for a built-in one. Raises: ConfigError."""
    kind = strategy.exchange
    if kind is None or kind in BUILT_IN_VENUES:
        return kind
    return _make(kind, {}, f"{config.path}: strategies.{strategy.name}.exchange")


def load_feeds(config: Config, strategy: StrategyTable) -> dict[str, object] | None:
    """The feeds of the table, made but not started. Raises: ConfigError."""
    if strategy.feeds is None:
        return None
    return {name: load_feed(config, strategy, name, feed) for name, feed in strategy.feeds.items()}


def load_feed(config: Config, strategy: StrategyTable, name: str, feed: FeedTable) -> object:
    kind = _BUILT_IN_FEEDS.get(feed.type, feed.type)
    return _make(kind, feed.options, f"{config.path}: strategies.{strategy.name}.feeds.{name}")


def check_built_in_feeds(config: Config) -> None:
    """Make every feed of ours once, so that a wrong key is found before anything starts. Code of others runs in workers only.

    Raises: ConfigError.
    """
    for strategy in config.strategies.values():
        for name, feed in (strategy.feeds or {}).items():
            if feed.type in _BUILT_IN_FEEDS:
                load_feed(config, strategy, name, feed)


_BUILT_IN_FEEDS = {"simulated": "horizon.feeds.simulated:Simulated", "replay": "horizon.feeds.replay:Replay"}


def _make(dotted: str, options: dict[str, Any], where: str) -> object:
    """Make what "package.module:Name" names. Raises: ConfigError."""
    module_name, _, name = dotted.partition(":")
    try:
        made = getattr(import_module(module_name), name)
        signature = inspect.signature(made)
    except Exception as error:
        raise ConfigError(f"{where}: {dotted} cannot be used: {_in_short(error)}") from error
    _refuse_unknown(options, signature, where)
    try:
        return made(**options)
    except (TypeError, ValueError, HorizonError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _refuse_unknown(options: dict[str, Any], signature: inspect.Signature, where: str) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        return
    for key in options:
        if key not in signature.parameters:
            near = difflib.get_close_matches(key, signature.parameters, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(signature.parameters)}"
            raise ConfigError(f"{where}.{key}: unknown key; {hint}")


def _leave_the_terminal(name: str) -> None:
    os.setsid()
    name_process(f"hz:{name}")
    # What Ctrl-C sent to the group that this process has just left is forgotten; what was sent to it alone is not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_AT_START)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _patience_s(config: Config, strategy: StrategyTable) -> float:
    """How long a healthy worker may be busy with one thing."""
    supervision = config.supervisor
    return max(supervision.stop_timeout_s, strategy.hang_after_s or supervision.hang_after_s, supervision.venue_timeout_s)


def _taken(handed: Handed) -> int:
    fd = handed.detach()
    os.set_inheritable(fd, False)
    return fd


def _answer_dumps(fd: int) -> None:
    faulthandler.enable(fd)
    faulthandler.register(signal.SIGUSR2, fd, all_threads=True)


def _write_to(fd: int, log_handler: logging.Handler) -> None:
    """Make a pipe to the supervisor what C libraries, the interpreter's last words and helpers write to.

    It is non-blocking, for helpers too: what does not fit is an error of their write, and no strategy waits for a reader. The log goes
    to what was stderr before once the supervisor is gone.
    """
    log_handler.stderr_fd = os.dup(2)  # type: ignore[attr-defined]
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _enter(group: Path) -> None:
    try:
        enter(group)
    except OSError as error:
        log.warning("%s cannot be entered (%s); the supervisor looks at this strategy's memory instead", group, error.strerror)


def _end_helpers() -> None:
    """Without a supervisor nobody else ends what the strategy has started."""
    with suppress(psutil.Error):
        for helper in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                helper.kill()


def _log_to(handler: logging.Handler, level: str) -> list[_Printed]:
    """Send the log and all that is printed to one handler."""
    logging.root.addHandler(handler)
    logging.root.setLevel(level.upper())
    printed = [_Printed(handler, "stdout", logging.INFO), _Printed(handler, "stderr", logging.WARNING)]
    sys.stdout, sys.stderr = printed
    return printed


class _Printed(io.TextIOBase):
    """What a strategy prints, line by line in the log: the terminal belongs to the supervisor's table.

    Straight to the handler: through a logger, a strategy that logs to sys.stderr would go in circles.
    """

    def __init__(self, handler: logging.Handler, name: str, level: int) -> None:
        self._handler = handler
        self._name = name
        self._level = level
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._say(line)
        if len(self._begun) >= _LINE_MAX:
            self.end_line()
        return len(text)

    def end_line(self) -> None:
        if self._begun:
            self._say(self._begun)
            self._begun = ""

    def _say(self, line: str) -> None:
        self._handler.handle(logging.LogRecord(self._name, self._level, "", 0, line, None, None))


def look_for_modules(file: Path, folder: Path) -> None:
    """As `python file` would; the folder of horizon.toml is the last place, so nothing in it can hide a library."""
    sys.argv = [str(file)]
    sys.path.insert(0, str(file.parent))
    sys.path.append(str(folder))


def run_file(file: Path) -> None:
    """Run a file as `__main__`.

    Raises: StrategyError when the file does not come as far as hz.run; from there on whatever hz.run and the strategy raise.
    """
    from horizon import runner

    try:
        runpy.run_path(str(file), run_name="__main__")
    except HorizonError:
        raise
    except (Exception, SystemExit) as error:
        if runner.assignment is None:
            raise
        raise StrategyError(f"{file} did not load: {_in_short(error)}") from _without_our_frames(error, file)
    if runner.assignment is not None:
        raise StrategyError(f"{file} ended without calling hz.run")


def _in_short(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _without_our_frames(error: BaseException, file: Path) -> BaseException:
    """The exception with its traceback from the strategy's file on; what lies above is runpy and this module."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != str(file):
        frame = frame.tb_next
    return error.with_traceback(frame or error.__traceback__)


def _code_of(leaving: SystemExit) -> int:
    """What `sys.exit(...)` of a strategy means as an exit code."""
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or ExitCode.DONE
    log.error("%s", leaving.code)
    return ExitCode.FAILED
