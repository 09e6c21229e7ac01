"""`hz.run`: one strategy from start to end, alone or under the supervisor.

The order of a start: arguments checked, recovery, feeds, the run's start with the venue, the cycle. Each cycle: what the venue tells,
prices, then for each market its pipeline; the market's price moves a simulated venue, the old quotes are canceled, the new ones
submitted. The order of an end: cancel, late fills, snapshot, the run's end, the last ack (`Engine.close`).
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

import msgspec
from prometheus_client import REGISTRY

from horizon import logs
from horizon.channel import Heartbeat
from horizon.clock import SYSTEM_CLOCK
from horizon.context import Context, FeedData, InventorySnapshot, feed_of
from horizon.engine import Engine
from horizon.errors import AckTimeout, ConfigError, Halt, StoreStalled, StrategyError, VenueError
from horizon.faults import Faults
from horizon.feeds.base import Feed
from horizon.job import Assignment, Job, config_of, job_of
from horizon.metrics import Reading
from horizon.not_there_yet import refuse_arguments
from horizon.paths import DatabasePaths
from horizon.pulse import HEARTBEAT_EVERY_S, Pulse, ToldPulse
from horizon.records import Market, Quote, Side
from horizon.risk import Risk, RiskConfig
from horizon.stopping import Signals, Stopping
from horizon.telemetry import Sender

__all__ = ["Assignment", "assignment", "has_run", "run"]

log = logging.getLogger(__name__)

EVICT_EVERY = 100  # cycles
EVICT_AFTER_S = 300.0
_ERROR_MAX = 500  # characters of the newest error that a heartbeat tells
_LEAVING_S = 1.0  # of a stop's deadline, for what comes after the last ack

assignment: Assignment | None = None  # left here by whoever runs a strategy's file; `run` takes it
has_run = False


def run(
    name: str,
    exchange: object = None,
    exchanges: Sequence[object] | None = None,
    markets: Sequence[Market | str] | None = None,
    events: object = None,
    feeds: Mapping[str, object] | None = None,
    pipeline: object = None,
    risk: Risk | RiskConfig | None = None,
    interval: float = 0.5,
    mode: str = "paper",
    dashboard: bool = False,
    params: Mapping[str, Any] | None = None,
    db_path: str | Path | EllipsisType | None = ...,
    netting_pairs: object = None,
    api_key: str | None = None,
    compliance: object = None,
    *,
    orphans: str = "warn",
    intent: str = "journal",
    snapshot_every: int = 50,
) -> None:
    """Run a strategy until SIGINT or SIGTERM, until the supervisor says stop, or until its unpaced feeds or its recording are exhausted.

    `db_path` left out is HORIZON_DB, else ./{name}.db; None keeps nothing. `api_key` is accepted and dropped. `orphans` and `intent` as
    in Engine; `snapshot_every` counts cycles.
    Raises: ConfigError, StrategyError, NotThereYet for arguments; what Engine raises at its start; AckTimeout when not everything
    was acknowledged by the stop deadline. What a run ends with that has begun, a Halt or the ConfigError of a feed that cannot be
    read, comes as it is under a supervisor, and alone as SystemExit with its code.
    """
    global assignment, has_run
    del api_key
    if has_run:
        raise StrategyError("hz.run was called a second time in this process: one process runs one strategy")
    assigned, assignment = assignment or Assignment(), None
    is_alone = assigned == Assignment()
    if is_alone:
        logs.log_to(sys.stderr)
    refuse_arguments(events=events, dashboard=dashboard, netting_pairs=netting_pairs, compliance=compliance)
    job = job_of(
        assigned, name, exchange, exchanges, markets, feeds, pipeline, risk, interval, mode, params, db_path,
        orphans=orphans, intent=intent, snapshot_every=snapshot_every,
    )  # fmt: skip
    has_run = True
    if assigned.observer is not None:
        assigned.observer.started(job.name, job.db_path)
    try:
        _run(job, assigned)
    except Halt as halt:
        if not is_alone:
            raise
        log.critical("halted: %s", halt.reason, extra={"action": "halt"})
        raise SystemExit(int(halt.exit_code)) from None
    except ConfigError as error:
        if not is_alone:
            raise
        log.error("%s", error, extra={"action": "misconfigured"})
        raise SystemExit(int(error.exit_code)) from None


def _run(job: Job, assigned: Assignment) -> None:
    pulse = Pulse() if assigned.channel is None else ToldPulse(assigned.channel)
    pulse.turn()
    engine = Engine(
        job.risk,
        db_path=job.db_path,
        strategy=job.name,
        venue=job.venue,
        durability=assigned.durability,
        may_start_writer=assigned.channel is None,
        lock_timeout_s=assigned.stop_timeout_s,
        orphans=job.orphans,
        intent=job.intent,
        pulse=pulse,
    )
    # Only now: while it waits for a writer or a disk, there is nothing to drain and a signal may end it as it pleases.
    with Signals() as signals:
        stopping = Stopping(assigned, signals)
        report = _Report(job, engine, assigned, pulse)
        cycle = _Cycle(job, engine, stopping, report)
        reason = "ended"
        try:
            engine.recover_state()
            cycle.start()
            engine.start_run(job.name, config_of(job))
            # What is loaded now stays: to walk through it with every full collection would hold up a cycle for some milliseconds.
            gc.collect()
            gc.freeze()
            report.ready()
            reason = cycle.run()
            log.info("%s ends: %s", job.name, reason, extra={"action": "run_end"})
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            cycle.stop()
            _leave(engine, stopping, report, reason)


def _leave(engine: Engine, stopping: Stopping, report: _Report, reason: str) -> None:
    """End the run within its deadline; an error that is on its way already is not replaced by a missing ack."""
    failing = sys.exc_info()[1]
    in_a_hurry = isinstance(failing, KeyboardInterrupt)  # the second Ctrl-C
    stopping.say_draining(engine.unacked, engine.journal_path)
    try:
        if not engine.has_halted:
            engine.end_run(reason)
    finally:
        # The last heartbeat has the late fills in it: what was told last is what the database holds.
        report.tell_the_end()
        stopping.say_draining(engine.unacked, engine.journal_path)
        try:
            _close(engine, 0.0 if in_a_hurry else max(0.0, stopping.deadline_s - _LEAVING_S), reason, failing)
        finally:
            report.close()


def _close(engine: Engine, timeout_s: float, reason: str, failing: BaseException | None) -> None:
    try:
        engine.close(timeout_s, reason)
    except AckTimeout as error:
        if failing is None:
            raise
        log.error("%s", error, extra={"action": "unacked"})


class _Report:
    """What the run tells of itself: the supervisor, the gateway, whoever watches a lone run. All of it comes from the cycle."""

    def __init__(self, job: Job, engine: Engine, assigned: Assignment, pulse: Pulse) -> None:
        self.cycles = 0
        self._engine = engine
        self._pulse = pulse
        self._observer = assigned.observer
        self._log = assigned.log
        self._sender: Sender | None = None
        if assigned.channel is not None and assigned.db_path is not None:
            paths = DatabasePaths.of(assigned.db_path)
            self._sender = Sender(paths.metrics_socket, job.name, engine.metrics.registry, REGISTRY)
        self._clock = SYSTEM_CLOCK
        self._beat_at = self._clock.monotonic()

    def ready(self) -> None:
        run_id = self._engine.db_run_id() or ""
        if self._log is not None and hasattr(self._log, "set_run"):
            self._log.set_run(run_id)
        self._pulse.ready(run_id)

    def turn(self) -> None:
        """Called in every cycle, and many times a second in every sleep of it."""
        if self._clock.monotonic() >= self._beat_at:
            self._beat()
        else:
            self._pulse.turn()

    @property
    def due_in_s(self) -> float:
        return max(0.0, self._beat_at - self._clock.monotonic())

    def tell_the_end(self) -> None:
        """The last heartbeat of a run that came to a cycle."""
        if self.cycles:
            self._beat()

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()

    def _beat(self) -> None:
        now = self._clock.monotonic()
        self._beat_at = now + HEARTBEAT_EVERY_S
        status = self._engine.status()
        heartbeat = Heartbeat(
            cycles=self.cycles,
            orders=self._engine.orders_submitted,
            fills=self._engine.fills_applied,
            open_orders=status.open_orders,
            position=InventorySnapshot(self._engine.positions()).net,
            pnl=status.total_pnl(),
            unacked=self._engine.unacked,
            journal_bytes=self._engine.unacked_bytes,
            log_dropped=getattr(self._log, "dropped", 0),
            last_error=getattr(self._log, "last_error", "")[:_ERROR_MAX],
            latency_ms=self._engine.latency_ms,
            kill_switch=status.kill_switch_active,
            hold=self._engine.is_held,
        )
        self._pulse.beat(heartbeat)
        if self._observer is not None:
            self._observer.beat(heartbeat)
        if self._sender is not None:
            self._sender.maybe_send(now)


class _Cycle:
    """The loop, and what it remembers between two rounds."""

    def __init__(self, job: Job, engine: Engine, stopping: Stopping, report: _Report) -> None:
        self._job = job
        self._engine = engine
        self._stopping = stopping
        self._report = report
        self._clock = SYSTEM_CLOCK
        self._alive = dict(job.feeds)  # the feeds that are not exhausted
        self._has_unpaced = any(not feed.paced for feed in job.feeds.values())
        self._market_time = 0.0
        self._params = dict(job.params)
        self._events = _markets_by_event(job.markets)
        self._fills_seen = 0
        self._runtime_params: set[str] = set()
        self._faults = Faults(self._clock)
        self._snapshot_at = self._clock.monotonic()
        self._has_heard = False  # everything that the venue told was taken in the newest cycle
        engine.metrics.tell(self._feed_ages)

    def start(self) -> None:
        """Raises: ConfigError when a feed cannot be opened."""
        for feed in self._job.feeds.values():
            feed.start()
        if self._has_unpaced:
            # A replay plays an hour in a second: limits per second are meant in its time.
            self._engine.follow_market_time(lambda: self._market_time)
        for market in self._job.markets:
            name = feed_of(market, self._job.feeds)
            if len(self._job.feeds) > 1 and name not in (market.id, market.slug, market.ticker, market.name):
                log.warning(
                    "no feed is called like market %s; the feed %s prices it", market.id, name, extra={"action": "feed_of"}
                )

    def stop(self) -> None:
        for name, feed in self._job.feeds.items():
            try:
                feed.stop()
            except Exception:
                log.exception("feed %s did not stop", name, extra={"action": "feed_stop"})
        self._faults.report()

    def run(self) -> str:
        """Cycle until something ends the run; returns what."""
        next_at = self._clock.monotonic()
        while (reason := self._stopping.stop_reason()) is None:
            is_event = self._advance_feeds()
            if not is_event and not self._job.plays_back:
                return "the feeds are exhausted"
            self._round()
            self._housekeeping()
            if self._is_played(is_event):
                return "the recording is played"
            if self._has_unpaced and is_event:
                self._wait_for_room()
            else:
                # A cycle that took longer than the interval delays the next one; missed ones are not made up for.
                next_at = max(next_at + self._job.interval_s, self._clock.monotonic())
                self._sleep_until(next_at)
        return reason

    def _is_played(self, is_event: bool) -> bool:
        """Whether nothing more will come: every recorded fill was taken, and no feed that is played to its end has an event left."""
        if not self._job.plays_back or (self._has_unpaced and is_event):
            return False
        return self._has_heard and bool(getattr(self._job.venue, "exhausted", False))

    def _round(self) -> None:
        """One cycle of all markets."""
        engine = self._engine
        engine.begin_cycle()
        self._has_heard = False
        try:
            engine.poll_fills()
            self._has_heard = True
        except (VenueError, StoreStalled) as error:
            self._faults.note("the venue", error)  # what it told and could not be looked up now is taken in the next cycle
        engine.update_daily_pnl()
        feeds = self._snapshots()
        self._refresh_params()
        for market in self._job.markets:
            try:
                self._trade(market, feeds)
            except Exception as error:
                self._faults.note(f"market {market.id}", error)
        engine.ship()
        self._report.cycles += 1

    def _snapshots(self) -> dict[str, FeedData]:
        """What every feed says now. One that is not paced knows no time but its own: its age is told by the newest of them."""
        feeds = {name: feed.snapshot() for name, feed in self._job.feeds.items()}
        if self._has_unpaced:
            unpaced = [name for name, feed in self._job.feeds.items() if not feed.paced]
            newest = max(feeds[name].timestamp for name in unpaced)
            for name in unpaced:
                feed = feeds[name]
                feeds[name] = msgspec.structs.replace(feed, age_s=max(feed.age_s or 0.0, newest - feed.timestamp))
        return feeds

    def _feed_ages(self) -> Iterator[Reading]:
        for name, feed in self._snapshots().items():
            if (age_s := feed.age()) is not None:
                yield Reading("horizon_feed_heartbeat_age_seconds", age_s, (name,))

    def _trade(self, market: Market, feeds: dict[str, FeedData]) -> None:
        """Ask a market's pipeline and make its quotes stand in the market."""
        name = feed_of(market, feeds)
        feed = feeds[name] if name is not None else FeedData()
        if self._job.is_live and feed.is_stale():
            self._faults.note(f"market {market.id}", "left alone: its feed is stale")
            return
        inventory = InventorySnapshot(self._engine.positions(), self._events)
        quotes = self._job.pipelines[market.id].quotes(
            Context(feeds, inventory, market, None, self._engine.status(), self._params)
        )
        self._price(market, feed, quotes)
        if quotes is not None:
            self._engine.cancel_market(market.id)
            self._engine.submit_quotes(market.id, quotes, _side_of(market))

    def _price(self, market: Market, feed: FeedData, quotes: Sequence[Quote] | None) -> None:
        """Move a simulated venue to the market's price, and value the positions at it."""
        mid = feed.mid()
        if not mid and quotes:
            # Without any price the strategy's own quotes are all there is, as in the original.
            mid = sum(quote.mid() for quote in quotes) / len(quotes)
        if not mid:
            return
        if feed.bid and feed.ask:
            self._engine.tick(market.id, feed.bid)
            self._engine.tick(market.id, feed.ask)
        else:
            self._engine.tick(market.id, mid)
        if _side_of(market) is Side.Long:
            self._engine.update_mark_price(market.id, Side.Long, mid)
        else:
            self._engine.update_mark_price(market.id, Side.Yes, mid)
            self._engine.update_mark_price(market.id, Side.No, 1.0 - mid)

    def _refresh_params(self) -> None:
        """What a pipeline finds in ctx.params: the run's, then those that were changed while it runs, then ours."""
        runtime = self._engine.get_all_params()
        for name in self._runtime_params - runtime.keys():
            self._params.pop(name, None)
            if name in self._job.params:
                self._params[name] = self._job.params[name]
        self._runtime_params = set(runtime)
        recent = self._engine.recent_fills()
        new = min(self._engine.fills_applied - self._fills_seen, len(recent))
        self._fills_seen = self._engine.fills_applied
        fills = recent[len(recent) - new :]
        self._params |= runtime | {
            "engine": self._engine,
            "_recent_fills": recent,
            "fills_this_cycle": fills,
            "orderbooks": {},
        }

    def _advance_feeds(self) -> bool:
        """Take in new prices: all paced feeds, and of the others the one whose next event comes first. False when nothing comes."""
        for name, feed in list(self._alive.items()):
            if feed.paced:
                self._advance(name, feed)
        while unpaced := {name: feed for name, feed in self._alive.items() if not feed.paced}:
            name, feed = min(unpaced.items(), key=lambda one: one[1].next_time() or 0.0)
            self._market_time = max(self._market_time, feed.next_time() or 0.0)
            if self._advance(name, feed):
                return True
        return not self._has_unpaced and (bool(self._alive) or not self._job.feeds)

    def _advance(self, name: str, feed: Feed) -> bool:
        """Raises: ConfigError, when what the feed reads is wrong from here on."""
        try:
            came = feed.advance()
        except ConfigError:
            raise
        except Exception as error:
            self._faults.note(f"feed {name}", error)
            return feed.paced  # without it an unpaced feed that only fails would never end
        if not came:
            del self._alive[name]
        return came

    def _housekeeping(self) -> None:
        now, cycles = self._clock.monotonic(), self._report.cycles
        # A replay has that many cycles in milliseconds; a snapshot a second is as good for it.
        if cycles % self._job.snapshot_every == 0 and (not self._has_unpaced or now - self._snapshot_at >= 1.0):
            self._engine.snapshot_positions()
            self._snapshot_at = now
        if cycles % EVICT_EVERY == 0:
            self._engine.evict_stale_orders(0.0 if self._has_unpaced else EVICT_AFTER_S)
        self._report.turn()

    def _wait_for_room(self) -> None:
        """A replay is faster than any disk: it waits for the writer instead of having its orders refused."""
        while not self._engine.room_for_orders() and self._stopping.stop_reason() is None:
            self._stopping.wait(self._engine, 0.05)
            self._report.turn()

    def _sleep_until(self, until: float) -> None:
        while (left := until - self._clock.monotonic()) > 0 and self._stopping.stop_reason() is None:
            self._stopping.wait(self._engine, min(left, self._report.due_in_s))
            self._report.turn()


def _markets_by_event(markets: Sequence[Market]) -> dict[str, frozenset[str]]:
    events = {market.event_id for market in markets if market.event_id is not None}
    return {event: frozenset(market.id for market in markets if market.event_id == event) for event in events}


def _side_of(market: Market) -> Side:
    """Prediction markets are quoted on Yes; what has an asset class is held long or short."""
    return Side.Yes if market.asset_class is None else Side.Long
