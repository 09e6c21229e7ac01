"""What runs now, as a table for a terminal or as lines for everything else. Used by `horizon run`, `top` and by the supervisor.

Rich is imported only when a table is drawn: a log file and a pipe do without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

from horizon.cli.text import cell_width, duration, number, one_line, rounded

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = ("strategy", "state", "pid", "uptime", "cycles", "orders", "fills", "position", "pnl", "unacked", "latency")
_DISPENSABLE = ("cycles", "pid", "uptime")  # what a narrow terminal does without, in this order
_STEADY = {"state": "degraded", "pnl": "-123.45"}  # room for these from the start, so that the table does not jump
_STYLES = (
    dict.fromkeys(("running", "ready"), "green")
    | dict.fromkeys(("waiting", "starting", "stopping"), "cyan")
    | dict.fromkeys(("degraded", "backoff"), "bold yellow")
    | dict.fromkeys(("done", "stopped"), "dim")
)
_ALARM = "bold red"  # every other state: quarantined, failed, kill switch


class StrategyRow(NamedTuple):
    """One strategy now. None means not known (yet)."""

    strategy: str
    state: str
    pid: int | None
    uptime_s: float | None
    cycles: int
    orders: int  # submitted in this run
    fills: int
    position: float  # net over all markets
    pnl: float  # realized + unrealized, quote currency
    unacked: int  # records in the journal that are not yet acknowledged
    latency_ms: float | None  # median recorded -> acknowledged (committed) of the newest acks


def table(rows: Sequence[StrategyRow], width: int | None = None) -> Table:
    """The live table: one line per strategy, numbers to the right, trouble in red; `width` is the terminal's if not given."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [_cells(row) for row in rows]
    widths = {title: max([len(_STEADY.get(title, title)), *(cell_width(line[title]) for line in cells)]) for title in _TITLES}
    shown = _fitting(widths, width or shutil.get_terminal_size().columns)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for title in shown:
        # Only the name may be cut: half a number is a wrong number.
        is_name = title == "strategy"
        justify: Literal["left", "right"] = "left" if title in ("strategy", "state") else "right"
        drawn.add_column(title, justify=justify, no_wrap=True, min_width=1 if is_name else widths[title])
    for row, line in zip(rows, cells, strict=True):
        # Text, not str: a strategy's name is data and must not be read as markup.
        styles = {"state": style_of(row.state)}
        drawn.add_row(*(Text(line[title], style=styles.get(title, "")) for title in shown))
    return drawn


def lines(rows: Sequence[StrategyRow]) -> list[str]:
    """The same as plain lines, each complete in itself, for logs, pipes and dumb terminals."""
    cells = [_cells(row) for row in rows]
    name_width = max((cell_width(line["strategy"]) for line in cells), default=0)
    return [_plain(line, name_width) for line in cells]


def wants_table(stream: IO[str]) -> bool:
    """Whether a stream is a terminal on which a refreshing table is welcome (NO_COLOR and TERM=dumb say no)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") not in ("dumb", "")


def style_of(state: str) -> str:
    """How a state is shown, in rich's words: what needs a person is red, what heals by itself yellow."""
    return _STYLES.get(state, _ALARM)


def _fitting(widths: Mapping[str, int], width: int) -> list[str]:
    """The columns that a terminal of this width has room for."""
    shown = list(widths)
    for title in _DISPENSABLE:
        if sum(widths[one] + 1 for one in shown) <= width:
            break
        shown.remove(title)
    return shown


def _cells(row: StrategyRow) -> dict[str, str]:
    texts = (
        one_line(row.strategy),
        row.state,
        "-" if row.pid is None else str(row.pid),
        duration(row.uptime_s),
        str(row.cycles),
        str(row.orders),
        str(row.fills),
        number(round(row.position, 8)),
        rounded(row.pnl, 4),
        str(row.unacked),
        "-" if row.latency_ms is None else f"{row.latency_ms:.1f} ms",
    )
    return dict(zip(_TITLES, texts, strict=True))


def _plain(line: Mapping[str, str], name_width: int) -> str:
    name = line["strategy"]
    words = (f"{title} {line[title]}" for title in _TITLES[2:])
    return f"{name}{' ' * (name_width - cell_width(name))} {line['state']}  {'  '.join(words)}"
