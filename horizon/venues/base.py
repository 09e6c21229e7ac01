"""The contract between the engine and a venue. An author's adapter keeps this protocol and runs `horizon.testing` against it.

A venue's job is to pass on what the exchange said, once or several times, without interpreting it:

- **Ids.** Every fill carries an id that is unique over venues, accounts, markets and time. Exchanges often number trades per
  symbol only, so build it from (venue, account, market, trade id). The same execution always gets the same id.
- **Texts.** Price and size come from the exchange's text (`float("0.1")`), never from arithmetic such as notional / size.
- **Partial fills** are separate fills; cumulative reports are the adapter's to turn into differences, exactly once.
- **Re-delivery** is welcome: the engine compares every fill by id. Leaving one out is what loses money.
- **Cancel races.** A fill may come after `cancel` returned; report it. A cancel of a finished order reports how it ended.
- **Disconnects.** Raise VenueError when the fate of a request is unknown; never guess. After a reconnect, `fills_since` tells all.
- **Whose fills.** A fill of an order that the strategy did not send is counted as unattributed and not applied, unless the adapter
  sets `vouches = True`: every fill of its account is this strategy's (an account of its own, or a recording of one).
- **Recordings.** An adapter that plays a recording has `exhausted`, True once it has delivered everything: then the run ends.

Methods are called from one thread at a time and must not block longer than the adapter's own timeout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard, runtime_checkable

import msgspec

from horizon.records import Fill, Order, OrderStatus


class OrderUpdate(msgspec.Struct, frozen=True):
    """What a venue says of one order. Filled sizes are not in it: fills are counted by fills alone."""

    order_id: str  # ours: the client order id
    status: OrderStatus
    reason: str | None = None
    price: float | None = None  # set by a successful amend
    size: float | None = None


VenueEvent = Fill | OrderUpdate


@runtime_checkable
class BareVenue(Protocol):
    """The least that an adapter can do. It cannot be asked what happened while nobody listened, so its runs start under hold.

    `name` is what is stored in the `exchange` column.
    """

    name: str

    def connect(self) -> None:
        """Called once, after recovery and before the first cycle. Raises: VenueError."""
        ...

    def close(self) -> None: ...

    def submit(self, order: Order) -> OrderUpdate:
        """Send an order whose `id` is its client order id. Fills come by `poll`, never from here.

        Returns Accepted or Rejected with the venue's reason. Raises: VenueError when the order's fate is unknown.
        """
        ...

    def cancel(self, order_id: str) -> OrderUpdate:
        """Cancel an order: Canceled, or how it ended if it was done already. Raises: VenueError when that is unknown."""
        ...

    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:
        """Change price and total size of an open order, under the same id: an update that carries both.

        An update without a price says that nothing was changed, why, and what the order's status is. Raises: VenueError.
        """
        ...

    def poll(self) -> Sequence[VenueEvent]:
        """Everything that happened since the last call, in the venue's order; also other orders' endings. Never blocks."""
        ...


@runtime_checkable
class Venue(BareVenue, Protocol):
    """Every venue that a strategy can be left alone with, simulated or real. Both methods are called before the first cycle."""

    def fills_since(self, timestamp: float) -> Sequence[Fill]:
        """Every fill of ours executed at or after this Unix time, oldest first; older ones may come along."""
        ...

    def order_by_client_id(self, order_id: str) -> OrderUpdate | None:
        """What became of an order, or None when the venue does not know it (which is no proof that it never arrived)."""
        ...


def can_be_asked(venue: BareVenue) -> TypeGuard[Venue]:
    """Whether an adapter tells what happened while nobody listened; what it only inherits from the protocol tells nothing."""
    return all(
        getattr(method := getattr(venue, name, None), "__func__", method) not in (None, getattr(Venue, name))
        for name in ("fills_since", "order_by_client_id")
    )


@runtime_checkable
class SimulatedVenue(Venue, Protocol):
    """A venue that lives in this process and is moved by prices that it is given."""

    def tick(self, market_id: str, mid: float) -> int:
        """Match the open orders of a market against a price; the fills wait for `poll`. Returns their number."""
        ...
