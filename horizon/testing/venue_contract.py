"""The claims of the venue contract, each as one function, and what they are made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import reduce
from typing import TypeVar

from horizon.errors import VenueError
from horizon.ids import new_run_id, order_id
from horizon.positions import exact
from horizon.records import OPEN_STATUSES, Fill, Order, OrderSide, OrderStatus, Side
from horizon.testing.report import Broken, NotChecked, Report, judge, look_like_unix_seconds, require
from horizon.venues.base import OrderUpdate, Venue, VenueEvent

_T = TypeVar("_T")
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)

_MEMBERS = ("name", "connect", "close", "submit", "cancel", "amend", "poll", "fills_since", "order_by_client_id")

FillHook = Callable[[Venue, Order, float], object]
VenueHook = Callable[[Venue], object]


def check_venue(
    make_venue: Callable[[], Venue],
    *,
    market_id: str,
    fill: FillHook,
    disconnect: VenueHook | None = None,
    reconnect: VenueHook | None = None,
    redeliver: VenueHook | None = None,
    other_market_id: str | None = None,
    price: float = 100.0,
    size: float = 2.0,
    side: Side = Side.Long,
    claims: Iterable[str] | None = None,
    timeout_s: float = 5.0,
    wait: Callable[[], object] = lambda: time.sleep(0.01),
) -> Report:
    """Run every claim of the venue contract, each against a fresh adapter for the same account.

    make_venue: makes an adapter that is not connected yet. It is called several times: each is a new session.
    fill(venue, order, size): makes the exchange execute `size` units of this order now; asked for a half of the order, twice.
    disconnect(venue), reconnect(venue): cut the line to the exchange, and mend it; `fill` must work while it is cut.
    redeliver(venue): makes the exchange send old executions again.
    other_market_id: a second market; exchanges that number their executions per market show there.
    price, size: of the limit orders to buy that are sent. wait(): how a little time passes between two polls.
    Returns the report. Raises: ContractBroken.
    """
    bench = _VenueBench(
        make_venue, market_id, fill, disconnect, reconnect, redeliver, other_market_id, price, size, side, timeout_s, wait
    )
    return judge(VENUE_CLAIMS, claims, bench)


@dataclass
class _VenueBench:
    """One adapter under test: its hooks, and the steps that claims are made of."""

    make: Callable[[], Venue]
    market_id: str
    fill_hook: FillHook
    disconnect_hook: VenueHook | None
    reconnect_hook: VenueHook | None
    redeliver_hook: VenueHook | None
    other_market_id: str | None
    price: float
    size: float
    side: Side
    timeout_s: float
    wait: Callable[[], object]
    # Filled anew for each claim:
    sessions: list[Venue] = field(default_factory=list)
    events: list[VenueEvent] = field(default_factory=list)
    subject: str = "venue"

    @property
    def venue(self) -> Venue:
        return self.sessions[0]

    def begin(self) -> None:
        self.sessions, self.events = [], []
        self.subject = type(self.new_session()).__name__

    def end(self) -> None:
        for venue in self.sessions:
            venue.close()

    def new_session(self) -> Venue:
        """One more adapter on the same account, as after a restart of the process."""
        venue = self.make()
        venue.connect()
        self.sessions.append(venue)
        return venue

    def new_order(self, market_id: str | None = None) -> Order:
        return Order(
            id=order_id(new_run_id(), 1),
            market_id=market_id or self.market_id,
            side=self.side,
            order_side=OrderSide.Buy,
            price=self.price,
            size=self.size,
            remaining_size=self.size,
            created_at=time.time(),
            exchange=self.venue.name,
            post_only=False,
        )

    def submit(self, market_id: str | None = None) -> Order:
        order = self.new_order(market_id)
        answer = self.venue.submit(order)
        require(isinstance(answer, OrderUpdate), f"submit returned {answer!r} instead of an OrderUpdate")
        require(answer.order_id == order.id, f"submit of {order.id} answered for {answer.order_id!r}")
        require(answer.status is OrderStatus.Accepted, f"submit was answered by {answer.status}: {answer.reason}")
        return order

    def fill_half(self, order: Order) -> None:
        self.fill_hook(self.venue, order, self.half)

    def fill_all(self, order: Order) -> None:
        self.fill_half(order)
        self.fill_half(order)

    @property
    def half(self) -> float:
        return self.size / 2

    def disconnect(self) -> None:
        if self.disconnect_hook is None or self.reconnect_hook is None:
            raise NotChecked("give the hooks disconnect and reconnect")
        self.disconnect_hook(self.venue)

    def reconnect(self) -> None:
        if self.reconnect_hook is not None:
            self.reconnect_hook(self.venue)

    def poll(self) -> None:
        self.events.extend(self.venue.poll())

    def polled_fills(self, order: Order) -> list[Fill]:
        return _fills_of(self.events, order)

    def await_filled(self, order: Order, size: float) -> list[Fill]:
        """Poll until the distinct fills of an order reach a size, and once more; they must reach it exactly."""
        deadline = time.monotonic() + self.timeout_s
        self.poll()
        while _total(_distinct(self.polled_fills(order))) < exact(size):
            if time.monotonic() > deadline:
                total = _total(_distinct(self.polled_fills(order)))
                raise Broken(
                    f"the exchange executed {size} of an order, but within {self.timeout_s} s the fills that poll gave, counted "
                    f"once by id, sum up to {total}: {_list(self.polled_fills(order))}"
                )
            self.wait()
            self.poll()
        self.poll()
        fills = self.polled_fills(order)
        total = _total(_distinct(fills))
        require(
            total == exact(size),
            f"the exchange executed {size} of an order, but its fills, counted once by id, sum up to {total}: {_list(fills)}",
        )
        return fills


def _keeps_the_protocol(bench: _VenueBench) -> None:
    missing = [name for name in _MEMBERS if not hasattr(bench.venue, name)]
    require(not missing, f"it lacks {', '.join(missing)}")
    require(isinstance(bench.venue.name, str) and bool(bench.venue.name), f"its name is {bench.venue.name!r}")


def _answers_with_our_order_id(bench: _VenueBench) -> None:
    order = bench.submit()
    answer = bench.venue.cancel(order.id)
    require(answer.order_id == order.id, f"cancel of {order.id} answered for {answer.order_id!r}")
    require(answer.status is OrderStatus.Canceled, f"cancel of an open order was answered by {answer.status}: {answer.reason}")


def _fills_say_what_they_are_of(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.fill_all(order)
    for fill in bench.await_filled(order, bench.size):
        for name, expected in (
            ("market_id", order.market_id),
            ("side", order.side),
            ("order_side", order.order_side),
            ("exchange", bench.venue.name),
        ):
            actual = getattr(fill, name)
            require(actual == expected, f"fill {fill.fill_id} of an order has {name} {actual!r} instead of {expected!r}")
        require(fill.price <= order.price, f"a buy with the limit {order.price} was filled at {fill.price}")
        require(bool(fill.fill_id), "a fill has an empty id")
        require(
            look_like_unix_seconds(fill.timestamp),
            f"fill {fill.fill_id} has the timestamp {fill.timestamp}, which is no Unix time in seconds",
        )


def _partial_fills_are_separate_and_sum_up(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.fill_half(order)
    bench.await_filled(order, bench.half)
    bench.fill_half(order)
    fills = bench.await_filled(order, bench.size)
    require(len(_distinct(fills)) >= 2, f"two executions of one order came as {len(_distinct(fills))} fill: {_list(fills)}")


def _fill_ids_are_unique(bench: _VenueBench) -> None:
    orders = [bench.submit(), bench.submit()]
    for order in orders:
        bench.fill_all(order)
    for order in orders:
        bench.await_filled(order, bench.size)
    _require_unique_ids(bench, orders)


def _fill_ids_are_unique_over_markets(bench: _VenueBench) -> None:
    if bench.other_market_id is None:
        raise NotChecked("give other_market_id")
    orders = [bench.submit(), bench.submit(bench.other_market_id)]
    for order in orders:
        bench.fill_all(order)
    for order in orders:
        bench.await_filled(order, bench.size)
    _require_unique_ids(bench, orders)


def _fill_ids_are_stable(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.fill_all(order)
    known = _distinct(bench.await_filled(order, bench.size))
    again = [
        ("fills_since", bench.venue.fills_since(0.0)),
        ("fills_since, asked twice,", bench.venue.fills_since(0.0)),
        ("fills_since of a new session", bench.new_session().fills_since(0.0)),
    ]
    for source, fills in again:
        _require_known(known, _fills_of(fills, order), source)


def _redelivered_fills_keep_their_ids(bench: _VenueBench) -> None:
    if bench.redeliver_hook is None:
        raise NotChecked("give the hook redeliver")
    order = bench.submit()
    bench.fill_all(order)
    known = _distinct(bench.await_filled(order, bench.size))
    bench.redeliver_hook(bench.venue)
    bench.wait()
    bench.poll()
    _require_known(known, bench.polled_fills(order), "poll after a re-delivery")


def _fills_since_is_complete(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.fill_all(order)
    polled = _distinct(bench.await_filled(order, bench.size))
    first = min(fill.timestamp for fill in polled.values())
    for what, since in (("from the beginning", 0.0), ("at the time of the first fill", first)):
        missing = polled.keys() - _distinct(_fills_of(bench.venue.fills_since(since), order)).keys()
        require(not missing, f"fills_since {what} leaves out {sorted(missing)}, which poll had given")


def _a_fill_before_the_cancel_is_not_lost(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.fill_all(order)
    answer = bench.venue.cancel(order.id)
    require(
        answer.status is OrderStatus.Filled,
        f"an order was filled before its cancel arrived; cancel answered {answer.status} instead of how it ended",
    )
    bench.await_filled(order, bench.size)


def _a_part_filled_order_can_be_canceled(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.fill_half(order)
    for attempt in ("cancel of a part filled order", "a second cancel of it"):
        answer = bench.venue.cancel(order.id)
        require(answer.status is OrderStatus.Canceled, f"{attempt} was answered by {answer.status}: {answer.reason}")
    bench.await_filled(order, bench.half)


def _an_amend_keeps_the_order(bench: _VenueBench) -> None:
    order = bench.submit()
    price, size = bench.price / 2, bench.size * 2
    try:
        answer = bench.venue.amend(order.id, price, size)
    except VenueError as error:
        raise NotChecked(f"amend raised {error!r}") from error
    require(answer.order_id == order.id, f"amend of {order.id} answered for {answer.order_id!r}")
    require(answer.status.is_open, f"amend of an open order was answered by {answer.status}: {answer.reason}")
    changed = (answer.price, answer.size) == (price, size)
    refused = answer.price is None and bool(answer.reason)
    require(changed or refused, f"amend to {price} and {size} was answered by {answer}: neither these, nor no price and a reason")


def _orders_are_found_by_client_id(bench: _VenueBench) -> None:
    filled = bench.submit()
    bench.fill_all(filled)
    bench.await_filled(filled, bench.size)
    order, canceled = bench.submit(), bench.submit()
    bench.venue.cancel(canceled.id)
    for wanted, what, expected in (
        (order, "open", OPEN_STATUSES),
        (canceled, "canceled", {OrderStatus.Canceled}),
        (filled, "filled", {OrderStatus.Filled}),
    ):
        found = bench.venue.order_by_client_id(wanted.id)
        if found is None:
            raise Broken(f"order_by_client_id does not know an order that is {what}")
        require(found.status in expected, f"order_by_client_id calls an order {found.status} that is {what}")


def _an_order_never_sent_is_not_open(bench: _VenueBench) -> None:
    found = bench.venue.order_by_client_id(bench.new_order().id)
    require(found is None or not found.status.is_open, "order_by_client_id reports an order as open that was never sent")


def _requests_without_a_line_raise_venue_error(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.disconnect()
    try:
        _must_raise_venue_error("submit", bench.venue.submit, bench.new_order())
        _must_raise_venue_error("cancel", bench.venue.cancel, order.id)
        with suppress(VenueError):
            bench.poll()
    finally:
        bench.reconnect()


def _fills_missed_without_a_line_come_back(bench: _VenueBench) -> None:
    order = bench.submit()
    bench.fill_half(order)
    bench.await_filled(order, bench.half)
    bench.disconnect()
    try:
        bench.fill_half(order)
    finally:
        bench.reconnect()
    fills = _distinct(_fills_of(bench.venue.fills_since(0.0), order))
    require(
        _total(fills) == exact(bench.size),
        f"after a reconnect fills_since sums up to {_total(fills)} of {bench.size} executed: {_list(fills.values())}",
    )
    _require_known(fills, bench.polled_fills(order), "poll before the line was cut")


VENUE_CLAIMS: Mapping[str, Callable[[_VenueBench], None]] = {
    claim.__name__.lstrip("_"): claim
    for claim in (
        _keeps_the_protocol,
        _answers_with_our_order_id,
        _fills_say_what_they_are_of,
        _partial_fills_are_separate_and_sum_up,
        _fill_ids_are_unique,
        _fill_ids_are_unique_over_markets,
        _fill_ids_are_stable,
        _redelivered_fills_keep_their_ids,
        _fills_since_is_complete,
        _a_fill_before_the_cancel_is_not_lost,
        _a_part_filled_order_can_be_canceled,
        _an_amend_keeps_the_order,
        _orders_are_found_by_client_id,
        _an_order_never_sent_is_not_open,
        _requests_without_a_line_raise_venue_error,
        _fills_missed_without_a_line_come_back,
    )
}


def _must_raise_venue_error(name: str, request: Callable[[_T], OrderUpdate], argument: _T) -> None:
    try:
        answer = request(argument)
    except VenueError:
        return
    raise Broken(f"{name} without a line to the exchange answered {answer.status} instead of raising VenueError")


def _require_unique_ids(bench: _VenueBench, orders: list[Order]) -> None:
    owners: dict[str, str] = {}
    for order in orders:
        for fill_id in _distinct(bench.polled_fills(order)):
            require(fill_id not in owners, f"fills of two orders have the same id {fill_id!r}")
            owners[fill_id] = order.id


def _require_known(known: Mapping[str, Fill], fills: Iterable[Fill], source: str) -> None:
    """Executions that were reported before must come with the ids and contents that they had."""
    for fill in fills:
        require(fill.fill_id in known, f"{source} gave an execution that is known already a new id, {fill.fill_id!r}")
        before = known[fill.fill_id]
        for name in ("order_id", "market_id", "side", "order_side", "price", "size", "exchange"):
            require(
                getattr(fill, name) == getattr(before, name),
                f"{source} gave fill {fill.fill_id} another {name}: {getattr(fill, name)!r} instead of {getattr(before, name)!r}",
            )


def _fills_of(events: Iterable[VenueEvent], order: Order) -> list[Fill]:
    return [event for event in events if isinstance(event, Fill) and event.order_id == order.id]


def _distinct(fills: Iterable[Fill]) -> dict[str, Fill]:
    return {fill.fill_id: fill for fill in fills}


def _total(fills: Mapping[str, Fill]) -> Decimal:
    return reduce(_EXACT.add, (exact(fill.size) for fill in fills.values()), Decimal(0))


def _list(fills: Iterable[Fill]) -> str:
    return ", ".join(f"{fill.fill_id!r} of {fill.size}" for fill in fills) or "none"
