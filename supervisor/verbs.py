"""What each request of the control socket does: the fixed verbs, by type, never by a name that came over the socket.

Nothing here waits. What takes a moment (a configuration to be read, a decision to be stored, a process to be asked for its stacks) is asked
again by the server in its next turns. A command is answered when it is stored, not when it is carried out: people wait for that by
asking for the status.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.config import Config
from horizon.control import (
    Done,
    Down,
    Dump,
    DumpReply,
    PlanReply,
    Refused,
    Reload,
    Reply,
    Request,
    RequestRefused,
    Reset,
    Restart,
    Start,
    Status,
    StatusReply,
    Stop,
    names_of,
)
from horizon.errors import ExitCode, HorizonError
from supervisor.control import AskAgain, Peer
from supervisor.desired import Desired
from supervisor.reload import Plan, plan, read

log = logging.getLogger(__name__)

STATUS_FRESH_S = 0.05  # many clients that ask at once get the same answer
DUMP_WITHIN_S = 5.0
_DUMP_MAX = 128 * 1024  # characters


class Steered(Protocol):
    """The supervisor, as far as commands need it. Its methods are called in the loop's thread and return at once."""

    config: Config
    desired: Desired

    def status(self) -> StatusReply: ...
    def starts(self, name: str) -> int: ...
    def want(self, name: str, by: str) -> None: ...
    def unwant(self, name: str, by: str) -> None: ...
    def restart(self, name: str, by: str) -> None: ...
    def reset(self, name: str, by: str) -> None: ...
    def begin_dump(self, name: str) -> None: ...
    def dump_text(self, name: str) -> str | None: ...
    def reload(self, new: Config, plan: Plan) -> None: ...
    def down(self, by: str) -> None: ...


class Verbs:
    def __init__(self, supervisor: Steered, clock: Clock = SYSTEM_CLOCK) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._status: tuple[float, StatusReply] | None = None

    def answer(self, request: Request, peer: Peer | str) -> Reply | AskAgain:
        """The reply, or how to ask for it again. `peer` is for the audit line only: who may ask what is decided before."""
        if isinstance(request, Status):
            return self._newest_status()
        log.info("%s: %s", peer, _in_words(request), extra={"action": "command"})
        self._status = None
        try:
            match request:
                case Start(names):
                    return self._change(names, self._supervisor.want, str(peer))
                case Stop(names):
                    return self._change(names, self._supervisor.unwant, str(peer))
                case Restart(names):
                    return self._change(names, self._supervisor.restart, str(peer))
                case Reset(names):
                    return self._change(names, self._supervisor.reset, str(peer))
                case Reload(dry_run):
                    return self._reload(dry_run)
                case Dump(name):
                    return self._dump(name)
                case Down():
                    self._supervisor.down(str(peer))
                    return Done(["everything is being stopped"])
        except RequestRefused as refused:
            return Refused(str(refused), refused.exit_code)
        raise AssertionError(request)

    def _newest_status(self) -> StatusReply:
        now = self._clock.monotonic()
        if self._status is None or now - self._status[0] >= STATUS_FRESH_S:
            self._status = (now, self._supervisor.status())
        return self._status[1]

    # ---- start, stop, restart, reset

    def _change(self, asked_for: Sequence[str], change: Callable[[str, str], None], by: str) -> AskAgain:
        """All of them, or none because a name is wrong. Raises: RequestRefused."""
        supervisor = self._supervisor
        status = supervisor.status()
        self._refuse_while_stopping(status)
        names = names_of(status, asked_for)
        starts = {name: supervisor.starts(name) for name in names}
        for name in names:
            change(name, by)
        desired, version = supervisor.desired, supervisor.desired.version

        def stored() -> Reply | None:
            if desired.stored >= version:
                return Done(starts=starts)
            if desired.failed(version):
                return Refused(
                    f"it is done, but not stored: {desired.problem}; a new start of the supervisor would not know of it until it is"
                )
            return None

        return stored

    def _refuse_while_stopping(self, status: StatusReply) -> None:
        if status.is_stopping:
            raise RequestRefused("everything is being stopped: nothing else can be asked for now", ExitCode.FAILED)

    # ---- reload

    def _reload(self, dry_run: bool) -> AskAgain:
        """In a thread: the file may lie on a disk that takes seconds. Only the result comes back into the loop. Raises: RequestRefused."""
        supervisor = self._supervisor
        self._refuse_while_stopping(supervisor.status())
        reading = _Reading(supervisor.config)

        def read_and_applied() -> Reply | None:
            if reading.thread.is_alive():
                return None
            try:
                new = reading.result()
                decided = plan(supervisor.config, new)
                self._refuse_while_stopping(supervisor.status())
            except HorizonError as error:
                log.warning("the configuration is not reloaded: %s", error, extra={"action": "reload_refused"})
                return Refused(str(error), error.exit_code)
            starts = {name: supervisor.starts(name) for name in decided.restart}
            if not dry_run:
                log.info("reload: %s", in_words(decided), extra={"action": "reload"})
                supervisor.reload(new, decided)
                self._status = None
            return PlanReply(
                add=list(decided.add),
                remove=list(decided.remove),
                restart=list(decided.restart),
                live=list(decided.live),
                applied=not dry_run,
                starts=starts,
            )

        return read_and_applied

    # ---- dump

    def _dump(self, name: str) -> AskAgain:
        """Raises: RequestRefused."""
        supervisor = self._supervisor
        status = supervisor.status()
        process = next((one for one in status.processes if one.name == name), None)
        if process is None:
            names_of(status, [name])
        elif process.pid is None:
            raise RequestRefused(f"{name} is {process.state}: it has no process that could be asked", ExitCode.FAILED)
        supervisor.begin_dump(name)
        until = self._clock.monotonic() + DUMP_WITHIN_S

        def complete() -> Reply | None:
            text = supervisor.dump_text(name)
            if text is not None:
                return DumpReply(
                    text if len(text) <= _DUMP_MAX else f"{text[:_DUMP_MAX]}\n... {len(text) - _DUMP_MAX} characters more"
                )
            if self._clock.monotonic() >= until:
                return Refused(f"{name} did not tell within {DUMP_WITHIN_S:g} s what it is doing", ExitCode.DEADLINE)
            return None

        return complete


class _Reading:
    """A configuration file on its way in."""

    def __init__(self, running: Config) -> None:
        self._path = running.path
        self._result: Config | HorizonError | None = None
        self.thread = threading.Thread(target=self._run, name="reading the configuration", daemon=True)
        self.thread.start()

    def result(self) -> Config:
        """Raises: HorizonError."""
        if isinstance(self._result, HorizonError):
            raise self._result
        if self._result is None:
            raise HorizonError(f"{self._path} could not be read; the traceback is in the log")
        return self._result

    def _run(self) -> None:
        try:
            self._result = read(self._path)
        except HorizonError as error:
            self._result = error
        except Exception:
            log.exception("reading %s", self._path)


def in_words(decided: Plan) -> str:
    parts = (("add", decided.add), ("remove", decided.remove), ("restart", decided.restart), ("at once", decided.live))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts if names) or "nothing has changed"


def _in_words(request: Request) -> str:
    """The verb and its names, as they go into the audit line."""
    words = [str(request.__struct_config__.tag)]
    match request:
        case Start(names) | Stop(names) | Restart(names) | Reset(names):
            words += names
        case Dump(name):
            words.append(name)
        case Reload(dry_run=True):
            words.append("--dry-run")
    return " ".join(words)
