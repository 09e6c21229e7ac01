"""FeedData: mid and staleness as in the original."""

from __future__ import annotations

import time

from horizon.feeds.base import FeedData


def test_a_feed_that_never_had_an_update_is_stale() -> None:
    assert FeedData().is_stale()
    assert FeedData(age_s=0.0).is_stale()


def test_a_feed_is_stale_after_thirty_seconds_by_default() -> None:
    assert not FeedData(timestamp=time.time() - 29).is_stale()
    assert FeedData(timestamp=time.time() - 31).is_stale()


def test_the_age_that_the_feed_tells_counts_and_not_the_wall_clock() -> None:
    long_ago = 1_356_998_659.0
    assert not FeedData(timestamp=long_ago, age_s=30.0).is_stale()
    assert FeedData(timestamp=long_ago, age_s=30.1).is_stale()
    assert FeedData(timestamp=long_ago, age_s=5.0).is_stale(max_age_secs=4.0)


def test_mid_is_the_middle_of_the_quote_else_the_last_price_else_zero() -> None:
    assert FeedData(price=7.0, bid=1.0, ask=2.0).mid() == 1.5
    assert FeedData(price=7.0, bid=1.0).mid() == 7.0
    assert FeedData().mid() == 0.0
