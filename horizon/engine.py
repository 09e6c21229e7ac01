"""The engine: one run of one strategy, as a strategy and `hz.run` use it.

Owns the lock, the start and the end of the run and its parameters; what happens to orders and fills is `desk.py`. One lock covers
compare, record, apply, snapshot and the link (R25). An Engine acts only in the process that made it (R24): in the child of a fork
every method that would raises, and neither dropping it nor the child's end touches anything of the parent.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, get_args

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.config import Durability, Intent, OrphanPolicy
from horizon.desk import Desk
from horizon.errors import ConfigError, NotThereYet, RecordRejected, RiskError, VenueError
from horizon.figures import tell_figures
from horizon.lifecycle import Lifecycle
from horizon.link import Readable
from horizon.metrics import Metrics
from horizon.not_there_yet import engine_method
from horizon.orders import Tracked
from horizon.paths import DatabasePaths
from horizon.persistence import Persistence
from horizon.pulse import Pulse
from horizon.records import (
    EngineStatus,
    Fill,
    Order,
    OrderRequest,
    OrderSide,
    OrderType,
    Position,
    Quote,
    Side,
)
from horizon.risk import Risk, RiskConfig, RiskGate
from horizon.turns import TurnLock
from horizon.venues.base import BareVenue
from horizon.venues.paper import Paper

log = logging.getLogger(__name__)


class Engine:
    """One run. Arguments up to `paper_taker_fee_rate` are the original's; keys and passwords are accepted and dropped.

    `db_path=None` keeps nothing. `strategy` is the name everything is kept under; without it see R9. `venue` is any object that
    keeps `horizon.venues.base.Venue`, else the paper venue with the fees given here. `orphans` says what becomes of orders that
    earlier runs left open and whose end the venue does not tell: "warn" lists them, "cancel" also asks the venue to cancel them, "hold"
    sends no new order until a person has decided. `intent="committed"` sends an order only when it is a row of the database; the
    default sends it when it lies in the journal. `pulse` is told when the run waits or asks its venue.
    Raises: NotThereYet, ConfigError; with a `strategy` also what `Recorder.open` raises, else its first record raises it.
    """

    _closed = True  # until it is made: `__del__` comes also when the constructor raised

    def __init__(
        self,
        risk_config: RiskConfig | Risk | None = None,
        paper_fee_rate: float = 0.001,
        exchange_type: str = "paper",
        exchange_key: str | None = None,
        exchange_secret: str | None = None,
        exchange_passphrase: str | None = None,
        clob_url: str | None = None,
        api_url: str | None = None,
        email: str | None = None,
        password: str | None = None,
        private_key: str | None = None,
        paper_partial_fill_ratio: float = 1.0,
        db_path: str | Path | None = None,
        api_key: str | None = None,
        paper_maker_fee_rate: float | None = None,
        paper_taker_fee_rate: float | None = None,
        *,
        strategy: str | None = None,
        venue: BareVenue | None = None,
        durability: str = "process",
        may_start_writer: bool = True,
        lock_timeout_s: float = 20.0,
        clock: Clock = SYSTEM_CLOCK,
        orphans: str = "warn",
        intent: str = "journal",
        pulse: Pulse | None = None,
    ) -> None:
        del exchange_key, exchange_secret, exchange_passphrase, clob_url, api_url, email, password, private_key, api_key
        if exchange_type != "paper" and venue is None:
            raise NotThereYet(
                f"exchange_type={exchange_type!r}: Horizon ships the paper venue; pass venue= with an object that keeps "
                "horizon.venues.base.Venue"
            )
        for argument, value, words in (
            ("durability", durability, get_args(Durability)),
            ("orphans", orphans, get_args(OrphanPolicy)),
            ("intent", intent, get_args(Intent)),
        ):
            if value not in words:
                quoted = '" or "'.join(words)
                raise ConfigError(f'{argument} must be "{quoted}", got {value!r}')
        if intent == "committed" and db_path is None:
            raise ConfigError("intent is 'committed' and there is no database to commit to: give db_path, or leave intent out")
        venue = venue or Paper(paper_fee_rate, paper_maker_fee_rate, paper_taker_fee_rate, paper_partial_fill_ratio, clock=clock)
        config = risk_config.to_config() if isinstance(risk_config, Risk) else risk_config or RiskConfig()
        pulse = pulse or Pulse()
        self._pid = os.getpid()
        self._lock = TurnLock()
        self._clock = clock
        self._params: dict[str, Any] = {}
        self._started_at = clock.monotonic()
        self._persistence = Persistence(
            DatabasePaths.of(db_path) if db_path is not None else None,
            strategy,
            durability=durability,
            may_start_writer=may_start_writer,
            lock_timeout_s=lock_timeout_s,
            clock=clock,
            pulse=pulse,
        )
        gate = RiskGate(config, clock.monotonic)
        self._desk = Desk(venue, self._persistence, gate, clock, pulse, commits_intent=intent == "committed")
        tell_figures(self._desk, self._persistence, self._lock)
        self._life = Lifecycle(self._persistence, self._desk, clock, orphans)
        self._closed = False
        _engines.add(self)

    # Orders

    def submit_order(self, request: OrderRequest) -> str:
        """Send an order and return its id, which is also the client order id at the venue.

        Raises: RiskError when a check refuses it, also while the strategy is held; JournalFull when the writer is too far behind;
        VenueError when the venue rejects it; with intent "committed" AckTimeout when it was not sent because it was not committed in
        time. When the venue's answer is lost the id is returned: the order's fate is unknown, and it counts as open until the venue
        tells.
        """
        with self._lock:
            self._life.begin()
            self._life.obey()
            return self._desk.submit(request).id

    def submit_market_order(
        self,
        market_id: str,
        side: Side,
        order_side: OrderSide,
        size: float,
        token_id: str | None = None,
        neg_risk: bool = False,
        *,
        price: float | None = None,
    ) -> str:
        """Send a market order. `price` is what the risk checks value it at: the newest mark unless given. Raises: as submit_order."""
        with self._lock:
            value = self._desk.book.mark_of(market_id, side) if price is None else price
            if value is None:
                raise RiskError(
                    "price", f"no price of {market_id} is known to check a market order with: mark it, or give price="
                )
            return self.submit_order(
                OrderRequest(
                    market_id,
                    side,
                    order_side,
                    size,
                    value,
                    OrderType.Market,
                    post_only=False,
                    token_id=token_id,
                    neg_risk=neg_risk,
                )
            )

    def submit_quotes(self, market_id: str, quotes: Sequence[Quote], side: Side = Side.Yes) -> list[str]:
        """Send a buy at each bid and a sell at each ask; returns the ids of those that were placed.

        What a risk check or the venue refuses is recorded, logged at debug and left out. Raises: JournalFull, AckTimeout.
        """
        placed = []
        with self._lock:
            for quote in quotes:
                for order_side, price in ((OrderSide.Buy, quote.bid), (OrderSide.Sell, quote.ask)):
                    try:
                        placed.append(self.submit_order(OrderRequest(market_id, side, order_side, quote.size, price)))
                    except (RiskError, VenueError) as error:
                        log.debug("a quote in %s was refused: %s", market_id, error, extra={"action": "quote_refused"})
        return placed

    def amend_order(self, order_id: str, new_price: float | None = None, new_size: float | None = None) -> str:
        """Change price or total size of an open order, under the same id.

        Raises: RiskError, JournalFull; RecordRejected for a size that is filled already; VenueError when the order is not open, or
        the venue refuses or does not answer.
        """
        with self._lock:
            self._life.begin()
            self._life.obey()
            tracked = self._desk.orders.get(order_id)
            if tracked is None or not tracked.order.is_open():
                raise VenueError(f"order {order_id} is not open, so it cannot be amended")
            self._desk.amend(tracked, new_price, new_size)
            return order_id

    def cancel(self, order_id: str) -> bool:
        """Cancel an order. False when it is not open, or the venue did not confirm: then it counts as open until the venue tells."""
        with self._lock:
            tracked = self._desk.orders.get(order_id)
            return tracked is not None and tracked.order.is_open() and self._cancel([tracked]) == 1

    cancel_order = cancel

    def cancel_all(self) -> int:
        """Cancel every open order; returns how many the venue confirmed."""
        with self._lock:
            return self._cancel(self._desk.orders.open())

    def cancel_market(self, market_id: str) -> int:
        """Cancel the open orders of a market; returns how many the venue confirmed."""
        with self._lock:
            return self._cancel(self._desk.orders.open(market_id))

    def evict_stale_orders(self, max_age_secs: float = 300.0) -> int:
        """Forget orders that ended longer ago than this and whose records are all acknowledged (R1). Returns how many."""
        with self._lock:
            return self._desk.evict(max_age_secs)

    # Fills

    def tick(self, market_id: str, mid: float) -> int:
        """Move a simulated venue to a price and take its fills; returns their number, 0 at any other venue."""
        with self._lock:
            self._life.begin()
            return self._desk.tick(market_id, mid)

    def poll_fills(self) -> int:
        """Take what happened at the venue since the last call; returns the number of fills applied. Raises: VenueError."""
        with self._lock:
            self._life.begin()
            return self._life.poll()

    def process_fill(self, fill: Fill) -> bool:
        """Take a fill that the caller knows to be his. Returns whether it was new: a known one changes nothing."""
        with self._lock:
            self._life.begin()
            return self._desk.take_fill(fill, vouched=True)

    def sync_positions(self) -> int:
        """Ask the venue for fills since the last moment that is known and take what is new; returns their number.

        Done by itself when a run begins. Raises: VenueError.
        """
        with self._lock:
            self._life.begin()
            return self._life.take_missed_fills()

    def recent_fills(self) -> list[Fill]:
        """The last 1,000 fills applied, oldest first."""
        with self._lock:
            return list(self._desk.recent_fills)

    # State

    def positions(self) -> list[Position]:
        """The positions that are not flat."""
        with self._lock:
            return self._desk.book.positions()

    def all_positions(self) -> list[Position]:
        """Also the flat ones, which still hold realized PnL and fees."""
        with self._lock:
            return self._desk.book.all_positions()

    def positions_for_market(self, market_id: str) -> list[Position]:
        return [position for position in self.positions() if position.market_id == market_id]

    def open_orders(self) -> list[Order]:
        with self._lock:
            return [copy(tracked.order) for tracked in self._desk.orders.open()]

    def open_orders_for_market(self, market_id: str) -> list[Order]:
        with self._lock:
            return [copy(tracked.order) for tracked in self._desk.orders.open(market_id)]

    def status(self) -> EngineStatus:
        with self._lock:
            gate, book = self._desk.gate, self._desk.book
            realized, unrealized = book.pnl()
            return EngineStatus(
                running=self._life.has_begun and not self._life.has_ended,
                kill_switch_active=gate.kill_switch_active,
                kill_switch_reason=gate.kill_switch_reason,
                open_orders=self._desk.orders.open_count(),
                active_positions=book.active_count(),
                total_realized_pnl=realized,
                total_unrealized_pnl=unrealized,
                daily_pnl=gate.daily_pnl,
                uptime_secs=self._clock.monotonic() - self._started_at,
            )

    def update_mark_price(self, market_id: str, side: Side, price: float) -> None:
        """Value the positions of a market at this price. Raises: RecordRejected when it is NaN or infinite."""
        if not math.isfinite(price):
            raise RecordRejected(f"mark of {market_id!r}: price must be a finite number, got {price}")
        with self._lock:
            self._desk.book.mark(market_id, side, price)

    @property
    def orders_submitted(self) -> int:
        """In this run."""
        return self._desk.orders_made

    @property
    def fills_applied(self) -> int:
        """In this run."""
        return self._desk.fills_applied

    @property
    def metrics(self) -> Metrics:
        return self._desk.metrics

    # Risk

    def activate_kill_switch(self, reason: str) -> None:
        """Forbid new orders, cancel the open ones, and record why. The first reason stays until it is deactivated."""
        with self._lock:
            self._life.begin()
            self._desk.trip(reason)

    def deactivate_kill_switch(self) -> None:
        with self._lock:
            self._life.begin()
            self._desk.untrip()

    def update_daily_pnl(self, total_pnl: float | None = None) -> None:
        """Take in the total PnL of now (the engine's own unless given): beyond the drawdown limit the kill switch goes on."""
        with self._lock:
            self._life.begin()
            self._desk.observe_pnl(total_pnl)

    def set_daily_baseline(self, total_pnl: float | None = None) -> None:
        """Begin a new day: count its PnL and its high from this total (the engine's own unless given).

        A restart does not begin one: the day goes on as the newest snapshot has it.
        """
        with self._lock:
            self._desk.gate.start_day(sum(self._desk.book.pnl()) if total_pnl is None else total_pnl)

    def reset_daily_pnl(self) -> None:
        self.set_daily_baseline()

    def reset_high_water_mark(self) -> None:
        """Count the day's drawdown from the PnL of now."""
        with self._lock:
            self._desk.gate.reset_high_water_mark()

    def follow_market_time(self, now: Callable[[], float]) -> None:
        """Let rate limit and duplicate window run on the market's time: a replay plays an hour in a second."""
        with self._lock:
            self._desk.gate.now = now

    # Parameters that may change while the strategy runs

    def get_param(self, name: str, default: Any = None) -> Any:
        return self._params.get(name, default)

    def get_all_params(self) -> dict[str, Any]:
        return dict(self._params)

    def update_param(self, name: str, value: Any) -> None:
        self.update_params_batch({name: value})

    def update_params_batch(self, params: Mapping[str, Any]) -> None:
        """Change several at once: no reader sees only some of them."""
        with self._lock:
            self._params = {**self._params, **params}

    def remove_param(self, name: str) -> bool:
        """Returns whether there was one."""
        with self._lock:
            had = name in self._params
            self._params = {key: value for key, value in self._params.items() if key != name}
            return had

    # Exchanges

    def exchange_name(self) -> str:
        return self._desk.venue.name

    def exchange_names(self) -> list[str]:
        return [self._desk.venue.name]

    def exchange_count(self) -> int:
        return 1

    # Persistence

    def has_persistence(self) -> bool:
        return self._persistence.is_on

    def db_run_id(self) -> str | None:
        """The id of the run, once it has started; None without a database."""
        return self._persistence.run_id if self._life.has_started and self._persistence.is_on else None

    def recover_state(self) -> int:
        """Restore the positions from the database: newest snapshot, then the fills committed after it. Returns their number.

        Done by itself when a run begins, and before that as often as one likes; calling it twice changes nothing (design section 5).
        Raises: ConfigError when the database holds several strategies and this engine has no name; what `Recorder.open` raises.
        """
        with self._lock:
            self._life.recover()
            return self._desk.book.active_count()

    def db_open_order_ids(self) -> list[str]:
        """Orders that earlier runs of this strategy left open, by what the database knows now."""
        with self._lock:
            return self._life.orphan_ids()

    def start_run(self, strategy_name: str | None = None, config: str | None = None) -> None:
        """Begin the run: recover, record its start, connect to the venue. Without it the first order or fill does the same.

        `config` is stored as it is: JSON, without secrets. Raises: ConfigError, VenueError, what `Recorder.open` raises.
        """
        with self._lock:
            self._life.begin(strategy_name, config)

    def end_run(self, reason: str = "ended") -> None:
        """Cancel all orders, take late fills, snapshot, record the end. Nothing more can be ordered or recorded after it."""
        with self._lock:
            if self._life.has_started and not self._life.has_ended:
                self._life.end(reason)

    def snapshot_positions(self) -> int:
        """Record a snapshot of all positions; returns how many are not flat, 0 without a database."""
        with self._lock:
            if not self._persistence.is_on:
                return 0
            self._life.begin()
            self._life.snapshot()
            return self._desk.book.active_count()

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until everything recorded so far is acknowledged, so that every reader sees it (P3).

        Raises: AckTimeout; DeadLettered when one of the records could not be stored.
        """
        with self._lock:
            self._persistence.flush(timeout_s)

    @property
    def has_halted(self) -> bool:
        """Whether this run may record nothing more (R3)."""
        return self._persistence.halt is not None

    @property
    def unacked(self) -> int:
        """Records that the writer has not acknowledged yet."""
        return self._persistence.unacked

    @property
    def unacked_bytes(self) -> int:
        """What they take in the journal."""
        return self._persistence.unacked_bytes

    @property
    def is_held(self) -> bool:
        """Whether it may cancel but not order."""
        return self._desk.gate.hold_reason is not None

    @property
    def latency_ms(self) -> float | None:
        """Median time from recorded to acknowledged over the newest acks."""
        return self._persistence.latency_ms

    @property
    def journal_path(self) -> str:
        """Where the unacknowledged records lie; empty without a database."""
        return self._persistence.journal_path

    # The cycle, for whoever drives one

    def begin_cycle(self) -> None:
        """Do what people decided meanwhile; from here to `ship`, records are gathered instead of sent one by one. Raises: Halt."""
        with self._lock:
            self._life.begin()
            self._life.obey()
            self._persistence.begin_cycle()

    def ship(self) -> None:
        """End a cycle: send what it recorded, take the acks that are there. Raises: Halt."""
        with self._lock:
            self._persistence.ship()

    def wait(self, timeout_s: float, also: Sequence[Readable] = ()) -> None:
        """Sleep and hear acks meanwhile; wakes early when something in `also` is readable. Raises: Halt."""
        self._persistence.wait(timeout_s, also, self._lock)
        with self._lock:
            self._life.obey()

    def room_for_orders(self) -> bool:
        """False while the writer is so far behind that new orders are refused."""
        with self._lock:
            return self._persistence.room_for_orders()

    # The end

    def close(self, timeout_s: float = 5.0, reason: str = "ended") -> None:
        """End the run if it has not ended, wait for the last ack, and let go of everything. A second call does nothing.

        After a halt nothing is recorded any more, also no snapshot (R3): orders are canceled at the venue and that is all.
        Raises: AckTimeout, whose text names what is unacknowledged and in which journal.
        """
        if self._closed or self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            _engines.discard(self)
            try:
                self._life.leave(timeout_s, reason)
            finally:
                try:
                    with self._desk.calling():
                        self._desk.venue.close()
                except Exception:
                    log.exception("the venue %s did not close", self._desk.venue.name, extra={"action": "venue_close"})
                finally:
                    self._persistence.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(reason="ended" if error is None else f"{type(error).__name__}: {error}")

    def __del__(self) -> None:
        _close_quietly(self, "dropped")

    def _cancel(self, orders: list[Tracked]) -> int:
        # After the run's end nothing may be recorded; what the venue did not confirm by then the next run settles.
        return 0 if self._life.has_ended else sum(self._desk.cancel(tracked) for tracked in orders)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., NoReturn]:
            method = engine_method(name)
            if method is None:
                raise AttributeError(f"'Engine' object has no attribute {name!r}")
            return method


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_quietly(engine: Engine, reason: str) -> None:
    """Where nobody could catch what `close` raises."""
    try:
        engine.close(reason=reason)
    except BaseException as error:
        log.error("an engine that was not closed could not be ended: %s", error, extra={"action": "engine_close"})


def _close_all() -> None:
    for engine in list(_engines):
        _close_quietly(engine, "the process ended")


atexit.register(_close_all)
