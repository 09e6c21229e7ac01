"""How numbers, times and tables read in a terminal, a pipe and a log: the same words everywhere.

No rich here: lists of rows must come out whole and uncoloured through a pipe, and `horizon version` must not pay for it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, NamedTuple

_LONGEST_PLAIN_NUMBER = 40
_SHORTEST = 12  # cells that a column keeps when it is cut


class Column(NamedTuple):
    """One column, and what it gives up when a terminal is too narrow: the front of an id, the end of a name, or itself."""

    title: str
    right: bool = False
    cut: Literal["", "front", "end"] = ""
    dispensable: int = 0  # the highest goes first, 0 never


class Table(NamedTuple):
    lines: list[str]
    cells: list[list[str]]  # the same, cell by cell, each as wide as its column
    left_out: list[str]  # titles of columns that there was no room for


def number(value: float | Decimal | None) -> str:
    """The shortest text that gives the number back, without an exponent where that stays readable: 1e-07 is 0.0000001."""
    if value is None:
        return "-"
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if not exact.is_finite():
        return str(exact)
    if exact.is_zero():
        return "0"
    plain = format(exact, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return plain if len(plain) <= _LONGEST_PLAIN_NUMBER else str(exact)


def rounded(value: float | Decimal | None, digits: int = 6) -> str:
    """A computed figure (an average, a PnL, a sum): rounded, because its last digits tell nobody anything."""
    if value is None or not math.isfinite(value):
        return number(value)
    return number(round(Decimal(str(value)), digits))


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(count: float) -> str:
    """How many bytes, in the largest unit that leaves a number above one: 512 B, 4.0 KiB, 1.3 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def utc(timestamp: float | None) -> str:
    """Unix seconds as UTC, to the second; a number that is no time of this era is shown as it is."""
    if timestamp is None:
        return "-"
    try:
        return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return number(timestamp)


def duration(seconds: float | None) -> str:
    """How long, in the two largest units: 42s, 3m05s, 2h07m, 4d03h."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    for size, unit, small_size, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small_size:02d}{small_unit}"
    return f"{whole}s"


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None = None) -> Table:
    """Aligned lines under a title line. `width` is a terminal's; without one nothing is cut, however wide it becomes."""
    cells = [[column.title for column in columns], *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(cell_width(row[index]) for row in cells) for index in range(len(columns))]
    shown = list(range(len(columns)))
    if width is not None:
        shown = _worth_showing(columns, widths, width)
        _shrink(columns, widths, shown, width)
    made = [[_cell(columns[index], widths[index], row[index]) for index in shown] for row in cells]
    return Table(
        ["  ".join(row).rstrip() for row in made],
        made,
        [column.title for index, column in enumerate(columns) if index not in shown],
    )


def one_line(text: str) -> str:
    """Text from outside without line breaks and without terminal escapes: what a venue sent must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def cell_width(text: str) -> int:
    """How many terminal cells a text takes: names of markets are not always Latin."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _worth_showing(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """The columns that fit when all that can be cut is cut."""
    least = [min(own, _SHORTEST) if column.cut else own for column, own in zip(columns, widths, strict=True)]
    shown = list(range(len(columns)))
    for index in sorted(shown, key=lambda index: -columns[index].dispensable):
        if _total(least, shown) <= width or not columns[index].dispensable:
            break
        shown.remove(index)
    return shown


def _shrink(columns: Sequence[Column], widths: list[int], shown: Sequence[int], width: int) -> None:
    """Take the room that is missing from the widest columns that can be cut."""
    for index in sorted(shown, key=lambda index: -widths[index]):
        missing = _total(widths, shown) - width
        if missing > 0 and columns[index].cut:
            widths[index] -= min(missing, max(0, widths[index] - _SHORTEST))


def _total(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[index] for index in shown) + 2 * (len(shown) - 1)


def _cell(column: Column, width: int, text: str) -> str:
    while cell_width(text) > width:
        text = "…" + text[2:] if column.cut == "front" else text[:-2] + "…"
    padding = " " * (width - cell_width(text))
    return padding + text if column.right else text + padding
