from __future__ import annotations

import itertools
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from horizon.cli.templates.venue import MyVenue
from horizon.errors import VenueError
from horizon.records import Fill, Order, OrderStatus
from horizon.testing import VENUE_CLAIMS, ContractBroken, FakeClock, Report, ToyExchange, check_venue
from horizon.venues.base import OrderUpdate, Venue
from horizon.venues.paper import Paper


def check_toy(adapter: Callable[[ToyExchange], Venue], claims: Sequence[str] | None = None, **hooks: Any) -> Report:
    """Check an adapter of the toy exchange, with every hook."""
    exchange = ToyExchange()
    return check_venue(
        lambda: adapter(exchange),
        market_id="BTC-USD",
        other_market_id="ETH-USD",
        fill=lambda venue, order, size: exchange.execute(order.id, size),
        disconnect=lambda venue: exchange.cut(),
        reconnect=lambda venue: exchange.restore(),
        redeliver=lambda venue: setattr(venue, "_seen", 0),
        claims=claims,
        timeout_s=0.05,
        **hooks,
    )


def check_paper(**hooks: Any) -> Report:
    def tick(venue: Venue, order: Order, size: float) -> None:
        assert isinstance(venue, Paper)
        venue.tick(order.market_id, order.price)

    return check_venue(lambda: Paper(partial_fill_ratio=0.5, clock=FakeClock()), market_id="BTC-USD", fill=tick, **hooks)


# Adapters that keep the contract


@pytest.mark.parametrize("claim", VENUE_CLAIMS)
def test_the_template_keeps_each_claim(claim: str) -> None:
    assert check_toy(MyVenue, claims=[claim]).not_checked == ()


def test_the_paper_venue_keeps_every_claim_that_a_venue_without_a_line_can() -> None:
    report = check_paper(other_market_id="ETH-USD")
    assert report.ok
    assert report.not_checked == (
        "redelivered_fills_keep_their_ids",
        "requests_without_a_line_raise_venue_error",
        "fills_missed_without_a_line_come_back",
    )


def test_a_report_says_what_was_kept_and_what_was_not_checked_and_why() -> None:
    text = str(check_paper())
    assert text.startswith("Paper keeps the contract:")
    assert "  kept         fill ids are stable" in text
    assert "  not checked  fill ids are unique over markets: give other_market_id" in text


# Adapters that break it, each in a way that adapters are known for


class AnswersForAnother(MyVenue):
    def submit(self, order: Order) -> OrderUpdate:
        return replace(super().submit(order), order_id="exchange-17")


class MakesIdsUp(MyVenue):
    def _fill(self, execution: dict[str, str]) -> Fill:
        return replace(super()._fill(execution), fill_id=str(uuid.uuid4()))


class NumbersItsFillsItself(MyVenue):
    def __init__(self, exchange: ToyExchange) -> None:
        super().__init__(exchange)
        self._numbers = itertools.count()
        self._known: dict[str, str] = {}

    def _fill(self, execution: dict[str, str]) -> Fill:
        fill = super()._fill(execution)
        return replace(fill, fill_id=self._known.setdefault(fill.fill_id, f"{next(self._numbers)}-{id(self)}"))


class UsesTheOrderIdAsFillId(MyVenue):
    def _fill(self, execution: dict[str, str]) -> Fill:
        return replace(super()._fill(execution), fill_id=execution["client_id"])


class UsesTheTradeIdAlone(MyVenue):
    def _fill(self, execution: dict[str, str]) -> Fill:
        return replace(super()._fill(execution), fill_id=execution["trade_id"])


class ReportsWhatIsFilledSoFar(MyVenue):
    def __init__(self, exchange: ToyExchange) -> None:
        super().__init__(exchange)
        self._filled: dict[str, float] = {}

    def poll(self) -> list[Fill]:
        fills = []
        for fill in super().poll():
            self._filled[fill.order_id] = self._filled.get(fill.order_id, 0.0) + fill.size
            fills.append(replace(fill, size=self._filled[fill.order_id]))
        return fills


class ReportsOneFillPerOrder(MyVenue):
    def __init__(self, exchange: ToyExchange) -> None:
        super().__init__(exchange)
        self._exchange = exchange

    def poll(self) -> list[Fill]:
        whole = [fill for fill in super().poll() if self._exchange.order(fill.order_id)["state"] == "filled"]
        return [replace(fill, size=2.0) for fill in whole]


class CalculatesSizes(MyVenue):
    def _fill(self, execution: dict[str, str]) -> Fill:
        fill = super()._fill(execution)
        return replace(fill, size=fill.price * 3 * fill.size / 3 / fill.price * (1 + 1e-15))


class ForgetsTheOldFills(MyVenue):
    def fills_since(self, timestamp: float) -> list[Fill]:
        return super().fills_since(timestamp)[1:]


class LeavesTheBoundaryOut(MyVenue):
    def fills_since(self, timestamp: float) -> list[Fill]:
        return [fill for fill in super().fills_since(timestamp) if fill.timestamp > timestamp]


class CountsInMilliseconds(MyVenue):
    def _fill(self, execution: dict[str, str]) -> Fill:
        return replace(super()._fill(execution), timestamp=float(execution["time_ms"]))


class CallsItselfOtherwise(MyVenue):
    def _fill(self, execution: dict[str, str]) -> Fill:
        return replace(super()._fill(execution), exchange="binance")


class AlwaysSaysCanceled(MyVenue):
    def cancel(self, order_id: str) -> OrderUpdate:
        return replace(super().cancel(order_id), status=OrderStatus.Canceled)


class RaisesOnASecondCancel(MyVenue):
    def __init__(self, exchange: ToyExchange) -> None:
        super().__init__(exchange)
        self._canceled: set[str] = set()

    def cancel(self, order_id: str) -> OrderUpdate:
        if order_id in self._canceled:
            raise VenueError("unknown order")
        self._canceled.add(order_id)
        return super().cancel(order_id)


class DropsFillsAfterACancel(MyVenue):
    def cancel(self, order_id: str) -> OrderUpdate:
        self.poll()
        return super().cancel(order_id)


class GuessesRejected(MyVenue):
    def submit(self, order: Order) -> OrderUpdate:
        try:
            return super().submit(order)
        except VenueError:
            return OrderUpdate(order.id, OrderStatus.Rejected, "timeout")


class GuessesCanceled(MyVenue):
    def cancel(self, order_id: str) -> OrderUpdate:
        try:
            return super().cancel(order_id)
        except VenueError:
            return OrderUpdate(order_id, OrderStatus.Canceled)


class LetsNetworkErrorsThrough(MyVenue):
    def _ask(self, request: Callable[..., Any], *arguments: Any) -> Any:
        return request(*arguments)


class LosesWhatItMissed(MyVenue):
    def __init__(self, exchange: ToyExchange) -> None:
        super().__init__(exchange)
        self._polled: list[Fill] = []

    def poll(self) -> list[Fill]:
        fills = super().poll()
        self._polled += fills
        return fills

    def fills_since(self, timestamp: float) -> list[Fill]:
        return self._polled


class ForgetsFinishedOrders(MyVenue):
    def order_by_client_id(self, order_id: str) -> OrderUpdate | None:
        found = super().order_by_client_id(order_id)
        return found if found and found.status.is_open else None


class ThinksEveryOrderIsOpen(MyVenue):
    def order_by_client_id(self, order_id: str) -> OrderUpdate | None:
        return OrderUpdate(order_id, OrderStatus.Accepted)


class IgnoresTheNewSize(MyVenue):
    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:
        return replace(super().amend(order_id, price, size), size=size / 2)


class HasNoWayToAskForFills(MyVenue):
    fills_since = property()


BROKEN: list[tuple[type, str, str]] = [
    (AnswersForAnother, "answers_with_our_order_id", "answered for 'exchange-17'"),
    (MakesIdsUp, "fill_ids_are_stable", "fills_since gave an execution that is known already a new id"),
    (MakesIdsUp, "redelivered_fills_keep_their_ids", "poll after a re-delivery gave an execution that is known already"),
    (NumbersItsFillsItself, "fill_ids_are_stable", "fills_since of a new session gave an execution that is known already"),
    (UsesTheOrderIdAsFillId, "fill_ids_are_unique", "counted once by id, sum up to 1.0"),
    (UsesTheTradeIdAlone, "fill_ids_are_unique_over_markets", "fills of two orders have the same id '1'"),
    (
        ReportsWhatIsFilledSoFar,
        "partial_fills_are_separate_and_sum_up",
        "executed 2.0 of an order, but its fills.* sum up to 3.0",
    ),
    (ReportsOneFillPerOrder, "partial_fills_are_separate_and_sum_up", "within 0.05 s the fills .* sum up to 0"),
    (CalculatesSizes, "partial_fills_are_separate_and_sum_up", "sum up to 1.000"),
    (ForgetsTheOldFills, "fills_since_is_complete", "from the beginning leaves out"),
    (LeavesTheBoundaryOut, "fills_since_is_complete", "at the time of the first fill leaves out"),
    (CountsInMilliseconds, "fills_say_what_they_are_of", "which is no Unix time in seconds"),
    (CallsItselfOtherwise, "fills_say_what_they_are_of", "has exchange 'binance' instead of 'mine'"),
    (AlwaysSaysCanceled, "a_fill_before_the_cancel_is_not_lost", "cancel answered CANCELED instead of how it ended"),
    (DropsFillsAfterACancel, "a_fill_before_the_cancel_is_not_lost", "poll gave, counted once by id, sum up to 0: none"),
    (RaisesOnASecondCancel, "a_part_filled_order_can_be_canceled", r"VenueError\('unknown order'\) was raised in cancel"),
    (GuessesRejected, "requests_without_a_line_raise_venue_error", "submit without a line to the exchange answered REJECTED"),
    (GuessesCanceled, "requests_without_a_line_raise_venue_error", "cancel without a line to the exchange answered CANCELED"),
    (LetsNetworkErrorsThrough, "requests_without_a_line_raise_venue_error", "ConnectionError.* was raised"),
    (LosesWhatItMissed, "fills_missed_without_a_line_come_back", "after a reconnect fills_since sums up to 1.0 of 2.0"),
    (ForgetsFinishedOrders, "orders_are_found_by_client_id", "does not know an order that is canceled"),
    (ThinksEveryOrderIsOpen, "orders_are_found_by_client_id", "calls an order ACCEPTED that is canceled"),
    (ThinksEveryOrderIsOpen, "an_order_never_sent_is_not_open", "reports an order as open that was never sent"),
    (IgnoresTheNewSize, "an_amend_keeps_the_order", "neither these, nor no price and a reason"),
    (HasNoWayToAskForFills, "keeps_the_protocol", "it lacks fills_since"),
]


@pytest.mark.parametrize(("adapter", "claim", "sentence"), BROKEN, ids=[f"{case[0].__name__}-{case[1]}" for case in BROKEN])
def test_a_broken_adapter_is_caught_by_the_claim_that_it_breaks(adapter: type, claim: str, sentence: str) -> None:
    with pytest.raises(ContractBroken, match=sentence) as caught:
        check_toy(adapter, claims=[claim])
    assert caught.value.report.broken == (claim,)


def test_every_claim_is_broken_by_some_adapter() -> None:
    assert {claim for _, claim, _ in BROKEN} == set(VENUE_CLAIMS)


def test_a_broken_contract_lists_all_claims() -> None:
    with pytest.raises(ContractBroken) as caught:
        check_toy(CountsInMilliseconds)
    text = str(caught.value)
    assert text.startswith(f"CountsInMilliseconds breaks 1 of {len(VENUE_CLAIMS)} claims of the contract:")
    assert "  BROKEN       fills say what they are of: fill mine-main-BTC-USD-" in text
    assert "  kept         fill ids are unique\n" in text


def test_an_adapter_that_cannot_connect_breaks_every_claim_and_says_why() -> None:
    class CannotConnect(MyVenue):
        def connect(self) -> None:
            raise VenueError("wrong key")

    with pytest.raises(ContractBroken) as caught:
        check_toy(CannotConnect)
    assert len(caught.value.report.broken) == len(VENUE_CLAIMS)
    assert "VenueError('wrong key') was raised in connect" in str(caught.value)


def test_an_unknown_claim_is_refused() -> None:
    with pytest.raises(ValueError, match="no such claim: fills_are_nice; there are keeps_the_protocol"):
        check_paper(claims=["fills_are_nice"])


def test_the_contracts_need_no_test_framework() -> None:
    code = "import sys, horizon.testing; sys.exit('pytest' in sys.modules or 'hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
