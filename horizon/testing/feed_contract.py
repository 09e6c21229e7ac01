"""The claims of the feed contract, each as one function, and what they are made of."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise

import msgspec

from horizon.feeds.base import Feed, FeedData
from horizon.testing.report import NotChecked, Report, judge, look_like_unix_seconds, require

FeedHook = Callable[[Feed], object]

_MEMBERS = ("paced", "start", "stop", "advance", "next_time", "snapshot")


def check_feed(
    make_feed: Callable[[], Feed],
    *,
    disconnect: FeedHook | None = None,
    reconnect: FeedHook | None = None,
    claims: Iterable[str] | None = None,
    updates: int = 100,
    max_events: int = 100_000,
    timeout_s: float = 5.0,
    wait: Callable[[], object] = lambda: time.sleep(0.01),
) -> Report:
    """Run every claim of the feed contract, each against a fresh feed.

    disconnect(feed), reconnect(feed): cut the line to the source, and mend it. updates: how many of them are looked at.
    max_events: after so many advances an unpaced feed counts as endless. wait(): how a little time passes between two advances of
    a paced one. Returns the report. Raises: ContractBroken.
    """
    bench = _FeedBench(make_feed, disconnect, reconnect, updates, max_events, timeout_s, wait)
    return judge(FEED_CLAIMS, claims, bench)


@dataclass
class _FeedBench:
    """One feed under test: its hooks, and the steps that claims are made of."""

    make: Callable[[], Feed]
    disconnect_hook: FeedHook | None
    reconnect_hook: FeedHook | None
    updates: int
    max_events: int
    timeout_s: float
    wait: Callable[[], object]
    # Filled anew for each claim:
    feeds: list[Feed] = field(default_factory=list)
    subject: str = "feed"

    @property
    def feed(self) -> Feed:
        return self.feeds[0]

    def begin(self) -> None:
        self.feeds = []
        self.subject = type(self.new_feed()).__name__

    def end(self) -> None:
        for feed in self.feeds:
            feed.stop()

    def new_feed(self) -> Feed:
        feed = self.make()
        self.feeds.append(feed)
        return feed

    def seen(self, feed: Feed) -> Iterator[FeedData]:
        """Start a feed and advance it; each snapshot that differs from the one before, until it ends or the time is over."""
        feed.start()
        deadline = time.monotonic() + self.timeout_s
        last = FeedData()
        for _ in range(self.max_events):
            more = feed.advance()
            now = _content(feed)
            if now != last:
                yield now
                last = now
            if not more or time.monotonic() > deadline:
                return
            if feed.paced:
                self.wait()

    def first_updates(self) -> list[FeedData]:
        return list(islice(self.seen(self.feed), self.updates))

    def need_unpaced(self) -> None:
        if self.feed.paced:
            raise NotChecked("only of a feed that is not paced")


def _keeps_the_protocol(bench: _FeedBench) -> None:
    missing = [name for name in _MEMBERS if not hasattr(bench.feed, name)]
    require(not missing, f"it lacks {', '.join(missing)}")
    require(isinstance(bench.feed.paced, bool), f"paced is {bench.feed.paced!r} instead of True or False")


def _is_stale_before_it_starts(bench: _FeedBench) -> None:
    data = bench.feed.snapshot()
    require(data.is_stale(), f"before the start its snapshot is {data}")


def _brings_data(bench: _FeedBench) -> None:
    data = list(islice(bench.seen(bench.feed), 1))
    require(bool(data), f"nothing came within {bench.timeout_s} s and {bench.max_events} events")
    require(bool(data[0].price or data[0].bid or data[0].ask), f"its first update has neither price nor bid nor ask: {data[0]}")


def _numbers_make_sense(bench: _FeedBench) -> None:
    for data in bench.first_updates():
        for name in ("price", "timestamp", "bid", "ask", "volume_24h", "last_trade_size"):
            require(math.isfinite(getattr(data, name)), f"{name} is {getattr(data, name)} in {data}")
        require(look_like_unix_seconds(data.timestamp), f"the timestamp {data.timestamp} is no Unix time in seconds")
        require(not (data.bid and data.ask) or data.bid <= data.ask, f"the bid {data.bid} is above the ask {data.ask}")


def _time_never_runs_backwards(bench: _FeedBench) -> None:
    for before, after in pairwise(bench.first_updates()):
        require(before.timestamp <= after.timestamp, f"an update of {after.timestamp} came after one of {before.timestamp}")


def _next_time_comes_true(bench: _FeedBench) -> None:
    bench.need_unpaced()
    bench.feed.start()
    checked = 0
    for _ in range(bench.updates):
        expected = bench.feed.next_time()
        more = bench.feed.advance()
        if expected is not None:
            actual = bench.feed.snapshot().timestamp
            require(actual == expected, f"next_time said {expected}, and the event that came is of {actual}")
            checked += 1
        if not more:
            break
    if not checked:
        raise NotChecked("this feed does not know the time of its next event")


def _ends_for_good(bench: _FeedBench) -> None:
    bench.need_unpaced()
    bench.feed.start()
    last = _content(bench.feed)
    for _ in range(bench.max_events):
        if not bench.feed.advance():
            break
        last = _content(bench.feed)
    else:
        raise NotChecked(f"it has not ended after {bench.max_events} events")
    require(_content(bench.feed) == last, "the call that brought its last event returned False, so nobody would look at it")
    require(not bench.feed.advance(), "advance returned True after it had returned False")
    require(_content(bench.feed) == last, "its snapshot changed after the end")
    require(bench.feed.next_time() is None, "next_time names an event after the end")


def _gives_the_same_again(bench: _FeedBench) -> None:
    bench.need_unpaced()
    once = bench.first_updates()
    again = list(islice(bench.seen(bench.new_feed()), bench.updates))
    require(len(once) == len(again), f"a second feed gave {len(again)} updates where the first gave {len(once)}")
    for number, (first, second) in enumerate(zip(once, again, strict=True), start=1):
        require(first == second, f"update {number} of a second feed is {second} where the first gave {first}")


def _stops_quietly(bench: _FeedBench) -> None:
    bench.first_updates()
    bench.feed.stop()
    bench.feed.stop()
    bench.feed.snapshot()


def _goes_stale_without_a_line(bench: _FeedBench) -> None:
    if bench.disconnect_hook is None or bench.reconnect_hook is None:
        raise NotChecked("give the hooks disconnect and reconnect")
    require(bool(list(islice(bench.seen(bench.feed), 1))), f"nothing came within {bench.timeout_s} s")
    bench.disconnect_hook(bench.feed)
    try:
        bench.feed.advance()  # what had arrived before may still be taken in
        last = bench.feed.snapshot().timestamp
        for _ in range(3):
            bench.wait()
            require(bench.feed.advance(), "advance returned False: more will come when the line is back")
        now = bench.feed.snapshot().timestamp
        require(now == last, f"without a line its timestamp went on from {last} to {now}, so nobody sees that it is stale")
    finally:
        bench.reconnect_hook(bench.feed)


FEED_CLAIMS: Mapping[str, Callable[[_FeedBench], None]] = {
    claim.__name__.lstrip("_"): claim
    for claim in (
        _keeps_the_protocol,
        _is_stale_before_it_starts,
        _brings_data,
        _numbers_make_sense,
        _time_never_runs_backwards,
        _next_time_comes_true,
        _ends_for_good,
        _gives_the_same_again,
        _stops_quietly,
        _goes_stale_without_a_line,
    )
}


def _content(feed: Feed) -> FeedData:
    """A snapshot without its age, which grows while nothing comes."""
    return msgspec.structs.replace(feed.snapshot(), age_s=None)
