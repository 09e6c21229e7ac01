"""Whether the events of every order make sense: none that changes a terminal status, and no more filled than its fills say.

Fills and order events come from two tables whose rows have no common order, so an order is judged when both are at their end. Of one that
has ended and whose figures agree only a hash of its id is kept: ten million orders fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from horizon.records import OPEN_STATUSES, OrderStatus
from horizon.store.accounts import Say

_KNOWN = frozenset(status.value for status in OrderStatus)
_OPEN = frozenset(status.value for status in OPEN_STATUSES)
_SAME = 1e-9  # relative: sums of floats differ in their last digits


class _Chain:
    __slots__ = ("filled", "is_ours", "is_told_by_run", "status", "told")

    def __init__(self) -> None:
        self.status = ""  # of the newest event; "" before the first
        self.told = 0.0  # filled_size of the newest event
        self.filled = 0.0  # the sum of its fills
        self.is_told_by_run = False  # of the newest event: what a person resolved is his word
        self.is_ours = False  # `new` came from one of our runs, so `open_orders` has it while it is open


class OrderChains:
    def __init__(self, say: Say) -> None:
        self._say = say
        self._chains: dict[str, _Chain] = {}
        self._done = {status.value: set[int]() for status in OrderStatus if not status.is_open}
        self.late_fills = 0  # orders whose fills came after their last event, or have no event at all

    def fill(self, order_id: str, size: float) -> None:
        chain = self._chains.get(order_id)
        if chain is None:
            chain = self._chains[order_id] = _Chain()
        chain.filled += size
        self._forget_if_done(order_id, chain)

    def event(self, order_id: str, status: str, filled_size: float, is_ours: bool) -> None:
        """`is_ours`: a run of ours recorded it, not the original and not a person who resolved an orphan."""
        status = status.lower()
        chain = self._chains.get(order_id)
        if chain is None:
            chain = self._chains[order_id] = _Chain()
        before = chain.status or self._status_when_done(order_id)
        if status not in _KNOWN:
            self._say(f"order {order_id}: {status!r} is no status")
        elif before and before not in _OPEN and status != before:
            self._say(f"order {order_id}: an event says {status} after it had ended as {before}")
            return
        elif status == "new" and before not in ("", "new"):
            self._say(f"order {order_id}: it begins again as new after it was {before}")
        chain.status, chain.told, chain.is_told_by_run = status, filled_size, is_ours
        chain.is_ours = chain.is_ours or (is_ours and status == "new")
        self._forget_if_done(order_id, chain)

    def close(self, open_orders: Iterable[str]) -> None:
        """Judge what has not been settled, and the table of open orders."""
        listed = set(open_orders)
        for order_id, chain in self._chains.items():
            is_late = not chain.status or bool(self._status_when_done(order_id))
            if is_late or (chain.filled > chain.told and not _is_same(chain.filled, chain.told)):
                self.late_fills += 1
            elif chain.is_told_by_run and not _is_same(chain.filled, chain.told):
                self._say(
                    f"order {order_id}: its newest event says {chain.told!r} filled, and its fills add up to {chain.filled!r}"
                )
            if chain.is_ours and chain.status in _OPEN and order_id not in listed:
                self._say(f"order {order_id}: it is {chain.status} and missing in the table open_orders")
        for order_id in sorted(listed):
            known = self._chains.get(order_id)
            status = known.status if known is not None and known.status else self._status_when_done(order_id)
            if status not in _OPEN:
                self._say(
                    f"order {order_id}: the table open_orders has it, and {f'it is {status}' if status else 'it has no event'}"
                )

    def _forget_if_done(self, order_id: str, chain: _Chain) -> None:
        if chain.status and chain.status not in _OPEN and chain.status in self._done and _is_same(chain.filled, chain.told):
            self._done[chain.status].add(hash(order_id))
            del self._chains[order_id]

    def _status_when_done(self, order_id: str) -> str:
        number = hash(order_id)
        return next((status for status, ended in self._done.items() if number in ended), "")


def _is_same(filled: float, told: float) -> bool:
    return filled == told or math.isclose(filled, told, rel_tol=_SAME)
