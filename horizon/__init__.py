"""Horizon's public names, each imported when it is first used: `horizon version` must not pay for ZeroMQ and SQLite.

    import horizon as hz

The table below and the imports for type checkers above it name the same things; a test compares them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from horizon import context as context
    from horizon import errors as errors
    from horizon import testing as testing
    from horizon.context import Context as Context
    from horizon.context import FeedData as FeedData
    from horizon.context import InventorySnapshot as InventorySnapshot
    from horizon.engine import Engine as Engine
    from horizon.errors import AckTimeout as AckTimeout
    from horizon.errors import ConfigError as ConfigError
    from horizon.errors import DeadLettered as DeadLettered
    from horizon.errors import Halt as Halt
    from horizon.errors import HorizonError as HorizonError
    from horizon.errors import JournalFull as JournalFull
    from horizon.errors import KillSwitchActive as KillSwitchActive
    from horizon.errors import NotThereYet as NotThereYet
    from horizon.errors import RecordRejected as RecordRejected
    from horizon.errors import RiskError as RiskError
    from horizon.errors import StrategyError as StrategyError
    from horizon.errors import VenueError as VenueError
    from horizon.feeds.base import Feed as Feed
    from horizon.feeds.replay import Replay as Replay
    from horizon.feeds.simulated import Simulated as Simulated
    from horizon.records import EngineStatus as EngineStatus
    from horizon.records import FeeCurrency as FeeCurrency
    from horizon.records import Fill as Fill
    from horizon.records import Market as Market
    from horizon.records import Order as Order
    from horizon.records import OrderRequest as OrderRequest
    from horizon.records import OrderSide as OrderSide
    from horizon.records import OrderStatus as OrderStatus
    from horizon.records import OrderType as OrderType
    from horizon.records import Position as Position
    from horizon.records import Quote as Quote
    from horizon.records import Side as Side
    from horizon.records import TimeInForce as TimeInForce
    from horizon.records import quotes as quotes
    from horizon.risk import Risk as Risk
    from horizon.risk import RiskConfig as RiskConfig
    from horizon.runner import run as run
    from horizon.venues.base import OrderUpdate as OrderUpdate
    from horizon.venues.base import Venue as Venue
    from horizon.venues.paper import Paper as Paper
    from horizon.venues.playback import Playback as Playback

__version__ = "0.1.0"

_NAMES = {
    "horizon.context": "Context FeedData InventorySnapshot",
    "horizon.engine": "Engine",
    "horizon.errors": "AckTimeout ConfigError DeadLettered Halt HorizonError JournalFull KillSwitchActive NotThereYet RecordRejected"
    " RiskError StrategyError VenueError",
    "horizon.feeds.base": "Feed",
    "horizon.feeds.replay": "Replay",
    "horizon.feeds.simulated": "Simulated",
    "horizon.records": "EngineStatus FeeCurrency Fill Market Order OrderRequest OrderSide OrderStatus OrderType Position Quote Side"
    " TimeInForce quotes",
    "horizon.risk": "Risk RiskConfig",
    "horizon.runner": "run",
    "horizon.venues.base": "OrderUpdate Venue",
    "horizon.venues.paper": "Paper",
    "horizon.venues.playback": "Playback",
}
_MODULES = ("context", "errors", "testing")
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"horizon.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'horizon' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_MODULE_OF, *_MODULES, "__version__"])
