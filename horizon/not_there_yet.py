"""What the original offers and Horizon does not: in one table, so that it says so instead of failing with an AttributeError."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

from horizon.errors import NotThereYet

_ENGINE_METHODS = {
    "contingent orders (stops, brackets)": "add_stop_loss add_take_profit submit_bracket check_contingent_triggers cancel_contingent"
    " pending_contingent_orders submit_order_smart",
    "netting pairs": "set_netting_pair",
    "feeds inside the engine (hand them to hz.run)": "start_feed stop_feed stop_feeds restart_feed is_feed_running feed_snapshot"
    " feed_age feed_metrics",
    "order books": "update_book orderbook_snapshot",
    "events": "register_event event_exposure event_positions event_parity_check",
    "market lifecycles": "set_market_expiry set_lifecycle_lead_secs check_lifecycle is_market_expired",
    "several exchanges in one engine": "add_exchange",
    "arbitrage": "execute_arbitrage execute_parity_arb execute_event_arb",
    "recorded feed ticks": "record_tick query_ticks tick_count purge_old_ticks",
    "tiers (everything is included)": "tier",
}
_SCANNERS = "scan_"  # of arbitrage, many


def engine_method(name: str) -> Callable[..., NoReturn] | None:
    """A method of the original's engine that says that it is not there; None for a name that the original has not either."""
    if name.startswith(_SCANNERS):
        return partial(_refuse, f"Engine.{name}", "arbitrage")
    for feature, names in _ENGINE_METHODS.items():
        if name in names.split():
            return partial(_refuse, f"Engine.{name}", feature)
    return None


def refuse_arguments(**given: object) -> None:
    """Arguments of `hz.run` that may only be left out. Raises: NotThereYet."""
    for argument, value in given.items():
        if value:
            _refuse(f"hz.run({argument}=...)", _ARGUMENTS[argument])


_ARGUMENTS = {
    "events": "events (name their markets)",
    "dashboard": "the dashboard (`horizon run FILE` shows a live table)",
    "netting_pairs": "netting pairs",
    "compliance": "compliance",
}


def _refuse(what: str, feature: str, *_: object, **__: object) -> NoReturn:
    raise NotThereYet(f"{what}: Horizon does not have {feature} yet; README lists what is not there")
