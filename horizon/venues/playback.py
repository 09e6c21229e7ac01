"""The playback venue: recorded executions, sent again as if a real venue sent them.

What it is for: feeding a strategy's engine, recovery and database the fills of a real account, whose outcome is known. It invents
nothing: one row is one fill, price and size come from the row's text, and the order ids are the recorded ones. It takes no orders.
All its fills belong to the strategy that plays them back (`vouches`), although that strategy never sent those orders.

Rows are read and checked when the venue is made, so that a wrong column is an error at that line and not in the middle of a run.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, TypeVar

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import ConfigError, RecordRejected
from horizon.records import FeeCurrency, Fill, Order, OrderSide, OrderStatus, Side
from horizon.venues.base import OrderUpdate, VenueEvent

Row = Mapping[str, str]
Column = str | Callable[[Row], object]

_REQUIRED = ("order_id", "market_id", "order_side", "price", "size")
_NO_ORDERS = "the playback venue takes no orders: it only sends recorded fills again"


class Playback:
    """Recorded fills as a venue.

    `source` is a CSV file with a header (gzip when it ends in .gz) or an iterable of rows. `columns` says where the fields of a Fill
    come from: the name of a column, or a function of the row for odd ones, which returns the value or its text. `constants` holds
    fields that are the same in every row. `where` picks rows, so that one file can be several accounts. The exchange is `name`.
    Without a fill_id, ids are made of name, file and row number: the same file gives the same ids, also to two accounts in it.

    Pace: all at once; or `rows_per_poll` fills at each poll; or `speed` recorded seconds per second since `connect`, where 1 is the
    recorded time and "max" does not wait.
    `redeliver` is how many of the fills delivered last come again with each new delivery, as after a reconnect.
    Raises: ConfigError with file, row and column. Worked example: `Playback("fills.csv", {"order_id": "Order", "market_id": "Coin",
    "order_side": "Side", "price": "Price", "size": "Size"}, {"side": Side.Long}, name="hyperliquid")`.
    """

    vouches = True

    def __init__(
        self,
        source: str | Path | Iterable[Row],
        columns: Mapping[str, Column],
        constants: Mapping[str, object] | None = None,
        *,
        name: str = "playback",
        where: Callable[[Row], bool] | None = None,
        rows_per_poll: int | None = None,
        speed: float | str = "max",
        redeliver: int = 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        _check_pace(rows_per_poll, speed, redeliver)
        self.name = name
        label = Path(source).name.partition(".")[0] if isinstance(source, str | Path) else "rows"
        mapping = _Mapping(columns, constants or {}, name, label)
        self.fills: Sequence[Fill] = tuple(mapping.fills(source, where))
        self._rows_per_poll = rows_per_poll
        self._speed = None if isinstance(speed, str) else float(speed)
        self._redeliver = redeliver
        self._clock = clock
        self._started = clock.monotonic()
        self._due_at = _due_times(self.fills)
        self._next = 0

    @property
    def order_ids(self) -> tuple[str, ...]:
        """The recorded orders, in the order of their first fills."""
        return tuple(dict.fromkeys(fill.order_id for fill in self.fills))

    @property
    def exhausted(self) -> bool:
        """Whether every recorded fill has been delivered."""
        return self._next >= len(self.fills)

    def connect(self) -> None:
        self._started = self._clock.monotonic()

    def close(self) -> None:
        pass

    def submit(self, order: Order) -> OrderUpdate:
        return OrderUpdate(order.id, OrderStatus.Rejected, _NO_ORDERS)

    def cancel(self, order_id: str) -> OrderUpdate:
        return OrderUpdate(order_id, OrderStatus.Rejected, _NO_ORDERS)

    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:  # noqa: ARG002
        return OrderUpdate(order_id, OrderStatus.Rejected, _NO_ORDERS)

    def poll(self) -> Sequence[VenueEvent]:
        """The fills that are due now, after those that come again."""
        due = self._due()
        if due <= self._next:
            return ()
        first = max(0, self._next - self._redeliver)
        self._next = due
        return self.fills[first:due]

    def fills_since(self, timestamp: float) -> Sequence[Fill]:
        """Of the fills delivered so far: what is not due yet has not happened."""
        return [fill for fill in self.fills[: self._next] if fill.timestamp >= timestamp]

    def order_by_client_id(self, order_id: str) -> OrderUpdate | None:  # noqa: ARG002
        """None: a list of fills does not tell how an order ended."""
        return None

    def _due(self) -> int:
        if self._speed is not None:
            return bisect_right(self._due_at, (self._clock.monotonic() - self._started) * self._speed)
        if self._rows_per_poll is not None:
            return min(len(self.fills), self._next + self._rows_per_poll)
        return len(self.fills)


class _Mapping:
    """From rows to fills, with errors that say where."""

    def __init__(self, columns: Mapping[str, Column], constants: Mapping[str, object], name: str, label: str) -> None:
        known = [field for field in Fill.__struct_fields__ if field != "exchange"]
        for field in (*columns, *constants):
            if field not in known:
                raise ConfigError(f"playback: a fill has no field {field!r} to map; it has {', '.join(known)}")
        missing = [field for field in _REQUIRED if field not in columns and field not in constants]
        if missing:
            raise ConfigError(f"playback of {label}: no column or constant is given for {', '.join(missing)}")
        self._columns = {
            "side": _constant(Side.Long),
            **{field: _constant(value) for field, value in constants.items()},
            **columns,
        }
        self._name = name
        self._label = label

    def fills(self, source: str | Path | Iterable[Row], where: Callable[[Row], bool] | None) -> Iterator[Fill]:
        rows = _rows_of_file(Path(source)) if isinstance(source, str | Path) else source
        for number, row in enumerate(rows, start=1):
            if where is None or where(row):
                yield self._fill(number, row)

    def _fill(self, number: int, row: Row) -> Fill:
        values: dict[str, Any] = {"fill_id": f"{self._name}-{self._label}-{number:08d}", "exchange": self._name}
        for field, column in self._columns.items():
            values[field] = self._value(number, row, field, column)
        try:
            return Fill(**values)
        except RecordRejected as error:
            raise ConfigError(f"playback of {self._label}, row {number}: {error}") from error

    def _value(self, number: int, row: Row, field: str, column: Column) -> object:
        place = f"playback of {self._label}, row {number}, field {field}"
        if isinstance(column, str):
            if column not in row:
                raise ConfigError(f"{place}: there is no column {column!r}; the row has {', '.join(map(str, row))}")
            value: object = row[column]
            if value is None:
                raise ConfigError(f"{place}: the row ends before the column {column!r}")
        else:
            try:
                value = column(row)
            except Exception as error:
                raise ConfigError(f"{place}: the function for it raised {error!r}") from error
        try:
            return _FROM_TEXT.get(field, _text)(str(value).strip())
        except ValueError as error:
            raise ConfigError(f"{place}: {value!r} cannot be read: {error}") from error


def _constant(value: object) -> Callable[[Row], object]:
    return lambda row: value  # noqa: ARG005


def _rows_of_file(path: Path) -> Iterator[Row]:
    try:
        with _opened(path) as file:
            for number, row in enumerate(csv.DictReader(file, strict=True), start=1):
                if None in row:
                    raise ConfigError(f"playback of {path}, row {number}: it has more cells than the header")
                yield row
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise ConfigError(f"playback: cannot read {path}: {error}") from error


def _opened(path: Path) -> IO[str]:
    # utf-8-sig: a byte order mark would else become part of the first column's name.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _check_pace(rows_per_poll: int | None, speed: float | str, redeliver: int) -> None:
    if speed != "max" and (isinstance(speed, str) or not speed > 0):
        raise ConfigError(f'playback: speed must be above 0 (1 is the recorded time) or "max", got {speed!r}')
    if rows_per_poll is not None and speed != "max":
        raise ConfigError("playback: give rows_per_poll or speed, not both")
    if rows_per_poll is not None and rows_per_poll < 1:
        raise ConfigError(f"playback: rows_per_poll must be at least 1, got {rows_per_poll}")
    if redeliver < 0:
        raise ConfigError(f"playback: redeliver must not be negative, got {redeliver}")


def _due_times(fills: Sequence[Fill]) -> Sequence[float]:
    """Seconds after the first fill. The recorded order holds: a fill stamped earlier than one before it is due with that one."""
    return list(accumulate((fill.timestamp - fills[0].timestamp for fill in fills), max))


_Word = TypeVar("_Word", Side, OrderSide, FeeCurrency)


def _word(kind: type[_Word]) -> Callable[[str], _Word]:
    return lambda text: kind(text.lower())


def _text(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _yes_or_no(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError("expected true or false") from None


_FROM_TEXT: Mapping[str, Callable[[str], object]] = {
    "side": _word(Side),
    "order_side": _word(OrderSide),
    "price": float,
    "size": float,
    "fee": float,
    "timestamp": float,
    "multiplier": float,
    "is_maker": _yes_or_no,
    "fee_currency": _word(FeeCurrency),
    "token_id": lambda text: text or None,
}
