"""Recorded trades and quotes through the replay: what the data's README says of each file."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
import recorded_feeds
from manual_clock import ManualClock

from horizon.errors import ConfigError
from horizon.feeds.base import FeedData
from horizon.feeds.replay import Replay

pytestmark = pytest.mark.recorded


def played(feed: Replay) -> list[FeedData]:
    feed.start()
    seen = []
    while feed.advance():
        seen.append(feed.snapshot())
    feed.stop()
    return seen


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_binance_trades_are_replayed_from_the_first_to_the_last(recorded_data: Path) -> None:
    seen = played(recorded_feeds.binance_trades(recorded_data))
    assert len(seen) == recorded_feeds.BINANCE_TRADES
    assert (seen[0].timestamp, seen[-1].timestamp) == (utc("2021-01-08T00:00:00.278"), utc("2021-01-08T00:00:46.355"))
    assert (seen[0].price, seen[0].last_trade_size, seen[0].last_trade_is_buy) == (39432.48, 0.000263, False)
    assert (seen[-1].price, seen[-1].last_trade_is_buy) == (39491.76, False)
    # buyer_maker is True in 914 rows: there the seller took.
    assert sum(data.last_trade_is_buy is False for data in seen) == 914
    assert seen[-1].volume_24h == pytest.approx(87.071596)


def test_binance_quotes_are_replayed_beside_the_trades(recorded_data: Path) -> None:
    seen = played(recorded_feeds.binance_quotes(recorded_data))
    assert len(seen) == recorded_feeds.BINANCE_QUOTES
    assert (seen[0].timestamp, seen[-1].timestamp) == (utc("2021-01-08T00:00:01.076"), utc("2021-01-08T00:00:46.674"))
    assert (seen[0].bid, seen[0].ask) == (39432.99, 39433.62)
    assert (seen[-1].bid, seen[-1].ask) == (39490.97, 39490.98)
    assert all(data.bid < data.ask for data in seen)


def test_the_eurusd_day_is_read_out_of_its_zip(recorded_data: Path) -> None:
    seen = played(recorded_feeds.eurusd_quotes(recorded_data))
    assert len(seen) == recorded_feeds.EURUSD_QUOTES
    assert (seen[0].timestamp, seen[-1].timestamp) == (utc("2014-05-07T00:00:07.135"), utc("2014-05-07T23:59:42.008"))
    assert (seen[0].bid, seen[0].ask) == (1.39286, 1.39298)
    assert (seen[-1].bid, seen[-1].ask) == (1.39101, 1.39113)
    assert all(data.bid <= data.ask for data in seen)
    assert max(after.timestamp - before.timestamp for before, after in pairwise(seen)) == pytest.approx(191.7, abs=0.05)


def test_the_mtgox_day_is_replayed_with_sides_and_volume(recorded_data: Path) -> None:
    seen = played(recorded_feeds.mtgox_trades(recorded_data))
    assert len(seen) == recorded_feeds.MTGOX_TRADES
    assert seen[0].timestamp == pytest.approx(utc("2013-01-01T00:04:19.486096"), abs=1e-6)
    assert seen[-1].timestamp == pytest.approx(utc("2013-01-01T23:58:31.193969"), abs=1e-6)
    assert (seen[0].price, seen[0].last_trade_size, seen[0].last_trade_is_buy) == (13.51001, 36.87430786, False)
    assert sum(data.last_trade_is_buy is True for data in seen) == 812
    assert seen[-1].volume_24h == pytest.approx(28_168.91145963)


def test_unpaced_feeds_can_be_merged_by_the_time_of_their_next_event(recorded_data: Path) -> None:
    feeds = [recorded_feeds.binance_trades(recorded_data), recorded_feeds.binance_quotes(recorded_data)]
    for feed in feeds:
        feed.start()
    times = []
    while coming := [(time, number) for number, feed in enumerate(feeds) if (time := feed.next_time()) is not None]:
        time, number = min(coming)
        assert feeds[number].advance()
        times.append(time)
    assert len(times) == recorded_feeds.BINANCE_TRADES + recorded_feeds.BINANCE_QUOTES
    assert times == sorted(times)


def test_the_longest_silence_of_the_eurusd_day_makes_a_paced_replay_stale(recorded_data: Path) -> None:
    clock = ManualClock()
    feed = recorded_feeds.eurusd_quotes(recorded_data, speed=600, clock=clock)
    feed.start()
    ages = []
    while feed.advance():
        ages.append(feed.snapshot().age_s or 0.0)
        clock.forward(1 / 600)
    assert 190.0 < max(ages) <= 191.7
    assert not feed.snapshot().is_stale()
    clock.forward(31 / 600)
    assert feed.snapshot().is_stale()


def test_a_file_that_lists_the_newest_first_is_refused_by_line(recorded_data: Path) -> None:
    feed = Replay(
        recorded_data / "prediction/polymarket-2022-arizona_senate.csv.gz",
        columns={"timestamp": "Timestamp", "price": "Price", "size": "Shares", "side": "Type"},
        time_unit="iso",
        speed="max",
    )
    feed.start()
    assert feed.advance()
    with pytest.raises(ConfigError, match=r"arizona_senate\.csv\.gz, line 3: the time .* is before .*; sort the file"):
        feed.advance()
