"""Read stored fills back, and tell whether a fill whose id is known is the same one (R4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw

from horizon.errors import RecordRejected, StoreRefused
from horizon.records import FeeCurrency, Fill, OrderSide, Side
from horizon.store.dead_letters import Kind
from horizon.store.sql import QUERIES

_CONTENT = ("order_id", "market_id", "side", "order_side", "price", "size", "exchange")
_DETAILS = ("fee", "timestamp", "token_id", "is_maker", "multiplier", "fee_currency")
_ORIGINAL_DETAILS = ("fee", "timestamp", "token_id")  # a row of the original has no others

# Looking a member up in its enum takes a third of the time of reading a fill.
_SIDES = {side.value: side for side in Side}
_ORDER_SIDES = {side.value: side for side in OrderSide}
_FEE_CURRENCIES: dict[str | None, FeeCurrency] = {None: FeeCurrency.Quote, "": FeeCurrency.Quote}
_FEE_CURRENCIES |= {currency.value: currency for currency in FeeCurrency}


class StoredFill(NamedTuple):
    strategy: str | None  # None: inserted by a program of the original
    commit_no: int | None  # None: a row of the original
    fill: Fill


class Difference(NamedTuple):
    kind: Kind
    reason: str


def stored_fill(connection: apsw.Connection, fill_id: str) -> StoredFill | None:
    """Look a fill up by primary key."""
    row = connection.execute(QUERIES["fill_by_id"], {"fill_id": fill_id}).fetchone()
    return None if row is None else StoredFill(row[0], row[1], fill_of(row[2:]))


def fill_of(row: tuple[Any, ...]) -> Fill:
    """A fill from the columns of its fields, in their order; the last three may be missing or NULL, as the original leaves them.

    Raises: StoreRefused when the row is not a fill.
    """
    fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, *ours = row
    is_maker, multiplier, fee_currency = ours or (None, None, None)
    try:
        return Fill(
            fill_id, order_id, market_id, _SIDES.get(side) or Side(side.lower()),
            _ORDER_SIDES.get(order_side) or OrderSide(order_side.lower()), price, size, fee, timestamp, token_id, exchange,
            bool(is_maker), 1.0 if multiplier is None else multiplier, _FEE_CURRENCIES.get(fee_currency) or FeeCurrency(fee_currency),
        )  # fmt: skip
    except (RecordRejected, ValueError, TypeError, AttributeError) as error:
        raise StoreRefused(f"the stored fill {fill_id!r} cannot be read: {error}") from error


def difference(stored: StoredFill, strategy: str, fill: Fill) -> Difference | None:
    """How a fill differs from the stored one of the same id. None: it is the same."""
    content = _changes(stored.fill, fill, _CONTENT)
    if stored.strategy not in (None, strategy):
        content.insert(0, f"strategy {stored.strategy!r} -> {strategy!r}")
    if content:
        return Difference("conflict", f"fill {fill.fill_id!r} is stored with other content: {', '.join(content)}")
    details = _changes(stored.fill, fill, _ORIGINAL_DETAILS if stored.commit_no is None else _DETAILS)
    if details:
        return Difference("amended", f"fill {fill.fill_id!r} is stored with other details: {', '.join(details)}")
    return None


def _changes(stored: Fill, fill: Fill, names: tuple[str, ...]) -> list[str]:
    pairs = ((name, getattr(stored, name), getattr(fill, name)) for name in names)
    return [f"{name} {old!s} -> {new!s}" for name, old, new in pairs if old != new]
