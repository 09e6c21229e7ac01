"""All checks in the order in which a person would ask. Read-only, apart from a nameless scratch file whose syncs are timed.

Needs no supervisor, no network and no root, and takes well under two seconds. A check that may not look says so and stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from horizon.config import Config, load
from horizon.doctor import host, leftovers, place, plane
from horizon.doctor.finding import Finding, ok, problem, warning
from horizon.errors import ConfigError
from horizon.paths import DatabasePaths


def examine(config_path: Path) -> list[Finding]:
    """Never raises for what is wrong with the host: that is what it is for."""
    found = [
        *_tried("libraries", host.check_installation),
        *_tried("sqlite", host.check_sqlite),
        *_tried("clock", host.check_clock),
    ]
    found += _tried("systemd", host.check_systemd)
    try:
        config = load(config_path)
    except ConfigError as error:
        remedy = "correct it; everything that depends on it was not looked at"
        return [*found, *host.check_limits(0, 0), problem("configuration", str(error), remedy)]
    return [*found, *_examine_configured(config)]


def _examine_configured(config: Config) -> Iterator[Finding]:
    count = len(config.strategies)
    yield _judge_configuration(config)
    yield from _tried("code", lambda: place.check_configuration_files(config))
    paths = DatabasePaths.of(config.database.path)
    durability = config.database.durability
    yield from _tried("permissions", lambda: place.check_permissions(paths))
    yield from _tried("file system", lambda: place.check_file_system(paths, durability))
    yield from _tried("disk space", lambda: place.check_space(paths.database.parent, count))
    yield from _tried("disk speed", lambda: place.check_disk_speed(paths, durability))
    supervised = plane.look(config, paths)
    yield from _tried("limits", lambda: host.check_limits(supervised.pid, count))
    yield from _tried("supervisor", lambda: plane.check_supervisor(supervised, paths))
    yield from _tried("metrics port", lambda: plane.check_port(config.metrics, supervised))
    yield from _tried("database", lambda: leftovers.check_leftovers(paths))
    yield from _tried("core files", lambda: place.check_core_files((config.folder, paths.database.parent, paths.folder)))


def _judge_configuration(config: Config) -> Finding:
    if not config.strategies:
        return warning("configuration", f"{config.path} names no strategy", "add a table [strategies.NAME] with its file")
    return ok("configuration", f"{config.path}: {', '.join(config.strategies)}")


def _tried(check: str, look: Callable[[], Finding | Sequence[Finding]]) -> Sequence[Finding]:
    """What a check found, or that it may not look."""
    try:
        found = look()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = "run doctor as the user that runs Horizon, or as root"
        return [warning(check, f"could not be looked at: {where}{error.strerror or error}", remedy)]
    return [found] if isinstance(found, Finding) else found
