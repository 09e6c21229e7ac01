"""`horizon logs` and `horizon events`: what the processes said, from the files that the supervisor writes. No supervisor is needed."""

from __future__ import annotations

import difflib
import logging
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import click

from horizon.cli.log_reader import Line, LogFile, merged_newest_first, merged_oldest_first
from horizon.cli.output import emit, remark
from horizon.cli.since import since_option
from horizon.cli.steering import CONFIG
from horizon.cli.text import counted
from horizon.config import LogLevel, Places, resolve_config
from horizon.errors import ConfigError, HorizonError
from horizon.logs import EVENTS, as_text, log_file_name
from horizon.paths import DatabasePaths

NEWEST = 100
_OTHERS = ("supervisor", "writer", "gateway")  # processes that are no strategies
_LOOK_EVERY_MS = 200
_AT_ONCE = 500  # lines written with one call

F = TypeVar("F", bound=Callable[..., object])


class Wanted(NamedTuple):
    follow: bool
    since: float | None
    limit: int | None
    as_json: bool


def _asks(command: F) -> F:
    """The options that both commands share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="The lines as they are stored: one JSON object each."),
        click.option(
            "--limit", type=click.IntRange(min=0), metavar="N", help=f"The newest N (default: {NEWEST}, or all of --since)."
        ),
        click.option(
            "--since", callback=since_option, metavar="TIME", help="Since then: 10m, 2h, 1d, ISO 8601 (UTC), or Unix seconds."
        ),
        click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C."),
        CONFIG,
    ):
        command = option(command)
    return command


@click.command(short_help="Show what the processes logged and printed.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_asks
@click.option(
    "--level",
    type=click.Choice(get_args(LogLevel)),
    default="debug",
    metavar="LEVEL",
    help="This bad or worse: debug, info, warning, error, critical.",
)
def logs(names: Sequence[str], config: Path | None, level: str, **options: Any) -> None:
    """Show what strategies, writer, gateway and supervisor logged and printed.

    NAME is a strategy, or one of writer, gateway and supervisor; without one, all of them.
    """
    places = Places.of(resolve_config(config))
    folder = _folder(places)
    least = logging.getLevelNamesMapping()[level.upper()]
    _check(names, places, folder)
    _show(folder, [log_file_name(name) for name in names], Wanted(**options), as_text, lambda entry: _severity(entry) >= least)


@click.command(short_help="Show what the supervisor did.")
@_asks
def events(config: Path | None, **options: Any) -> None:
    """Show what the supervisor did: starts, ends, hangs, quarantines, commands."""
    folder = _folder(Places.of(resolve_config(config)))
    _show(folder, [f"{EVENTS}.log"], Wanted(**options), _as_event, lambda _: True)


def _folder(places: Places) -> Path:
    return places.logs.folder or DatabasePaths.of(places.database.path).logs


def _check(names: Sequence[str], places: Places, folder: Path) -> None:
    """Raises: ConfigError for a name that is nobody's."""
    for name in names:
        if name in (*places.strategies, *_OTHERS) or (folder / log_file_name(name)).exists():
            continue
        known = [*places.strategies, *_OTHERS, *_named_in(folder)]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(dict.fromkeys(known))}"
        raise ConfigError(f"there is no log of {name!r}; {hint}")


def _named_in(folder: Path) -> Iterator[str]:
    """Strategies that are in no configuration any more."""
    for path in _paths(folder):
        file = LogFile(path)
        newest = next(file.newest_first(), None)
        file.close()
        if newest is not None:
            yield str(newest.entry.get("strategy", ""))


def _paths(folder: Path) -> list[Path]:
    """Raises: HorizonError."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(".log") and path.name != f"{EVENTS}.log")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HorizonError(f"{folder} cannot be read: {error.strerror}") from error


def _show(
    folder: Path,
    names: Sequence[str],
    wanted: Wanted,
    text_of: Callable[[dict[str, Any]], str],
    is_wanted: Callable[[dict[str, Any]], bool],
) -> None:
    """Raises: HorizonError."""
    paths = [folder / name for name in names] or _paths(folder)
    files = {path: LogFile(path) for path in paths}

    def emitted(lines: Iterable[Line]) -> bool:
        texts = (line.raw if wanted.as_json else text_of(line.entry) for line in lines if is_wanted(line.entry))
        while some := list(islice(texts, _AT_ONCE)):
            if not emit("\n".join(some)):
                return False
        return True

    try:
        if not emitted(_of_the_past(files.values(), wanted, is_wanted)):
            return
        if not wanted.follow and not any(path.exists() for path in files):
            remark(f"nothing is logged in {folder} yet")
        if wanted.follow:
            _follow(folder, files, not names, emitted)
        unreadable = sum(file.unreadable for file in files.values())
        if unreadable:
            remark(f"{counted(unreadable, 'line')} left out: cut off when the supervisor was killed")
    except OSError as error:
        raise HorizonError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    finally:
        for file in files.values():
            file.close()


def _of_the_past(files: Iterable[LogFile], wanted: Wanted, is_wanted: Callable[[dict[str, Any]], bool]) -> Iterable[Line]:
    if wanted.since is None:
        lines = (line for line in merged_newest_first(files) if is_wanted(line.entry))
        if wanted.limit == 0:
            next(lines, None)  # so that `new` knows where to go on
        newest = list(islice(lines, NEWEST if wanted.limit is None else wanted.limit))
        return newest[::-1]
    since: Iterable[Line] = merged_oldest_first(files, wanted.since)
    if wanted.limit is None:
        return since
    return deque((line for line in since if is_wanted(line.entry)), maxlen=wanted.limit)


def _follow(folder: Path, files: dict[Path, LogFile], all_: bool, emitted: Callable[[Iterable[Line]], bool]) -> None:
    """Until Ctrl-C, or until nobody reads us any more: the pipe of `| head` says so without being written to."""
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    while True:
        for path in _paths(folder) if all_ else ():
            files.setdefault(path, LogFile(path))
        came = sorted((line for file in files.values() for line in file.new()), key=lambda line: line.time)
        if not emitted(came):
            return
        for file in files.values():
            if file.rotated_away:
                file.rotated_away = False
                remark(f"{file.path.name} was rotated away before all of it was read here")
        if not came and reader.poll(_LOOK_EVERY_MS):
            return


def _severity(entry: dict[str, Any]) -> int:
    return logging.getLevelNamesMapping().get(str(entry.get("level", "")).upper(), logging.CRITICAL)


def _as_event(entry: dict[str, Any]) -> str:
    about = {name: value for name, value in entry.items() if name not in ("pid", "run_id")}
    return as_text(
        about
        | {"strategy": entry.get("about", entry.get("strategy", "")), "logger": entry.get("action", entry.get("logger", ""))}
    )
