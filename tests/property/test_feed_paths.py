"""What must hold for every seed, every recording and every rhythm of calls."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manual_clock import ManualClock

from horizon.errors import ConfigError
from horizon.feeds.base import FeedData
from horizon.feeds.played import PlayedFeed
from horizon.feeds.replay import Replay
from horizon.feeds.simulated import MODELS, Simulated
from horizon.feeds.volume import RollingVolume

SPAN_S = 10.0

# Steps between calls of advance, on a grid that floats represent exactly, so that every rhythm ends at the same instant.
RHYTHMS = st.lists(st.integers(0, int(SPAN_S * 1024)), max_size=12).map(
    lambda instants: [instant / 1024 for instant in sorted(instants)] + [SPAN_S]
)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 3_000_000),  # milliseconds since the row before
        st.floats(-1e9, 1e9, allow_nan=False),
        st.floats(0, 1e9, allow_nan=False),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


def in_rhythm(feed: PlayedFeed, clock: ManualClock, instants: list[float]) -> FeedData:
    """Start a paced feed and call it at these instants (and look at it, which must change nothing)."""
    began = clock.monotonic()
    feed.start()
    for instant in instants:
        clock.forward(began + instant - clock.monotonic())
        feed.advance()
        seen = feed.snapshot()
    feed.stop()
    return seen


def one_by_one(feed: PlayedFeed) -> list[FeedData]:
    feed.start()
    seen = []
    while feed.advance():
        seen.append(feed.snapshot())
    feed.stop()
    return seen


@given(model=st.sampled_from(MODELS), seed=st.integers(), trade_share=st.floats(0, 1))
@settings(max_examples=50)
def test_the_same_seed_gives_the_same_path(model: str, seed: int, trade_share: float) -> None:
    first, second = (
        one_by_one(Simulated(model, seed=seed, trade_share=trade_share, paced=False, events=30, first_time=1e9)) for _ in range(2)
    )
    assert first == second
    assert len(first) == 30
    assert all(0 < data.bid < data.ask < math.inf for data in first)


@given(model=st.sampled_from(MODELS), seed=st.integers(0, 2**32), rhythm=RHYTHMS)
@settings(max_examples=50)
def test_any_rhythm_of_calls_gives_a_simulated_feed_the_same_end(model: str, seed: int, rhythm: list[float]) -> None:
    ends = []
    for instants in ([SPAN_S], rhythm):
        clock = ManualClock()
        ends.append(in_rhythm(Simulated(model, seed=seed, interval_s=0.25, clock=clock), clock, instants))
    assert ends[0] == ends[1]
    unpaced = one_by_one(Simulated(model, seed=seed, interval_s=0.25, paced=False, events=41, clock=ManualClock()))[-1]
    assert (unpaced.bid, unpaced.ask, unpaced.timestamp) == (ends[0].bid, ends[0].ask, ends[0].timestamp)


@given(rows=ROWS, rhythm=RHYTHMS, speed=st.sampled_from([1.0, 60.0, 86_400.0]))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rhythm_of_calls_gives_a_replay_the_same_end(
    tmp_path: Path, rows: list[tuple[int, float, float, bool]], rhythm: list[float], speed: float
) -> None:
    path, _ = recorded(tmp_path, rows)
    ends = []
    for instants in ([SPAN_S], rhythm):
        clock = ManualClock()
        ends.append(in_rhythm(Replay(path, time_unit="ms", speed=speed, clock=clock), clock, instants))
    assert ends[0] == ends[1]


@given(rows=ROWS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_replay_gives_every_row_exactly_once_and_in_order(tmp_path: Path, rows: list[tuple[int, float, float, bool]]) -> None:
    path, expected = recorded(tmp_path, rows)
    seen = one_by_one(Replay(path, time_unit="ms", speed="max"))
    assert [(data.timestamp, data.price, data.last_trade_size, data.last_trade_is_buy) for data in seen] == expected


@given(cut=st.integers(0, 400), junk=st.binary(max_size=8), packed=st.booleans())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_played_or_refused_with_its_name_and_nothing_else(
    tmp_path: Path, cut: int, junk: bytes, packed: bool
) -> None:
    path, _ = recorded(tmp_path, [(1, 1.5, 2.0, True)] * 12)
    data = gzip.compress(path.read_bytes()) if packed else path.read_bytes()
    path.write_bytes(data[:cut] + junk + data[cut + len(junk) :])
    feed, refusal = Replay(path, time_unit="ms", speed="max"), str(path)
    try:
        feed.start()
        while feed.advance():
            pass
    except ConfigError as error:
        refusal = str(error)
    assert str(path) in refusal


@given(
    trades=st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 1_000)), min_size=1, max_size=60),
    looks=st.sets(st.integers(0, 59)),
)
def test_volume_is_what_the_last_1440_minutes_brought_whenever_it_is_asked(
    trades: list[tuple[int, int]], looks: set[int]
) -> None:
    volume, now, taken = RollingVolume(), 0, []
    for number, (step, size) in enumerate(trades):
        now += step
        taken.append((now // 60, size))
        volume.add(float(now), size / 8)
        if number in looks:
            volume.total(float(now))
    assert volume.total(float(now)) == sum(size for minute, size in taken if minute > now // 60 - 1440) / 8


def recorded(folder: Path, rows: list[tuple[int, float, float, bool]]) -> tuple[Path, list[tuple[float, float, float, bool]]]:
    """The rows as a file of trades, and what a feed must give of it."""
    milliseconds, expected, lines = 1_600_000_000_000, [], ["timestamp,price,size,side"]
    for step, price, size, is_buy in rows:
        milliseconds += step
        lines.append(f"{milliseconds},{price!r},{size!r},{'buy' if is_buy else 'sell'}")
        expected.append((milliseconds / 1000, price, size, is_buy))
    path = folder / "recorded.csv"
    path.write_text("\n".join(lines) + "\n")
    return path, expected
