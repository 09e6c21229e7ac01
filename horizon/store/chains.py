"""Whether the events of every order make sense: none that changes a terminal status, and no more filled than its fills say.

Fills and order events come from two tables whose rows have no common order, so an order is judged when both are at their end. Of one that
has ended and whose figures agree only a hash of its id is kept: ten million orders fit into memory. Several processes follow one part
of the orders each, by market; what is not settled at their end is judged in one place, since a fill may name another market than its order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from horizon.records import OPEN_STATUSES, OrderStatus
from horizon.store.accounts import Say

_KNOWN = frozenset(status.value for status in OrderStatus)
_OPEN = frozenset(status.value for status in OPEN_STATUSES)
_ENDED = _KNOWN - _OPEN
_SAME = 1e-9  # relative: sums of floats differ in their last digits


class Chain:
    """What is known so far of one order."""

    __slots__ = ("filled", "has_ended", "is_ours", "is_told_by_run", "status", "told")

    def __init__(self) -> None:
        self.status = ""  # of the newest event; "" before the first
        self.has_ended = False
        self.told = 0.0  # filled_size of the newest event
        self.filled = 0.0  # the sum of its fills
        self.is_told_by_run = False  # of the newest event: what a person resolved is his word
        self.is_ours = False  # `new` came from one of our runs, so `open_orders` has it while it is open


class Unsettled(NamedTuple):
    """What is left of the orders when all rows were seen."""

    chains: dict[str, Chain]
    ended_before: dict[str, str]  # of these and of the open orders: the status with which they had been settled


class OrderChains:
    """The orders of some markets, followed row by row."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._chains: dict[str, Chain] = {}
        self._done = {status: set[int]() for status in sorted(_ENDED)}

    def fills(self, rows: Sequence[Any]) -> None:
        """The regular rows of `fills_share`."""
        chains = self._chains
        for row in rows:
            if row[1] is None:
                continue
            chain = chains.get(row[5])
            if chain is None:
                chain = chains[row[5]] = Chain()
            chain.filled += row[10]
            if chain.has_ended:
                self._forget_if_settled(row[5], chain)

    def fill(self, order_id: str, size: float) -> None:
        """One fill that is not regular."""
        chain = self._chains.get(order_id)
        if chain is None:
            chain = self._chains[order_id] = Chain()
        chain.filled += size
        self._forget_if_settled(order_id, chain)

    def events(self, rows: Sequence[Any]) -> None:
        """Rows of `order_events_share`. One with a run was recorded by it, and not by the original or a person who resolved an orphan."""
        chains = self._chains
        for _, run_id, _, order_id, status, filled_size in rows:
            if status not in _KNOWN:
                status = self._known(order_id, status)
            chain = chains.get(order_id)
            if chain is None:
                chain = chains[order_id] = Chain()
            before = chain.status or self._status_when_done(order_id)
            if before in _ENDED and status != before:
                self._say(f"order {order_id}: an event says {status} after it had ended as {before}")
                continue
            is_ours = run_id is not None
            if status == "new":
                if before not in ("", "new"):
                    self._say(f"order {order_id}: it begins again as new after it was {before}")
                chain.is_ours = chain.is_ours or is_ours
            chain.status, chain.told, chain.is_told_by_run = status, filled_size, is_ours
            chain.has_ended = status in _ENDED
            if chain.has_ended:
                self._forget_if_settled(order_id, chain)

    def unsettled(self, open_orders: Iterable[str]) -> Unsettled:
        """What is left when all rows were seen, for `judge`."""
        ended = {order_id: self._status_when_done(order_id) for order_id in {*self._chains, *open_orders}}
        return Unsettled(self._chains, {order_id: status for order_id, status in ended.items() if status})

    def _known(self, order_id: str, status: str) -> str:
        """The original's may be in capitals."""
        status = status.lower()
        if status not in _KNOWN:
            self._say(f"order {order_id}: {status!r} is no status")
        return status

    def _forget_if_settled(self, order_id: str, chain: Chain) -> None:
        if chain.has_ended and _is_same(chain.filled, chain.told):
            self._done[chain.status].add(hash(order_id))
            del self._chains[order_id]

    def _status_when_done(self, order_id: str) -> str:
        number = hash(order_id)
        for status, ended in self._done.items():
            if number in ended:
                return status
        return ""


def judge(parts: Iterable[Unsettled], open_orders: Iterable[str], say: Say) -> int:
    """Judge what no process could settle, and the table of open orders. Returns how many orders had fills after their last event."""
    chains: dict[str, Chain] = {}
    ended: dict[str, str] = {}
    for part in parts:
        ended |= part.ended_before
        for order_id, chain in part.chains.items():
            known = chains.setdefault(order_id, chain)
            if known is not chain:
                chains[order_id] = _joined(known, chain)
    listed = set(open_orders)
    late_fills = 0
    for order_id, chain in chains.items():
        is_late = not chain.status or order_id in ended
        if is_late or (chain.filled > chain.told and not _is_same(chain.filled, chain.told)):
            late_fills += 1
        elif chain.is_told_by_run and not _is_same(chain.filled, chain.told):
            say(f"order {order_id}: its newest event says {chain.told!r} filled, and its fills add up to {chain.filled!r}")
        if chain.is_ours and chain.status in _OPEN and order_id not in listed:
            say(f"order {order_id}: it is {chain.status} and missing in the table open_orders")
    for order_id in sorted(listed):
        status = chains[order_id].status if order_id in chains else ""
        status = status or ended.get(order_id, "")
        if status not in _OPEN:
            say(f"order {order_id}: the table open_orders has it, and {f'it is {status}' if status else 'it has no event'}")
    return late_fills


def _joined(one: Chain, other: Chain) -> Chain:
    """Fills of another market than the order's."""
    told, rest = (one, other) if one.status else (other, one)
    told.filled += rest.filled
    told.is_ours = told.is_ours or rest.is_ours
    return told


def _is_same(filled: float, told: float) -> bool:
    return filled == told or math.isclose(filled, told, rel_tol=_SAME)
