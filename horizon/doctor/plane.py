"""The supervisor and its processes, as they are seen from outside: whether it runs, answers, and who has its port."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import psutil

import horizon
from horizon.config import Config, MetricsServer
from horizon.control import NoSupervisor, ProcessStatus, RequestRefused, Status, StatusReply, ask, sick
from horizon.doctor.finding import Finding, ok, problem, warning
from horizon.locks import FileLock, is_free
from horizon.paths import DatabasePaths

_ANSWERS_WITHIN_S = 0.7
_LAG_MS = 250.0  # of a loop that looks at its children ten times a second


class Plane(NamedTuple):
    """What the supervisor says of itself, or why it says nothing."""

    status: StatusReply | None
    silence: str

    @property
    def pid(self) -> int:
        """The supervisor's; 0 where none answers."""
        return 0 if self.status is None else self.status.pid


def look(config: Config, paths: DatabasePaths) -> Plane:
    socket = config.supervisor.control_socket or paths.control_socket
    try:
        reply = ask(socket, Status(), _ANSWERS_WITHIN_S)
    except (NoSupervisor, RequestRefused, msgspec.MsgspecError) as error:
        return Plane(None, str(error))
    return Plane(reply if isinstance(reply, StatusReply) else None, "it answered something else")


def check_supervisor(plane: Plane, paths: DatabasePaths) -> list[Finding]:
    if plane.status is not None:
        return judge_status(plane.status)
    try:
        runs = not is_free(paths.supervisor_lock)
    except PermissionError:
        return [
            warning(
                "supervisor", f"this user may not look into {paths.folder}", "run doctor as the supervisor's user, or as root"
            )
        ]
    if runs:
        hint = FileLock(paths.supervisor_lock).hint()
        return [
            problem(
                "supervisor",
                f"one runs ({hint}) and does not answer: {plane.silence}",
                "see its log; if it hangs, kill it: workers and writer drain and leave",
            )
        ]
    return [ok("supervisor", "none runs; `horizon up` starts one"), *_check_stored_quarantines(paths)]


def judge_status(status: StatusReply) -> list[Finding]:
    found = [ok("supervisor", f"pid {status.pid}, version {status.version}, strategies: {len(status.strategies)}")]
    if status.why_no_groups:
        found.append(ok("memory limits", f"looked at once a second; the kernel cannot keep them: {status.why_no_groups}"))
    elif status.why_no_groups is not None:
        found.append(ok("memory limits", "kept by the kernel (cgroup v2)"))
    if status.version != horizon.__version__:
        sentence = f"version {status.version} runs, and {horizon.__version__} is installed"
        found.append(warning("supervisor", sentence, "`horizon down`, then `horizon up`, at a moment that suits"))
    if status.loop_lag_ms > _LAG_MS:
        sentence = f"its loop took {status.loop_lag_ms:.0f} ms for one turn: the host is overloaded or its disk stalls"
        found.append(warning("supervisor", sentence, "see what else runs: horizon top, then top"))
    if not status.is_stopping:
        found += [problem("writer", reason, "horizon status; horizon logs writer") for reason in sick(status)]
    found += [finding for process in status.processes for finding in _judge_process(process)]
    dropped = status.log_dropped + sum(process.log_dropped for process in status.processes)
    if dropped:
        found.append(
            warning(
                "logs",
                f"{dropped} entries were dropped, as more came than could be written",
                "log less, or raise level in [logs]",
            )
        )
    return found


def _judge_process(process: ProcessStatus) -> list[Finding]:
    why = f": {process.why}" if process.why else ""
    if process.state == "quarantined":
        remedy = (
            "it trades on without it; see horizon logs gateway"
            if process.kind == "gateway"
            else f"horizon logs {process.name}; then horizon reset {process.name}"
        )
        return [problem("quarantine", f"{process.name} is not started again{why}", remedy)]
    if process.state in ("degraded", "backoff"):
        return [warning("processes", f"{process.name} is in {process.state}{why}", f"horizon logs {process.name}")]
    return []


class _Decisions(msgspec.Struct, frozen=True):
    """What people decided and the quarantines, as far as it is looked at here."""

    quarantined: dict[str, str] = {}


def _check_stored_quarantines(paths: DatabasePaths) -> list[Finding]:
    try:
        stored = msgspec.json.decode(paths.desired.read_bytes(), type=_Decisions)
    except FileNotFoundError:
        return []
    except PermissionError:
        return [
            warning("quarantine", f"this user may not read {paths.desired}", "run doctor as the supervisor's user, or as root")
        ]
    except msgspec.MsgspecError as error:
        return [
            problem(
                "quarantine",
                f"{paths.desired} is damaged ({error}), and no supervisor starts with it",
                "correct it; or remove it, which starts every strategy",
            )
        ]
    return [
        problem("quarantine", f"{name} will not be started: {why}", f"after `horizon up`: horizon reset {name}")
        for name, why in stored.quarantined.items()
    ]


# ---- the port of the metrics


class Listener(NamedTuple):
    address: str
    port: int
    pid: int | None  # None: another user's
    name: str


_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104


def check_port(wanted: MetricsServer, plane: Plane) -> list[Finding]:
    return [judge_port(wanted, plane.status, listeners(wanted.port))] if wanted.enabled else []


def listeners(port: int) -> list[Listener]:
    """Who listens on a TCP port of this host; nothing is opened for it."""
    found = []
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            found.append(Listener(connection.laddr.ip, port, connection.pid, _name(connection.pid)))
    return found


def judge_port(wanted: MetricsServer, status: StatusReply | None, found: Iterable[Listener]) -> Finding:
    place = f"{wanted.address}:{wanted.port}"
    gateway = None if status is None else next((one.pid for one in status.processes if one.kind == "gateway"), None)
    for listener in found:
        if listener.address != wanted.address and not {listener.address, wanted.address} & set(_EVERYWHERE):
            continue
        if gateway is not None and listener.pid in (gateway, None):
            return ok("metrics port", f"the gateway listens on {place}")
        who = f"{listener.name} (pid {listener.pid})" if listener.pid else "another user's process"
        return warning(
            "metrics port", f"{place} is taken by {who}; there will be no metrics", "stop it, or set another port in [metrics]"
        )
    if gateway is not None:
        return warning("metrics port", f"the gateway runs and does not listen on {place}", "horizon logs gateway")
    return ok("metrics port", f"{place} is free")


def _name(pid: int | None) -> str:
    try:
        return psutil.Process(pid).name() if pid else ""
    except psutil.Error:
        return "a process that has just left"
