"""What a changed configuration means for the processes that run: pure, from two configurations to a plan or a refusal.

A strategy whose table changed is started again, one that is gone is stopped, a new one is started. Numbers that only the supervisor reads
take effect at once. What the writer holds, or what tells people where to find things, takes a new start of the supervisor: a plan that
changes it is refused whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from horizon import worker
from horizon.config import Config, load
from horizon.errors import ConfigError

# Read by the supervisor when it judges, so a new value needs no new process.
LIVE_OF_A_STRATEGY = ("on_hang", "hang_after_s")
_NEEDS_A_NEW_START = {
    "database.path": "the writer holds the database",
    "database.durability": "the writer was started with it",
    "supervisor.control_socket": "commands look for it there",
    "logs.folder": "commands look for the logs there",
    "logs.format": "the stream was begun with it",
    "logs.level": "the stream was begun with it",
    "logs.max_bytes": "the files were opened with it",
    "logs.keep": "the files were opened with it",
}
_NEW_START = "stop Horizon with `horizon down` and start it again, or put the old value back; nothing was changed"


class Plan(NamedTuple):
    """What a reload does. Names of strategies, and "gateway"; `live` are keys of the file."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    live: tuple[str, ...] = ()


def read(path: Path) -> Config:
    """A configuration that can be run, now or by a reload. Raises: ConfigError."""
    config = load(path)
    if not config.strategies:
        raise ConfigError(f'{path}: there is no strategy in it; add a table [strategies.NAME] with file = "..."')
    worker.check_built_in_feeds(config)
    return config


def plan(old: Config, new: Config) -> Plan:
    """Raises: ConfigError, for a change that needs a new start of the supervisor."""
    changed = [
        *_changed("database", old.database, new.database),
        *_changed("supervisor", old.supervisor, new.supervisor),
        *_changed("logs", old.logs, new.logs),
    ]
    for key in changed:
        if key in _NEEDS_A_NEW_START:
            raise ConfigError(f"{new.path}: {key} cannot be changed by a reload, because {_NEEDS_A_NEW_START[key]}; {_NEW_START}")
    add = [name for name in new.strategies if name not in old.strategies]
    remove = [name for name in old.strategies if name not in new.strategies]
    restart = []
    live = changed
    for name in new.strategies:
        if name in old.strategies:
            keys = _changed(f"strategies.{name}", old.strategies[name], new.strategies[name])
            if all(key.rpartition(".")[2] in LIVE_OF_A_STRATEGY for key in keys):
                live += keys
            else:
                restart.append(name)
    if old.metrics != new.metrics:
        match old.metrics.enabled, new.metrics.enabled:
            case False, True:
                add.append("gateway")
            case True, False:
                remove.append("gateway")
            case True, True:
                restart.append("gateway")
    return Plan(tuple(add), tuple(remove), tuple(restart), tuple(live))


def _changed(table: str, old: Any, new: Any) -> list[str]:
    """The keys of two tables of one kind that differ."""
    assert isinstance(old, msgspec.Struct)
    return [f"{table}.{key}" for key in old.__struct_fields__ if getattr(old, key) != getattr(new, key)]
