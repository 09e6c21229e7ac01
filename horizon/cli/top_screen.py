"""The screen of `horizon top` as lines of text: pure, so that any size and any state can be drawn in a test.

Every line is built for the width it gets and never wraps; what does not fit below goes in this order: lines of the log, positions, rows of
the table that are far from the selected one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from horizon.cli.live import style_of
from horizon.cli.status import note
from horizon.cli.text import Column, counted, duration, number, one_line, rounded, size, table
from horizon.cli.top_session import Session, asked, process_of
from horizon.cli.top_watch import Seen
from horizon.control import ProcessStatus, StatusReply, not_ready

if TYPE_CHECKING:
    from horizon.store.read import PositionView

_FOOT = "up/down select  s stop  t start  r restart  x reset  d dump  ? help  q quit"
_LEAST_ROWS = 3
_STATE = 2  # the number of its column

_COLUMNS = (
    *(Column(" "), Column("process", cut="end"), Column("state"), Column("pid", right=True, dispensable=7)),
    *(Column("uptime", right=True, dispensable=4), Column("restarts", right=True, dispensable=3)),
    *(Column("cycles", right=True, dispensable=10), Column("orders", right=True, dispensable=9), Column("fills", right=True)),
    *(Column("events/s", right=True, dispensable=5), Column("position", right=True), Column("pnl", right=True)),
    *(Column("unacked", right=True, dispensable=2), Column("latency", right=True, dispensable=6)),
    Column("note", cut="end", dispensable=1),
)
_POSITION_COLUMNS = (
    *(Column("market", cut="end"), Column("side"), Column("size", right=True), Column("avg_price", right=True)),
    *(Column("realized", right=True), Column("unrealized", right=True), Column("fees", right=True, dispensable=1)),
    Column("exchange", dispensable=2),
)


def draw(seen: Seen, session: Session, now: float, width: int, height: int) -> Text:
    """At most `height` lines, each at most `width` cells."""
    lines = _page(session, height) if session.pages is not None else _screen(seen, session, now, width, height)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    drawn = Text("\n", no_wrap=True, overflow="crop").join(lines[:height])
    drawn.no_wrap, drawn.overflow = True, "crop"
    return drawn


def _screen(seen: Seen, session: Session, now: float, width: int, height: int) -> list[Text]:
    head = _head(seen, now)
    foot = [_prompt(seen, session)]
    if seen.status is None:
        return _filled([*head, Text()], foot, height)
    rows = _rows(seen.status, seen.rates, session.selected, width)
    selected = next((number for number, process in enumerate(seen.status.processes) if process.name == session.selected), 0)
    room = height - len(head) - len(foot) - 2  # the title of the table, and a line between
    detail = _detail(seen, session.selected, width)
    shown = max(min(_LEAST_ROWS, room), min(len(rows) - 1, room - min(len(detail), room // 2)))
    first = _first_row(selected, shown, len(rows) - 1)
    body = [*head, Text(), rows[0], *rows[1 + first : 1 + first + shown]]
    return _filled([*body, Text(), *detail], foot, height)


def _filled(body: list[Text], foot: list[Text], height: int) -> list[Text]:
    """The foot on the last line, whatever there is above."""
    room = max(0, height - len(foot))
    return [*body[:room], *(Text() for _ in range(room - len(body))), *foot]


def _first_row(selected: int, shown: int, count: int) -> int:
    """So that the selected row is in sight, in the middle where the table is long."""
    return max(0, min(selected - shown // 2, count - shown))


# ---- head and foot


def _head(seen: Seen, now: float) -> list[Text]:
    if seen.status is None:
        return [Text(one_line(seen.silence) or "asking the supervisor", style="bold red" if seen.silence else "")]
    status = seen.status
    lines = [_program(status), _writer(status, seen)]
    if seen.silence:
        lines.insert(0, Text(f"last seen {duration(now - seen.seen_at)} ago: {one_line(seen.silence)}", style="bold red"))
        return lines
    stopped = [process.name for process in status.strategies if process.kill_switch]
    if stopped:
        lines.append(Text(f"kill switch is on: {one_line(', '.join(stopped))}", style="bold red"))
    problems = not_ready(status)
    lines.append(Text(one_line("; ".join(problems)), style="bold yellow") if problems else Text("all is ready", style="green"))
    return lines


def _program(status: StatusReply) -> Text:
    wanted = [process for process in status.strategies if process.wanted and not process.is_done]
    ready = sum(process.state == "ready" for process in wanted)
    text = f"horizon {status.version}  pid {status.pid}  up {duration(status.uptime_s)}  {ready} of {len(wanted)} ready"
    text += f"  loop lag {status.loop_lag_ms:.1f} ms"
    line = Text(one_line(text), style="bold")
    if status.is_stopping:
        line.append("  stopping everything", style="bold yellow")
    return line


def _writer(status: StatusReply, seen: Seen) -> Text:
    writer = status.writer
    words = [f"{one_line(status.database)}: {_bytes(seen.database_bytes)}, wal {_bytes(seen.wal_bytes)}"]
    words.append(f"writer committed {writer.committed}")
    if (rate := seen.rates.get("writer")) is not None:
        words.append(f"{rate:.1f}/s")
    if writer.commit_age_s is not None:
        words.append(f"last commit {writer.commit_age_s:.1f} s ago")
    line = Text("  ".join(words))
    if writer.stalled:
        line.append(f"  STALLED: {one_line(writer.stalled)}", style="bold red")
    if writer.dead_letters:
        line.append(f"  {counted(writer.dead_letters, 'dead letter')}", style="bold yellow")
    dropped = status.log_dropped + sum(process.log_dropped for process in status.processes)
    if dropped:
        line.append(f"  {counted(dropped, 'line')} of log dropped", style="yellow")
    return line


def _bytes(count: int | None) -> str:
    return "-" if count is None else size(count)


def _prompt(seen: Seen, session: Session) -> Text:
    if session.question is not None:
        process = process_of(seen.status, session.question.name)
        is_theirs = seen.selected == session.question.name
        held = sum(1 for position in seen.positions if position.size) if is_theirs else 0
        return Text(asked(session.question, process, held), style="bold reverse")
    if session.message:
        return Text(session.message, style="green" if session.message_is_good else "bold red")
    return Text(_FOOT, style="dim")


# ---- the table


def _rows(status: StatusReply, rates: Mapping[str, float], selected: str, width: int) -> list[Text]:
    """The title line and one for each process."""
    made = table(_COLUMNS, [_cells(process, rates, process.name == selected) for process in status.processes], width)
    lines = [Text("  ".join(made.cells[0]), style="bold")]
    for process, cells in zip(status.processes, made.cells[1:], strict=True):
        line = Text(style="reverse" if process.name == selected else "")
        for index, cell in enumerate(cells):
            line.append(cell if not index else f"  {cell}", style=style_of(cell.strip()) if index == _STATE else None)
        lines.append(line)
    return lines


def _cells(process: ProcessStatus, rates: Mapping[str, float], is_selected: bool) -> list[str]:
    trades = process.kind == "strategy"
    rate = rates.get(process.name)
    return [
        *(">" if is_selected else "", process.name, _state(process), "-" if process.pid is None else str(process.pid)),
        *(duration(process.uptime_s), str(process.restarts)),
        *((str(process.cycles), str(process.orders), str(process.fills)) if trades else ("-", "-", "-")),
        "-" if rate is None or process.pid is None else f"{rate:.1f}",
        *((number(round(process.position, 8)), rounded(process.pnl, 4)) if trades else ("-", "-")),
        str(process.unacked) if trades and process.pid is not None else "-",  # what a dead one left is drained by the writer
        "-" if process.latency_ms is None or process.pid is None else f"{process.latency_ms:.1f} ms",
        note(process),
    ]


def _state(process: ProcessStatus) -> str:
    return "done" if process.is_done and process.state == "stopped" else process.state


# ---- the selected process


def _detail(seen: Seen, selected: str, width: int) -> list[Text]:
    process = process_of(seen.status, selected)
    if process is None:
        return []
    lines = [Text(one_line("  ".join(_facts(process))), style="bold")]
    if process.why or process.last_error:
        lines.append(Text(one_line(note(process)), style="bold yellow"))
    if seen.selected != selected:
        return lines  # what is there is of another one; the next look brings its own
    if process.kind == "strategy":
        lines += _positions(seen.positions, seen.positions_problem, width)
    if seen.entries:
        lines += [Text(), Text("newest errors and events", style="bold")]
        lines += [Text(one_line(entry.splitlines()[0]), style=_entry_style(entry)) for entry in seen.entries]
    return lines


def _facts(process: ProcessStatus) -> list[str]:
    facts = [f"{process.name}: {_state(process)}"]
    facts += [f"run {process.run_id}"] if process.run_id else []
    facts.append(counted(process.starts, "start"))
    facts += [f"last end: {process.last_end}"] if process.last_end not in ("", "is done") else []
    facts += [f"heartbeat {process.heartbeat_age_s:.1f} s ago"] if process.heartbeat_age_s is not None else []
    facts += [f"memory {size(process.rss_bytes)}"] if process.rss_bytes is not None else []
    facts += [f"journal {size(process.journal_bytes)}"] if process.journal_bytes else []
    facts += [counted(process.open_orders, "open order")] if process.open_orders else []
    return facts


def _positions(positions: Sequence[PositionView], problem: str, width: int) -> list[Text]:
    if problem:
        return [Text(f"positions cannot be read: {one_line(problem)}", style="yellow")]
    if not positions:
        return [Text("no positions in the database", style="dim")]
    rows = [
        [
            *(one.market_id, one.side, number(one.size), rounded(one.avg_entry_price)),
            *(rounded(one.realized_pnl), rounded(one.unrealized_pnl), rounded(one.fees), one.exchange),
        ]
        for one in positions
    ]
    title, *lines = table(_POSITION_COLUMNS, rows, width).lines
    return [Text(title, style="bold"), *map(Text, lines)]


def _entry_style(entry: str) -> str:
    words = entry.split(maxsplit=3)
    level = words[2] if len(words) > 2 else ""
    return {"ERROR": "red", "CRITICAL": "bold red", "WARNING": "yellow"}.get(level, "")


# ---- a text over everything


def _page(session: Session, height: int) -> list[Text]:
    assert session.pages is not None
    room = max(1, height - 1)
    lines = [Text(one_line(line)) for line in session.pages[session.scrolled : session.scrolled + room]]
    more = len(session.pages) - session.scrolled - room
    hint = f"up/down scroll ({counted(more, 'line')} below); any other key goes back" if more > 0 else "any key goes back"
    return _filled(lines, [Text(hint, style="dim")], height)
