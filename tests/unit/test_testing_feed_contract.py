from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from horizon.feeds.base import FeedData
from horizon.testing import FEED_CLAIMS, ContractBroken, FakeClock, Report, ToyExchange, check_feed


class Live:
    """A paced feed of the toy exchange's quotes."""

    paced = True

    def __init__(self, exchange: ToyExchange) -> None:
        self._exchange = exchange
        self._data = FeedData()

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def advance(self) -> bool:
        with suppress(ConnectionError):  # the old data stays, with its old time
            self._take(self._exchange.quote("BTC-USD"))
        return True

    def _take(self, quote: dict[str, str]) -> None:
        if quote:
            bid, ask = float(quote["bid"]), float(quote["ask"])
            self._data = FeedData((bid + ask) / 2, int(quote["time_ms"]) / 1000, bid, ask)

    def next_time(self) -> float | None:
        return None

    def snapshot(self) -> FeedData:
        return self._data


class Recording:
    """A feed that is not paced, of five quotes."""

    paced = False

    def __init__(self) -> None:
        self._left = [FeedData(price=100.0 + n, timestamp=1_700_000_000.0 + n, bid=99.0 + n, ask=101.0 + n) for n in range(5)]
        self._data = FeedData()

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def advance(self) -> bool:
        if not self._left:
            return False
        self._data = self._left.pop(0)
        return True

    def next_time(self) -> float | None:
        return self._left[0].timestamp if self._left else None

    def snapshot(self) -> FeedData:
        return self._data


def check_live(feed: Callable[[ToyExchange], Any], claims: list[str] | None = None, hooks: bool = True) -> Report:
    """Check a feed of the toy exchange whose market moves while time passes."""
    clock = FakeClock()
    exchange = ToyExchange(clock)
    prices = iter(range(100, 100_000))

    def pass_time() -> None:
        clock.advance(1)
        price = next(prices)
        exchange.move("BTC-USD", price - 0.5, price + 0.5)

    line: dict[str, Any] = {"disconnect": lambda feed: exchange.cut(), "reconnect": lambda feed: exchange.restore()}
    return check_feed(lambda: feed(exchange), claims=claims, timeout_s=0.2, updates=20, wait=pass_time, **(line if hooks else {}))


def test_a_live_feed_keeps_the_contract() -> None:
    report = check_live(Live)
    assert report.not_checked == ("next_time_comes_true", "ends_for_good", "gives_the_same_again")


def test_a_recording_keeps_the_contract_of_a_feed_that_is_not_paced() -> None:
    report = check_feed(Recording)
    assert report.not_checked == ("goes_stale_without_a_line",)


# Feeds that break it


class LacksSnapshot(Recording):
    snapshot = property()  # type: ignore[assignment]


class StartsWithAPrice(Recording):
    def __init__(self) -> None:
        super().__init__()
        self._data = replace(self._left[0], age_s=0.0)


class BringsNothing(Recording):
    def advance(self) -> bool:
        return False


class BringsEmptyUpdates(Recording):
    def snapshot(self) -> FeedData:
        return FeedData(timestamp=super().snapshot().timestamp)


class CountsInMilliseconds(Recording):
    def snapshot(self) -> FeedData:
        data = super().snapshot()
        return replace(data, timestamp=data.timestamp * 1000)


class HasNoPrice(Recording):
    def snapshot(self) -> FeedData:
        return replace(super().snapshot(), price=float("nan"))


class CrossesItsQuotes(Recording):
    def snapshot(self) -> FeedData:
        data = super().snapshot()
        return replace(data, bid=data.ask, ask=data.bid)


class RunsBackwards(Recording):
    def __init__(self) -> None:
        super().__init__()
        self._left.reverse()


class AnnouncesWrongTimes(Recording):
    def next_time(self) -> float | None:
        time = super().next_time()
        return time and time + 1


class StartsOver(Recording):
    def advance(self) -> bool:
        if super().advance():
            return True
        self._left = Recording()._left
        return False


class EndsWithItsLastEvent(Recording):
    def advance(self) -> bool:
        super().advance()
        return bool(self._left)


class IsRandom(Recording):
    def snapshot(self) -> FeedData:
        return replace(super().snapshot(), price=random.random())


class CannotStopTwice(Recording):
    stopped = False

    def stop(self) -> None:
        if self.stopped:
            raise RuntimeError("not running")
        self.stopped = True


BROKEN = [
    (LacksSnapshot, "keeps_the_protocol", "it lacks snapshot"),
    (StartsWithAPrice, "is_stale_before_it_starts", "before the start its snapshot is FeedData"),
    (BringsNothing, "brings_data", "nothing came"),
    (BringsEmptyUpdates, "brings_data", "neither price nor bid nor ask"),
    (CountsInMilliseconds, "numbers_make_sense", "1700000000000.0 is no Unix time in seconds"),
    (HasNoPrice, "numbers_make_sense", "price is nan"),
    (CrossesItsQuotes, "numbers_make_sense", "the bid 101.0 is above the ask 99.0"),
    (RunsBackwards, "time_never_runs_backwards", "an update of 1700000003.0 came after one of 1700000004.0"),
    (AnnouncesWrongTimes, "next_time_comes_true", "next_time said 1700000001.0, and the event that came is of 1700000000.0"),
    (StartsOver, "ends_for_good", "advance returned True after it had returned False"),
    (EndsWithItsLastEvent, "ends_for_good", "the call that brought its last event returned False"),
    (IsRandom, "gives_the_same_again", "update 1 of a second feed"),
    (CannotStopTwice, "stops_quietly", r"RuntimeError\('not running'\) was raised in stop"),
]


@pytest.mark.parametrize(("feed", "claim", "sentence"), BROKEN, ids=[f"{case[0].__name__}-{case[1]}" for case in BROKEN])
def test_a_broken_feed_is_caught_by_the_claim_that_it_breaks(feed: type, claim: str, sentence: str) -> None:
    with pytest.raises(ContractBroken, match=sentence) as caught:
        check_feed(feed, claims=[claim], timeout_s=0.2)
    assert caught.value.report.broken == (claim,)


class PretendsToBeFresh(Live):
    def snapshot(self) -> FeedData:
        self._ticks = getattr(self, "_ticks", 0) + 1
        data = super().snapshot()
        return replace(data, timestamp=data.timestamp + self._ticks if data.timestamp else 0.0)


class EndsWithTheLine(Live):
    def advance(self) -> bool:
        super().advance()
        try:
            self._exchange.quote("BTC-USD")
        except ConnectionError:
            return False
        return True


class LetsNetworkErrorsThrough(Live):
    def advance(self) -> bool:
        self._take(self._exchange.quote("BTC-USD"))
        return True


@pytest.mark.parametrize(
    ("feed", "sentence"),
    [
        (PretendsToBeFresh, "so nobody sees that it is stale"),
        (EndsWithTheLine, "advance returned False: more will come when the line is back"),
        (LetsNetworkErrorsThrough, "ConnectionError"),
    ],
)
def test_a_feed_that_hides_a_lost_line_is_caught(feed: Callable[[ToyExchange], Any], sentence: str) -> None:
    with pytest.raises(ContractBroken, match=sentence):
        check_live(feed, claims=["goes_stale_without_a_line"])


def test_every_feed_claim_is_broken_by_some_feed() -> None:
    assert {claim for _, claim, _ in BROKEN} | {"goes_stale_without_a_line"} == set(FEED_CLAIMS)


def test_a_feed_that_never_ends_is_not_judged_by_its_end() -> None:
    class Endless(Recording):
        def advance(self) -> bool:
            super().advance()
            return True

    report = check_feed(Endless, claims=["ends_for_good"], max_events=1000)
    assert report.not_checked == ("ends_for_good",)


def test_a_fake_clock_moves_by_hand_and_its_wall_may_jump() -> None:
    clock = FakeClock(now=1_000.0, monotonic=5.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1_002.5, 7.5)
    clock.set_wall(0.0)
    assert (clock.now(), clock.monotonic()) == (0.0, 7.5)
    with pytest.raises(ValueError, match="time does not run backwards"):
        clock.advance(-1)
