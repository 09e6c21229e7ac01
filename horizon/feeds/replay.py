"""Recorded trades or quotes of a CSV file, played again in real, scaled or no time.

Strict on purpose: a replay that skips what it cannot read would show a strategy another day than the recorded one. A line that
cannot be read, a number that is not finite, a negative size and a time before the one of the line above stop the replay with an
error that names the line, after all lines above it have been played.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from datetime import date as Date
from itertools import chain
from pathlib import Path

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import ConfigError
from horizon.feeds.played import PlayedFeed, Tick
from horizon.feeds.rows import read_rows

REQUIRED = {"trades": ("timestamp", "price"), "quotes": ("timestamp", "bid", "ask")}
OPTIONAL = {"trades": ("size", "side"), "quotes": ()}
UNITS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
IS_BUY = {"buy": True, "sell": False, "unknown": None}
SIDES = {"buy": "buy", "b": "buy", "bid": "buy", "sell": "sell", "s": "sell", "ask": "sell", "a": "sell"}

# A time outside of these years is a wrong unit: seconds read as milliseconds give 1970, milliseconds read as seconds 52,000.
EARLIEST_S = datetime(1971, 1, 1, tzinfo=UTC).timestamp()
LATEST_S = datetime(2200, 1, 1, tzinfo=UTC).timestamp()


class Replay(PlayedFeed):
    """One recorded CSV file (plain, gzip, or a zip of exactly one file), read as a stream.

    `columns` says where the fields are: by the name in the header, or by number from 0. Trades have timestamp, price and, where
    known, size and side; quotes have timestamp, bid and ask. A field that is left out is looked for under its own name.

    `sides` says what the texts of the side column mean for the one who took liquidity, whatever their case: "buy", "sell" or
    "unknown". By default buy, b and bid are a buy; sell, s, ask and a are a sell. Where a column tells whether the buyer was the
    maker, it is {"True": "sell", "False": "buy"}.

    Times are UTC. "iso" is ISO 8601, with or without a zone; with `date` the numbers count from that day's midnight.

    Raises: ConfigError naming the argument, here; naming file and line, from `start` and `advance`.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str = "trades",
        *,
        columns: Mapping[str, str | int] | None = None,
        time_unit: str = "s",  # s, ms, us, ns or iso
        date: str | Date | None = None,  # for files that count from midnight: "2014-05-07"
        speed: float | str = 1.0,  # market seconds per second, or "max": one row a call, as fast as the cycle runs
        header: bool = True,
        delimiter: str = ",",
        sides: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if kind not in REQUIRED:
            raise ConfigError(f'replay feed: kind must be "trades" or "quotes", got {kind!r}')
        if not (isinstance(delimiter, str) and len(delimiter) == 1):
            raise ConfigError(f"replay feed: delimiter must be one character, got {delimiter!r}")
        if not isinstance(path, (str, Path)):
            raise ConfigError(f"replay feed: path must be the name of a file, got {path!r}")
        self.path = Path(path).expanduser()
        self.kind = kind
        self._columns = _checked_columns(columns or {}, kind, header)
        self._to_time = _time_reader(time_unit, date)
        self._header = header
        self._delimiter = delimiter
        self._is_buy = _checked_sides(SIDES if sides is None else sides)
        super().__init__(f"replay:{self.path.name}", _checked_speed(speed), clock)

    def _play(self) -> Generator[Tick, None, None]:
        rows = read_rows(self.path, self._delimiter)
        try:
            yield from self._ticks_of(rows)
        finally:
            rows.close()

    def _ticks_of(self, rows: Generator[tuple[int, list[str]], None, None]) -> Generator[Tick, None, None]:
        names = [name.strip() for name in next(rows, (0, []))[1]] if self._header else []
        first = next(rows, None)
        if first is None:
            raise ConfigError(f"replay feed: {self.path} holds no {self.kind}")
        width = len(names or first[1])
        to_tick = self._tick_reader(names, width)
        newest = -math.inf
        for line, row in chain((first,), rows):
            try:
                if len(row) != width:
                    raise ValueError(f"there are {len(row)} columns instead of {width}")
                tick = to_tick(row)
                if tick.timestamp < newest:
                    raise ValueError(f"the time {_shown(tick.timestamp)} is before the {_shown(newest)} above it; sort the file")
            except ValueError as error:
                raise ConfigError(f"replay feed: {self.path}, line {line}: {error}") from None
            newest = tick.timestamp
            yield tick

    def _tick_reader(self, names: list[str], width: int) -> Callable[[list[str]], Tick]:
        """One row in, one tick out: a closure that has the columns at hand, since it runs for every row."""
        places = {field: self._place_of(field, names, width) for field in REQUIRED[self.kind]}
        to_time, time_at, is_buy = self._to_time, places["timestamp"], self._is_buy

        if self.kind == "quotes":
            bid_at, ask_at = places["bid"], places["ask"]
            return lambda row: Tick(to_time(row[time_at]), _number("bid", row[bid_at]), _number("ask", row[ask_at]))

        price_at = places["price"]
        size_at, side_at = (self._optional_place_of(field, names, width) for field in OPTIONAL[self.kind])
        return lambda row: Tick(
            to_time(row[time_at]),
            price=_number("price", row[price_at]),
            size=0.0 if size_at is None else _size(row[size_at]),
            is_buy=None if side_at is None else _side(row[side_at], is_buy),
        )

    def _place_of(self, field: str, names: list[str], width: int) -> int:
        column = self._columns.get(field, field)
        if isinstance(column, str):
            if column not in names:
                raise ConfigError(f"replay feed: {self.path} has no column {column!r} for {field}; it has {', '.join(names)}")
            return names.index(column)
        if column >= width:
            raise ConfigError(f"replay feed: columns.{field} is {column}, counted from 0, but {self.path} has {width} columns")
        return column

    def _optional_place_of(self, field: str, names: list[str], width: int) -> int | None:
        return self._place_of(field, names, width) if field in self._columns or field in names else None


def _checked_columns(columns: Mapping[str, str | int], kind: str, header: bool) -> dict[str, str | int]:
    if not isinstance(columns, Mapping):
        raise ConfigError(f"replay feed: columns must map fields to columns, got {columns!r}")
    if not isinstance(header, bool):
        raise ConfigError(f"replay feed: header must be true or false, got {header!r}")
    fields = REQUIRED[kind] + OPTIONAL[kind]
    for field, column in columns.items():
        if field not in fields:
            raise ConfigError(f"replay feed: columns.{field} is unknown; {kind} have {', '.join(fields)}")
        if isinstance(column, bool) or not isinstance(column, (str, int)) or (isinstance(column, int) and column < 0):
            raise ConfigError(f"replay feed: columns.{field} must be a name or a number from 0, got {column!r}")
        if isinstance(column, str) and not header:
            raise ConfigError(f"replay feed: columns.{field} is {column!r}, but there is no header; give a number, from 0")
    missing = [field for field in REQUIRED[kind] if field not in columns]
    if missing and not header:
        raise ConfigError(f"replay feed: without a header, columns must give the number of {', '.join(missing)}, from 0")
    return dict(columns)


def _time_reader(unit: str, date: str | Date | None) -> Callable[[str], float]:
    """A function from the text of a time to Unix seconds."""
    if unit == "iso":
        if date is not None:
            raise ConfigError('replay feed: date belongs to times that count from midnight, not to time_unit "iso"')
        return _iso_time
    if unit not in UNITS_PER_S:
        raise ConfigError(f"replay feed: time_unit must be one of {', '.join(UNITS_PER_S)} or iso, got {unit!r}")
    midnight, per_s = _midnight(date), UNITS_PER_S[unit]
    return lambda text: _plausible(midnight + _count(text) / per_s, text)


def _midnight(date: str | Date | None) -> float:
    if date is None:
        return 0.0
    try:
        day = Date.fromisoformat(date) if isinstance(date, str) else date
        return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    except (ValueError, AttributeError):
        raise ConfigError(f'replay feed: date must look like "2014-05-07", got {date!r}') from None


def _checked_sides(sides: Mapping[str, str]) -> dict[str, bool | None]:
    if not isinstance(sides, Mapping):
        raise ConfigError(f"replay feed: sides must map texts to buy and sell, got {sides!r}")
    for text, side in sides.items():
        if side not in IS_BUY:
            raise ConfigError(f"replay feed: sides.{text} must be one of {', '.join(IS_BUY)}, got {side!r}")
    return {text.lower(): IS_BUY[side] for text, side in sides.items()}


def _checked_speed(speed: float | str) -> float | None:
    if speed == "max":
        return None
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not 0 < speed < math.inf:
        raise ConfigError(f'replay feed: speed must be a number above 0, or "max", got {speed!r}')
    return speed


def _iso_time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"timestamp {text!r} is not an ISO 8601 time") from None
    return _plausible((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), text)


def _count(text: str) -> float:
    # A whole number of nanoseconds since 1970 has more digits than a float: divided as an int it is rounded once, not twice.
    return int(text) if text.isdecimal() and len(text) < 30 else _number("timestamp", text)


def _plausible(timestamp: float, text: str) -> float:
    if not EARLIEST_S <= timestamp < LATEST_S:
        raise ValueError(
            f"timestamp {text!r} lies outside of 1971 to 2199; check time_unit, and give date= when it counts from midnight"
        )
    return timestamp


def _number(field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{field} {text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{field} {text!r} is not finite")
    return value


def _size(text: str) -> float:
    value = _number("size", text)
    if value < 0:
        raise ValueError(f"size {text!r} is negative")
    return value


def _side(text: str, is_buy: Mapping[str, bool | None]) -> bool | None:
    try:
        return is_buy[text.strip().lower()]
    except KeyError:
        raise ValueError(f"side {text!r} is none of {', '.join(is_buy)}; say with sides= what it means") from None


def _shown(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat()
