"""The cycle of hz.run, without a database: what a pipeline sees and what becomes of what it returns."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import LOOSE, fill_of
from eventually import eventually
from scripted_venue import ScriptedVenue

import horizon as hz
from horizon import channel, runner
from horizon.channel import Channel, Draining, Heartbeat, Phase, Ready, Stop
from horizon.errors import ConfigError, ExitCode, Halt, VenueError
from horizon.feeds.base import FeedData
from horizon.pulse import ToldPulse
from horizon.records import Market, OrderStatus, Quote, Side


class Ticks:
    """An unpaced feed of prices, one a cycle; an exception among them is raised."""

    def __init__(self, *prices: float | tuple[float, float] | Exception, first_time: float = 1.0) -> None:
        self.paced = False
        self.prices = list(prices)
        self.now = FeedData()
        self.time = first_time
        self.stopped = False

    def start(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def advance(self) -> bool:
        if not self.prices:
            return False
        price = self.prices.pop(0)
        if isinstance(price, Exception):
            raise price
        bid, ask = price if isinstance(price, tuple) else (0.0, 0.0)
        self.now = FeedData(price=0.0 if bid else price, timestamp=self.time, bid=bid, ask=ask, age_s=0.0)  # type: ignore[arg-type]
        self.time += 1.0
        return True

    def next_time(self) -> float | None:
        return self.time if self.prices else None

    def snapshot(self) -> FeedData:
        return self.now


@pytest.fixture(autouse=True)
def _first_run_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "has_run", False)
    monkeypatch.setattr(runner, "assignment", None)


def _run(pipeline: Any, *prices: Any, **arguments: Any) -> None:
    given = {"name": "s", "markets": ["m"], "feeds": {"m": Ticks(*prices)}, "pipeline": pipeline, "db_path": None}
    hz.run(**(given | arguments))


def test_a_pipeline_is_asked_once_per_event_and_the_run_ends_with_the_last() -> None:
    seen: list[float] = []
    feed = Ticks(0.4, 0.5, 0.6)
    _run([lambda ctx: seen.append(ctx.feed.price)], feeds={"m": feed})
    assert seen == [0.4, 0.5, 0.6]
    assert feed.stopped


def test_unpaced_feeds_are_merged_by_time() -> None:
    seen: list[tuple[float, float]] = []
    feeds = {"a": Ticks(0.1, 0.2, first_time=1.0), "b": Ticks(0.7, 0.8, first_time=1.5)}
    _run([lambda ctx: seen.append((ctx.feeds["a"].price, ctx.feeds["b"].price))], feeds=feeds, markets=["a"])
    assert seen == [(0.1, 0.0), (0.1, 0.7), (0.2, 0.7), (0.2, 0.8)]


def test_quotes_rest_until_the_next_cycle_and_fill_when_the_price_comes() -> None:
    engines: list[hz.Engine] = []
    quotes = iter([Quote(0.45, 0.55), None, Quote(0.40, 0.60)])
    open_prices: list[list[float]] = []

    def quote(ctx: hz.Context) -> Quote | None:
        engine = ctx.params["engine"]
        engines.append(engine)
        open_prices.append(sorted(order.price for order in engine.open_orders()))
        return next(quotes)

    _run([quote], 0.5, 0.44, 0.5)
    assert open_prices == [[], [0.45, 0.55], [0.55]], "None leaves the orders as they are, and they fill all the same"
    assert engines[0].positions()[0].size == 5.0
    assert engines[0].open_orders() == [], "the end cancels"


def test_a_feed_with_both_sides_moves_the_venue_to_its_bid_then_to_its_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    ticked: list[float] = []
    monkeypatch.setattr(hz.Paper, "tick", lambda self, market_id, mid: ticked.append(mid) or 0)
    _run([lambda ctx: None], (0.4, 0.6), 0.5)
    assert ticked == [0.4, 0.6, 0.5]


def test_without_any_price_the_strategys_own_quotes_are_the_price() -> None:
    filled: list[int] = []

    def quote(ctx: hz.Context) -> Quote:
        filled.append(len(ctx.params["_recent_fills"]))
        return Quote(0.5, 0.5)

    _run([quote], 0.0, 0.0, feeds={"m": Ticks(0.0, 0.0, 0.0)})
    assert filled[-1] > 0


def test_positions_are_marked_yes_at_the_price_and_no_at_what_is_left() -> None:
    engines: list[hz.Engine] = []

    def quote(ctx: hz.Context) -> None:
        engine: hz.Engine = ctx.params["engine"]
        engines.append(engine)
        for side in (Side.Yes, Side.No):
            engine.process_fill(hz.Fill(f"{side}-{len(engines)}", "o", "m", side, hz.OrderSide.Buy, 0.5, 1.0))

    _run([quote], 0.7)
    gains = {position.side: position.unrealized_pnl for position in engines[0].positions()}
    assert gains == {Side.Yes: pytest.approx(0.2), Side.No: pytest.approx(-0.2)}


def test_a_market_with_an_asset_class_is_held_long_or_short() -> None:
    sides: set[Side] = set()

    def quote(ctx: hz.Context) -> Quote:
        sides.update(order.side for order in ctx.params["engine"].open_orders())
        return Quote(99.0, 101.0)

    _run([quote], 100.0, 100.0, markets=[Market("m", asset_class="crypto")], risk=hz.Risk.equity())
    assert sides == {Side.Long}


def test_a_pipeline_that_raises_skips_its_market_for_the_cycle_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    cycles: list[str] = []

    def quote(ctx: hz.Context) -> None:
        cycles.append(ctx.market_id)
        if ctx.market_id == "bad":
            raise ZeroDivisionError(f"number {len(cycles)}")

    _run([quote], 0.5, 0.5, 0.5, markets=["bad", "good"])
    assert cycles == ["bad", "good"] * 3
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "market bad: ZeroDivisionError: number 1",
        "market bad: the same error 2 more times",
    ]
    assert errors[0].exc_info is not None


def test_a_halt_is_not_taken_for_an_error_of_the_pipeline() -> None:
    def quote(ctx: hz.Context) -> None:
        raise Halt("cannot keep a promise")

    with pytest.raises(SystemExit) as leaving:
        _run([quote], 0.5)
    assert leaving.value.code == 5


def test_under_a_supervisor_a_halt_comes_through_as_it_is() -> None:
    def quote(ctx: hz.Context) -> None:
        raise Halt("cannot keep a promise")

    runner.assignment = runner.Assignment(name="s")
    with pytest.raises(Halt):
        _run([quote], 0.5)


def test_params_hold_the_runs_the_changed_ones_and_what_the_engine_knows() -> None:
    seen: list[tuple[object, object, int, int]] = []

    def quote(ctx: hz.Context) -> Quote:
        engine = ctx.params["engine"]
        seen.append(
            (ctx.params["spread"], ctx.params.get("extra"), len(ctx.params["fills_this_cycle"]), len(ctx.params["_recent_fills"]))
        )
        if len(seen) == 1:
            engine.update_params_batch({"spread": 0.2, "extra": 1})
        elif len(seen) == 2:
            engine.remove_param("spread")
            engine.remove_param("extra")
        assert ctx.params["orderbooks"] == {}
        return Quote(0.5, 0.51)

    _run([quote], 0.5, 0.5, 0.4, 0.5, params={"spread": 0.1})
    assert [(spread, extra) for spread, extra, *_ in seen] == [(0.1, None), (0.2, 1), (0.1, None), (0.1, None)]
    assert sum(new for *_, new, _ in seen) == seen[-1][-1] > 0


def test_limits_per_second_are_meant_in_the_replays_time() -> None:
    """Ten thousand events a second of a day that was recorded are no ten thousand orders a second."""
    placed: list[int] = []

    def quote(ctx: hz.Context) -> Quote:
        engine = ctx.params["engine"]
        placed.append(engine.orders_submitted)
        return Quote(0.3, 0.7)

    _run([quote], *[0.5] * 1000)
    assert placed[-1] == 2 * 999


def test_an_event_that_cannot_be_read_ends_the_run_cleanly_with_exit_code_2(caplog: pytest.LogCaptureFixture) -> None:
    engines: list[hz.Engine] = []

    def quote(ctx: hz.Context) -> Quote:
        engines.append(ctx.params["engine"])
        return Quote(0.4, 0.6)

    with pytest.raises(SystemExit) as leaving:
        _run([quote], 0.5, ConfigError("ticks.csv, line 3: no number"))
    assert leaving.value.code == ExitCode.USAGE
    assert "ticks.csv, line 3: no number" in caplog.text
    assert len(engines) == 1
    assert engines[0].open_orders() == []
    assert not engines[0].status().running


def test_whoever_runs_the_file_gets_that_error_as_it_is() -> None:
    runner.assignment = runner.Assignment(name="s")
    with pytest.raises(ConfigError, match="line 3"):
        _run([lambda ctx: None], 0.5, ConfigError("ticks.csv, line 3: no number"))


def test_a_silent_replay_grows_old_by_the_newest_time_of_the_others() -> None:
    ages: list[tuple[float | None, float | None]] = []
    stale: list[bool] = []

    def quote(ctx: hz.Context) -> None:
        ages.append((ctx.feeds["m"].age_s, ctx.feeds["n"].age_s))
        stale.append(ctx.feed.is_stale(max_age_secs=2.0))

    _run([quote], feeds={"m": Ticks(0.5, first_time=1.0), "n": Ticks(0.1, 0.1, 0.1, first_time=2.0)})
    assert ages == [(0.0, 1.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]
    assert stale == [False, False, False, True]


def test_a_live_market_whose_feed_is_stale_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []
    feed = Ticks(0.5)
    feed.snapshot = lambda: FeedData(price=0.5, timestamp=1.0, age_s=31.0)  # type: ignore[method-assign]
    _run([lambda ctx: asked.append(ctx.market_id)], feeds={"m": feed}, exchange=ScriptedVenue(), mode="live")
    assert asked == []
    assert "stale" in caplog.text


def _recording(count: int, **arguments: Any) -> hz.Playback:
    rows = [{"order": f"o{number}", "market": "m", "side": "buy", "price": "0.5", "size": "1"} for number in range(count)]
    columns = {"order_id": "order", "market_id": "market", "order_side": "side", "price": "price", "size": "size"}
    return hz.Playback(rows, columns, {"side": Side.Yes}, **arguments)


def test_a_run_ends_when_its_recording_is_played_and_every_fill_was_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engines: list[hz.Engine] = []
    _run([lambda ctx: engines.append(ctx.params["engine"])], feeds={}, exchange=_recording(5, rows_per_poll=2), interval=0.001)
    assert len(engines) == 3
    assert engines[0].fills_applied == 5
    assert "s ends: the recording is played" in caplog.text


def test_a_recording_that_is_longer_than_the_replay_beside_it_is_played_to_its_end() -> None:
    engines: list[hz.Engine] = []
    venue = _recording(5, rows_per_poll=1)
    _run([lambda ctx: engines.append(ctx.params["engine"])], 0.5, 0.5, exchange=venue, interval=0.001)
    assert engines[0].fills_applied == 5


def test_a_replay_that_is_longer_than_the_recording_beside_it_is_played_to_its_end() -> None:
    prices: list[float] = []
    _run([lambda ctx: prices.append(ctx.feed.price)], 0.4, 0.5, 0.6, exchange=_recording(1))
    assert prices[:3] == [0.4, 0.5, 0.6]


def test_a_snapshot_is_taken_every_so_many_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    cycles: list[int] = []
    monkeypatch.setattr(hz.Engine, "snapshot_positions", lambda self: taken.append(len(cycles)))

    def quote(ctx: hz.Context) -> None:
        cycles.append(1)

    _run([quote], feeds={}, exchange=_recording(120, rows_per_poll=1), interval=1e-6)
    assert taken == [50, 100]
    runner.has_run = False
    taken.clear(), cycles.clear()
    _run([quote], feeds={}, exchange=_recording(30, rows_per_poll=1), interval=1e-6, snapshot_every=10)
    assert taken == [10, 20, 30]


def test_a_venue_that_is_away_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    venue = ScriptedVenue()
    states: list[object] = []

    def quote(ctx: hz.Context) -> list[Quote] | None:
        engine = ctx.params["engine"]
        states.append([order.status for order in engine.open_orders()])
        venue.is_away = len(states) in (1, 2)
        return [Quote(0.4, 0.6)] if len(states) == 1 else []

    _run([quote], 0.5, 0.5, 0.5, 0.5, exchange=venue, mode="live")
    assert states[1] == [OrderStatus.Submitted] * 2, "sent while the venue was away: nobody knows what became of them"
    assert states[3] == [], "canceled when it was back"
    assert len(venue.asked_for("fills_since")) == 1, "and asked what was missed"
    assert "no route to the exchange" in caplog.text


def test_a_venue_that_is_away_at_the_start_ends_the_run() -> None:
    venue = ScriptedVenue()
    venue.is_away = True
    with pytest.raises(VenueError, match="no route"):
        _run([lambda ctx: None], 0.5, exchange=venue, mode="live")


@pytest.fixture
def supervisor() -> Iterator[Channel]:
    """The other end of the channel of the run to come."""
    ours, theirs = channel.pair()
    supervisor, worker = Channel(ours), Channel(theirs)
    runner.assignment = runner.Assignment(name="s", channel=worker)
    yield supervisor
    supervisor.close()
    worker.close()


def test_the_supervisor_hears_ready_heartbeats_and_the_end(supervisor: Channel) -> None:
    messages: list[object] = []

    def quote(ctx: hz.Context) -> Quote:
        messages.extend(supervisor.receive())
        if _beats(messages):
            supervisor.send(Stop(deadline_s=5.0))
        return Quote(0.4, 0.6)

    _run([quote], feeds={"m": hz.Simulated("probability", seed=1)}, interval=0.01)
    messages.extend(supervisor.receive())
    assert [type(message) for message in messages[:3]] == [Phase, Ready, Heartbeat]
    assert messages[0] == Phase("recovering")
    assert [type(message) for message in messages[-3:]] == [Draining, Heartbeat, Draining], (
        "at the beginning and at the end of it"
    )
    assert runner.assignment is None, "it was taken"


def test_a_run_whose_supervisor_is_gone_cancels_and_leaves(supervisor: Channel) -> None:
    engines: list[hz.Engine] = []

    def quote(ctx: hz.Context) -> Quote:
        engines.append(ctx.params["engine"])
        supervisor.close()
        return Quote(0.4, 0.6)

    _run([quote], feeds={"m": hz.Simulated("probability", seed=1)}, interval=60.0)
    assert len(engines) == 1, "it did not sleep for a minute first"
    assert engines[0].open_orders() == []


def test_what_the_supervisor_hears_last_before_the_drain_is_how_the_run_ended(supervisor: Channel) -> None:
    venue = ScriptedVenue()
    messages: list[object] = []

    def quote(ctx: hz.Context) -> Quote:
        messages.extend(supervisor.receive())
        if len(_beats(messages)) >= 2:
            late = ctx.params["engine"].open_orders()[0]
            venue.events = [fill_of(late.id, size=1.0)] if late.status is OrderStatus.Accepted else []
            supervisor.send(Stop(deadline_s=5.0))
        return Quote(0.4, 0.6)

    feeds = {"m": hz.Simulated("probability", seed=1)}
    _run([quote], feeds=feeds, interval=0.01, exchange=venue, mode="live", risk=LOOSE)
    messages.extend(supervisor.receive())
    end = max(index for index, message in enumerate(messages) if isinstance(message, Draining))
    beat = _beats(messages[:end])[-1]
    assert beat.fills == 1, "the fill that came while the orders were canceled is in it"
    assert beat.open_orders == 0
    assert beat.cycles >= 1


def test_every_call_of_a_real_venue_is_a_phase_that_the_next_sign_of_life_ends(supervisor: Channel) -> None:
    messages: list[object] = []

    def quote(ctx: hz.Context) -> None:
        messages.extend(supervisor.receive())
        if _beats(messages):
            supervisor.send(Stop(deadline_s=5.0))

    _run([quote], feeds={"m": hz.Simulated("probability", seed=1)}, interval=0.01, exchange=ScriptedVenue(), mode="live")
    messages.extend(supervisor.receive())
    ready = messages.index(next(message for message in messages if isinstance(message, Ready)))
    for index, message in enumerate(messages):
        if message == Phase("venue"):
            after = messages[index + 1]
            assert after == Phase("recovering") if index < ready else isinstance(after, Heartbeat), f"{messages}"
    assert Phase("venue") in messages[:ready], "it connects before it is ready"
    assert Phase("venue") in messages[ready:]
    progress = [beat.progress for beat in _beats(messages)]
    assert progress == sorted(set(progress)), "every beat shows that the cycle went on"


def test_a_simulated_venue_costs_no_message(supervisor: Channel) -> None:
    _run([lambda ctx: Quote(0.4, 0.6)], 0.5, 0.5, 0.5)
    assert Phase("venue") not in supervisor.receive()


def test_a_cycle_beats_once_a_second_also_in_its_sleep_and_without_one(
    supervisor: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HEARTBEAT_EVERY_S", 0.02)
    beats: list[Heartbeat] = []

    def quote(ctx: hz.Context) -> None:
        if len(beats) >= 3:
            supervisor.send(Stop(deadline_s=5.0))

    class Endless(Ticks):
        def advance(self) -> bool:
            self.prices = [0.5, 0.5]
            beats.extend(_beats(supervisor.receive()))
            return super().advance()

    _run([quote], feeds={"m": Endless(0.5)})
    assert len({beat.cycles for beat in beats}) == len(beats), "a replay that never sleeps"


def test_a_long_sleep_of_the_cycle_is_full_of_beats(supervisor: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "HEARTBEAT_EVERY_S", 0.02)
    beats: list[Heartbeat] = []

    def listen() -> None:
        eventually(lambda: beats.extend(_beats(supervisor.receive())) or len(beats) >= 5, 10.0)
        supervisor.send(Stop(deadline_s=5.0))

    listener = threading.Thread(target=listen)
    listener.start()
    _run([lambda ctx: None], feeds={"m": hz.Simulated("probability", seed=1)}, interval=60.0)
    listener.join()
    assert {beat.cycles for beat in beats[:5]} == {1}, "all of them in one sleep"
    assert len({beat.progress for beat in beats}) == len(beats)


def test_only_the_thread_of_the_cycle_is_a_sign_of_life() -> None:
    ours, theirs = channel.pair()
    hears, tells = Channel(ours), Channel(theirs)
    pulse = ToldPulse(tells)
    pulse.turn()
    assert hears.receive() == [Phase("recovering")]

    def helper() -> None:
        for _ in range(10):
            pulse.turn()
            with pulse.calling():
                pass

    thread = threading.Thread(target=helper)
    thread.start()
    thread.join()
    assert hears.receive() == []
    hears.close()
    tells.close()


def test_a_heartbeat_says_what_its_log_dropped_and_what_went_wrong_last(supervisor: Channel) -> None:
    log = logging.NullHandler()
    log.dropped, log.last_error = 7, "no price " + "x" * 10_000  # type: ignore[attr-defined]
    assert runner.assignment is not None
    runner.assignment = runner.assignment._replace(log=log)
    _run([lambda ctx: Quote(0.4, 0.6)], 0.5)
    beat = _beats(supervisor.receive())[-1]
    assert beat.log_dropped == 7
    assert beat.last_error.startswith("no price")
    assert len(beat.last_error) <= 500
    assert not beat.hold


def _beats(messages: list[Any]) -> list[Heartbeat]:
    return [message for message in messages if isinstance(message, Heartbeat)]


class Watcher:
    def __init__(self) -> None:
        self.told: list[object] = []
        self.beats: list[Heartbeat] = []

    def started(self, name: str, database: Path | None) -> None:
        self.told += [name, database]

    def beat(self, heartbeat: Heartbeat) -> None:
        self.beats.append(heartbeat)


def test_whoever_runs_a_strategy_alone_can_watch_it() -> None:
    watcher = Watcher()
    runner.assignment = runner.Assignment(observer=watcher)
    _run([lambda ctx: Quote(0.4, 0.6)], 0.5, 0.5)
    assert watcher.told == ["s", None]
    assert watcher.beats[0].cycles >= 1
    assert watcher.beats[0].orders == 2
