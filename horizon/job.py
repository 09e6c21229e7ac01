"""What `hz.run` is asked to do: its arguments, checked, with what the strategy's table decides in their place."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple, Protocol, get_args

import msgspec

from horizon import __version__, logs
from horizon.channel import Channel, Heartbeat
from horizon.config import Intent, OrphanPolicy, database_variable
from horizon.errors import ConfigError, NotThereYet
from horizon.feeds.base import Feed
from horizon.lifeline import Lifeline
from horizon.pipeline import Pipeline, pipelines_of
from horizon.records import TEXT_MAX_BYTES, Market
from horizon.risk import Risk, RiskConfig
from horizon.venues.base import BareVenue, SimulatedVenue
from horizon.venues.paper import Paper

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Whoever shows a lone run to its user."""

    def started(self, name: str, database: Path | None) -> None: ...

    def beat(self, heartbeat: Heartbeat) -> None:
        """Called once a second, by the cycle."""
        ...


class Assignment(NamedTuple):
    """What whoever runs the strategy's file decides for it; the file's own arguments fill what is left out here.

    Left in `runner.assignment` before the file runs; `run` takes it and sets that to None.
    """

    name: str | None = None
    db_path: Path | None = None
    durability: str = "process"
    interval: float | None = None
    params: Mapping[str, Any] | None = None
    exchange: object | None = None  # a venue, or "paper"
    feeds: Mapping[str, object] | None = None
    risk: Mapping[str, Any] | None = None
    orphans: str | None = None
    intent: str | None = None
    snapshot_every: int | None = None
    stop_timeout_s: float = 20.0
    channel: Channel | None = None  # to the supervisor, whose writer is used; None: a lone run, which may start one
    lifeline: Lifeline | None = None  # of a process with a supervisor
    log: logging.Handler | None = None  # whose `dropped` and `last_error` the supervisor is told
    observer: Observer | None = None  # of a lone run


class Job(NamedTuple):
    """The arguments of a run, checked and complete."""

    name: str
    db_path: Path | None
    venue: BareVenue
    markets: tuple[Market, ...]
    feeds: dict[str, Feed]
    pipelines: dict[str, Pipeline]
    risk: RiskConfig
    interval_s: float
    is_live: bool
    params: dict[str, Any]
    orphans: str
    intent: str
    snapshot_every: int  # cycles

    @property
    def plays_back(self) -> bool:
        """Whether the venue is a recording, which has an end."""
        return hasattr(self.venue, "exhausted")


def job_of(
    assigned: Assignment,
    name: str,
    exchange: object,
    exchanges: Sequence[object] | None,
    markets: Sequence[Market | str] | None,
    feeds: Mapping[str, object] | None,
    pipeline: object,
    risk: Risk | RiskConfig | None,
    interval: float,
    mode: str,
    params: Mapping[str, Any] | None,
    db_path: str | Path | EllipsisType | None,
    orphans: str = "warn",
    intent: str = "journal",
    snapshot_every: int = 50,
) -> Job:
    """Check the arguments, and let the assignment decide what it names. Raises: ConfigError, StrategyError, NotThereYet."""
    if assigned.name is not None and assigned.name != name:
        log.info("the file calls itself %r; it runs as %r", name, assigned.name, extra={"action": "assigned_name"})
    name = assigned.name or name
    if not isinstance(name, str) or not name or not name.isprintable() or name != name.strip():
        raise ConfigError(f"hz.run: name must be a printable text without space at its ends, got {name!r}")
    if mode not in ("paper", "live"):
        raise ConfigError(f'hz.run: mode must be "paper" or "live", got {mode!r}')
    interval_s = interval if assigned.interval is None else assigned.interval
    if isinstance(interval_s, bool) or not isinstance(interval_s, int | float) or not 0 < interval_s < math.inf:
        raise ConfigError(f"hz.run: interval must be a number of seconds above 0, got {interval_s!r}")
    every = snapshot_every if assigned.snapshot_every is None else assigned.snapshot_every
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigError(f"hz.run: snapshot_every must be a whole number of cycles from 1 on, got {every!r}")
    chosen_markets = _markets(markets)
    venue = _venue(exchange, exchanges, assigned.exchange, mode)
    for market in chosen_markets:
        if market.multiplier != 1.0 and isinstance(venue, Paper):
            raise NotThereYet(f"market {market.id}: the paper venue counts a multiplier of 1, not {market.multiplier:g}")
    return Job(
        name=name,
        db_path=_database(assigned.db_path, db_path, name),
        venue=venue,
        markets=chosen_markets,
        feeds=_feeds({**(feeds or {}), **(assigned.feeds or {})}),
        pipelines=pipelines_of(pipeline, [market.id for market in chosen_markets]),
        risk=_risk(risk, assigned.risk),
        interval_s=float(interval_s),
        is_live=mode == "live",
        params={**(params or {}), **(assigned.params or {})},
        orphans=_one_of(get_args(OrphanPolicy), "orphans", assigned.orphans or orphans),
        intent=_one_of(get_args(Intent), "intent", assigned.intent or intent),
        snapshot_every=every,
    )


def _one_of(words: Sequence[str], argument: str, value: str) -> str:
    if value not in words:
        quoted = '" or "'.join(words)
        raise ConfigError(f'hz.run: {argument} must be "{quoted}", got {value!r}')
    return value


def _markets(markets: Sequence[Market | str] | None) -> tuple[Market, ...]:
    if isinstance(markets, str | Market):
        markets = [markets]
    chosen = tuple(Market(one) if isinstance(one, str) else one for one in markets or ())
    for market in chosen:
        if not isinstance(market, Market):
            raise ConfigError(f"hz.run: markets must be ids or hz.Market objects, got {market!r}")
    if not chosen:
        raise ConfigError("hz.run: markets is empty: name at least one market")
    ids = [market.id for market in chosen]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"hz.run: a market is named twice: {', '.join(ids)}")
    return chosen


def _venue(exchange: object, exchanges: Sequence[object] | None, assigned: object, mode: str) -> BareVenue:
    if exchange is not None and exchanges is not None:
        raise ConfigError("hz.run: give exchange or exchanges, not both")
    if exchanges is not None and len(exchanges) > 1:
        raise NotThereYet("hz.run: several exchanges in one strategy are not there yet; run one strategy per exchange")
    if exchanges:
        exchange = exchanges[0]
    if assigned is not None:
        exchange = assigned
    if exchange in (None, "paper"):
        if mode == "live":
            raise ConfigError(
                "hz.run: mode is 'live' and there is no exchange: pass exchange= with a venue; the paper venue is for 'paper'"
            )
        return Paper()
    if isinstance(exchange, type) or not isinstance(exchange, BareVenue):
        raise ConfigError(f"hz.run: exchange must be an object that keeps horizon.venues.base.Venue, got {exchange!r}")
    is_real = not isinstance(exchange, SimulatedVenue) and not getattr(exchange, "vouches", False)
    if is_real and mode == "paper":
        raise ConfigError(
            f"hz.run: mode is 'paper' and {exchange.name} is no simulated venue: pass mode='live' to send it orders, or leave exchange out"
        )
    return exchange


def _feeds(feeds: Mapping[str, object]) -> dict[str, Feed]:
    chosen: dict[str, Feed] = {}
    for name, feed in feeds.items():
        if isinstance(feed, type) or not isinstance(feed, Feed):
            raise ConfigError(f"hz.run: feed {name!r} must be an object that keeps horizon.feeds.base.Feed, got {feed!r}")
        chosen[str(name)] = feed
    return chosen


_SHORT_NAMES = {
    "max_position": "max_position_per_market",
    "max_notional": "max_portfolio_notional",
    "max_drawdown_pct": "max_daily_drawdown_pct",
    "rate_limit": "rate_limit_sustained",
    "rate_burst": "rate_limit_burst",
}


def _risk(given: Risk | RiskConfig | None, table: Mapping[str, Any] | None) -> RiskConfig:
    """The file's limits, with those of the strategy's table in their place; the table may use either kind of names."""
    if given is not None and not isinstance(given, Risk | RiskConfig):
        raise ConfigError(f"hz.run: risk must be a hz.Risk or a hz.RiskConfig, got {given!r}")
    config = given.to_config() if isinstance(given, Risk) else given or RiskConfig()
    changes = {_SHORT_NAMES.get(key, key): value for key, value in (table or {}).items()}
    unknown = changes.keys() - set(RiskConfig.__struct_fields__)
    if unknown:
        raise ConfigError(f"risk: unknown {', '.join(sorted(unknown))}; known: {', '.join(RiskConfig.__struct_fields__)}")
    try:
        return msgspec.convert({**msgspec.structs.asdict(config), **changes}, RiskConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"risk: {error}") from error


def _database(assigned: Path | None, given: str | Path | EllipsisType | None, name: str) -> Path | None:
    """Alone: argument, HORIZON_DB, ./{name}.db. Under the supervisor its database wins; None stays off, another path is refused."""
    if assigned is None:
        if given is None or not isinstance(given, EllipsisType):
            return None if given is None else Path(given)
        if os.sep in name and database_variable() is None:
            raise ConfigError(f"hz.run: the name {name!r} makes no file name for a database: pass db_path=")
        return database_variable() or Path(f"{name}.db")
    if given is None:
        return None
    if not isinstance(given, EllipsisType) and Path(given).resolve() != assigned.resolve():
        raise ConfigError(
            f"hz.run: the file says db_path={str(given)!r}, but it is run on {assigned}: leave db_path out, so that whoever runs it decides"
        )
    return assigned


def config_of(job: Job) -> str:
    """What the run was started with, as JSON for `strategy_runs.config`; what looks like a secret is cut out.

    What makes it longer than a text may be is left out, the least telling first: half a JSON document is none.
    """
    config: dict[str, object] = {
        "mode": "live" if job.is_live else "paper",
        "interval": job.interval_s,
        "orphans": job.orphans,
        "intent": job.intent,
        "snapshot_every": job.snapshot_every,
        "risk": msgspec.structs.asdict(job.risk),
        "version": __version__,
        "markets": [market.id for market in job.markets],
        "feeds": {name: type(feed).__name__ for name, feed in job.feeds.items()},
        "params": job.params,
        "pipelines": {market_id: pipeline.names for market_id, pipeline in job.pipelines.items()},
    }
    text = _json_without_secrets(config)
    for name in ("pipelines", "params", "feeds", "markets"):
        if len(text.encode()) <= TEXT_MAX_BYTES:
            break
        config[name] = "too long to be kept"
        text = _json_without_secrets(config)
    return text


def _json_without_secrets(config: Mapping[str, object]) -> str:
    return json.dumps(logs.redacted(config), default=lambda value: type(value).__name__)
