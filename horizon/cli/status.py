"""`horizon status`: what runs now, as a table, a table that refreshes, lines, or JSON."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from horizon.cli.live import wants_table
from horizon.cli.operating import AS_JSON
from horizon.cli.output import emit, emit_json, emit_table, remark
from horizon.cli.steering import CONFIG, Supervisor
from horizon.cli.text import Column, counted, duration, number, one_line, rounded, table
from horizon.control import NoSupervisor, ProcessStatus, StatusReply, not_ready
from horizon.errors import ExitCode

EVERY_S = 1.0


@click.command()
@CONFIG
@click.option("--watch", is_flag=True, help="Show it every second, until Ctrl-C.")
@AS_JSON
def status(config: Path | None, watch: bool, as_json: bool) -> ExitCode:
    """Show what runs.

    Exit code 8 when something that shall run is not ready, or when the writer or the database is not well.
    """
    supervisor = Supervisor.of(config)
    now = supervisor.status()
    if watch:
        return _watch(supervisor, now, as_json)
    if as_json:
        emit_json(as_document(now))
    else:
        if emit("\n".join([*_head(now), ""])):
            emit_table(_COLUMNS, [_cells(process) for process in now.processes])
        for problem in not_ready(now):
            remark(one_line(problem))
    return ExitCode.FINDINGS if not_ready(now) else ExitCode.DONE


def as_document(now: StatusReply) -> dict[str, Any]:
    """For programs: all of it, and what is not ready."""
    document: dict[str, Any] = msgspec.to_builtins(now)
    del document["type"]
    return {"not_ready": not_ready(now), **document}


def _watch(supervisor: Supervisor, now: StatusReply | NoSupervisor, as_json: bool) -> ExitCode:
    """Until Ctrl-C, or until nobody reads any more. A supervisor that is gone may come back."""
    on_screen = not as_json and wants_table(sys.stdout)
    while True:
        if as_json:
            document = {"not_ready": [str(now)]} if isinstance(now, NoSupervisor) else as_document(now)
            text = msgspec.json.encode(document).decode()
        elif on_screen:
            text = _screen(_lines(now, shutil.get_terminal_size().columns))
        else:
            text = "\n".join([*_lines(now, None), ""])
        if not emit(text):
            return ExitCode.DONE
        time.sleep(EVERY_S)
        try:
            now = supervisor.status()
        except NoSupervisor as gone:
            now = gone


def _screen(lines: Sequence[str]) -> str:
    """Over what is there, from the upper left corner, and no line more than there is room for: nothing scrolls, nothing flickers."""
    size = shutil.get_terminal_size()
    shown = [line[: size.columns] for line in lines[: size.lines - 1]]
    return "\x1b[H" + "\x1b[K\n".join(shown) + "\x1b[K\x1b[J"


def _lines(now: StatusReply | NoSupervisor, width: int | None) -> list[str]:
    if isinstance(now, NoSupervisor):
        return [one_line(str(now))]
    made = table(_COLUMNS, [_cells(process) for process in now.processes], width)
    problems = [one_line(problem) for problem in not_ready(now)]
    return [*_head(now), "", *made.lines, *(["", *problems] if problems else [])]


def _head(now: StatusReply) -> list[str]:
    wanted = [process for process in now.strategies if process.wanted and not process.is_done]
    ready = sum(1 for process in wanted if process.state == "ready")
    others = len(now.strategies) - len(wanted)
    program = f"horizon {now.version} (pid {now.pid}), up {duration(now.uptime_s)}: {ready} of {len(wanted)} ready"
    program += f", {others} stopped or done" if others else ""
    program += ", stopping everything" if now.is_stopping else ""
    writer = now.writer
    database = f"{one_line(now.database)}: {counted(writer.committed, 'record')} committed since the writer's start"
    database += "" if writer.commit_age_s is None else f", last commit {duration(writer.commit_age_s)} ago"
    database += f", {counted(writer.dead_letters, 'dead letter')}" if writer.dead_letters else ""
    dropped = now.log_dropped + sum(process.log_dropped for process in now.processes)
    return [program, database, *([f"{counted(dropped, 'line')} of log dropped"] if dropped else [])]


# What is wrong is said below the table in full, so the note may go before what tells of an old trouble.
_COLUMNS = (
    *(Column("process", cut="end"), Column("state"), Column("pid", right=True, dispensable=5)),
    *(Column("uptime", right=True, dispensable=4), Column("restarts", right=True, dispensable=1)),
    *(Column("cycles", right=True, dispensable=9), Column("orders", right=True, dispensable=8), Column("fills", right=True)),
    *(Column("open", right=True, dispensable=2), Column("position", right=True), Column("pnl", right=True)),
    *(Column("unacked", right=True, dispensable=6), Column("latency", right=True, dispensable=7)),
    *(Column("beat", right=True, dispensable=10), Column("note", cut="end", dispensable=3)),
)


def _cells(process: ProcessStatus) -> list[str]:
    trades = process.kind == "strategy"
    return [
        *(process.name, "done" if process.is_done and process.state == "stopped" else process.state),
        *("-" if process.pid is None else str(process.pid), duration(process.uptime_s), str(process.restarts)),
        *(_if(trades, str(process.cycles)), _if(trades, str(process.orders)), _if(trades, str(process.fills))),
        *(_if(trades, str(process.open_orders)), _if(trades, number(round(process.position, 8)))),
        *(_if(trades, rounded(process.pnl, 4)), _if(trades and process.pid is not None, str(process.unacked))),
        "-" if process.latency_ms is None or process.pid is None else f"{process.latency_ms:.1f} ms",
        "-" if process.heartbeat_age_s is None else f"{process.heartbeat_age_s:.1f} s",
        note(process),
    ]


def _if(applies: bool, text: str) -> str:
    return text if applies else "-"


def note(process: ProcessStatus) -> str:
    """What a person should know of it beside the numbers."""
    parts = [process.why] if process.why else []
    if process.next_start_s is not None:
        parts.append(f"next start in {process.next_start_s:.1f} s")
    if process.kill_switch:
        parts.append("kill switch is on")
    if process.hold:
        parts.append("on hold")
    if (
        process.last_end not in ("", "is done")
        and process.last_end not in process.why
        and (process.pid is None or process.restarts)
    ):
        parts.append(f"last: {process.last_end}")
    if process.last_error:
        parts.append(process.last_error)
    return "; ".join(parts)
