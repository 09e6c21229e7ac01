"""What the gateway asks others: the supervisor over its control socket, and the files by their sizes. Nothing here writes."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import apsw

import horizon
from horizon.control import NoSupervisor, ProcessStatus, RequestRefused, Status, StatusReply, ask
from horizon.errors import HorizonError
from horizon.metrics import Reading
from horizon.paths import DatabasePaths
from horizon.store.letters import depths

STATES = ("stopped", "starting", "ready", "degraded", "stopping", "backoff", "quarantined")
_ASK_WITHIN_S = 0.8
_FOLDERS = re.compile(r"""(?<![\w./~-])(?:~|\.\.?)?/(?:[^\s/'"`:;,()\[\]{}]+/)+""")


def supervisor_status(control_socket: Path) -> StatusReply | str:
    """What the supervisor says now, or why it says nothing."""
    try:
        reply = ask(control_socket, Status(), _ASK_WITHIN_S)
    except NoSupervisor:
        return "the supervisor does not answer"
    except RequestRefused as error:
        return f"the supervisor refuses to answer: {error}"
    assert isinstance(reply, StatusReply)
    return reply


def of_supervisor(status: StatusReply) -> Iterator[Reading]:
    """The status as series; those of figures that nobody knows now are left out."""
    yield Reading("horizon_supervisor_uptime_seconds", status.uptime_s)
    yield Reading("horizon_supervisor_loop_lag_seconds", status.loop_lag_ms / 1000)
    yield Reading("horizon_log_entries_dropped_total", status.log_dropped, ("supervisor",))
    if status.writer.commit_age_s is not None:
        yield Reading("horizon_writer_commit_age_seconds", status.writer.commit_age_s)
    for process in status.processes:
        yield from _of_process(process)


def of_files(paths: DatabasePaths) -> Iterator[Reading]:
    yield Reading("horizon_build_info", 1, (horizon.__version__, platform.python_version()))
    yield Reading("horizon_sqlite_info", 1, (apsw.sqlite_lib_version(),))
    for name, path in (
        ("horizon_database_bytes", paths.database),
        ("horizon_database_wal_bytes", paths.database.with_name(f"{paths.database.name}-wal")),
    ):
        with suppress(OSError):
            yield Reading(name, path.stat().st_size)


def of_dead_letters(paths: DatabasePaths, strategies: Iterable[str]) -> list[Reading]:
    """How many wait for a decision; nothing while that cannot be read."""
    try:
        waiting = dict.fromkeys(strategies, 0) | depths(paths.dead_letters)
    except HorizonError:
        return []
    return [Reading("horizon_dlq_depth", depth, (strategy,)) for strategy, depth in waiting.items()]


def without_folders(text: str, *folders: Path) -> str:
    """A sentence for strangers: where the machine keeps its files is none of their business, which file it is may be."""
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return _FOLDERS.sub("", text)


def _of_process(process: ProcessStatus) -> Iterator[Reading]:
    name = (process.name,)
    for state in STATES:
        yield Reading("horizon_process_state", process.state == state, (process.name, state))
    yield Reading("horizon_process_wanted", process.wanted, name)
    yield Reading("horizon_process_starts_total", process.starts, name)
    yield Reading("horizon_process_restarts_total", process.restarts, name)
    yield Reading("horizon_watchdog_halts_total", process.hangs, (process.name, "hang"))
    yield Reading("horizon_log_entries_dropped_total", process.log_dropped, name)
    if process.heartbeat_age_s is not None:
        yield Reading("horizon_process_heartbeat_age_seconds", process.heartbeat_age_s, name)
    if process.rss_bytes is not None:
        yield Reading("horizon_process_resident_memory_bytes", process.rss_bytes, name)
