"""What the operator wrote: `horizon.toml` as frozen structs, and the HORIZON_* variables. Nobody else reads either.

An unknown or wrong key is refused with its place in the file, before any process starts. Paths in the file are relative to the file.
What only user code can judge (a venue's or feed's constructor, a strategy file's imports) is judged in the worker.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from horizon.errors import ConfigError
from horizon.paths import DatabasePaths

DATABASE_VARIABLE = "HORIZON_DB"
DEFAULT_FILE = "horizon.toml"
DEFAULT_DATABASE = "horizon.db"
CONFIG_VARIABLE = "HORIZON_CONFIG"
SYSTEM_FILE = Path("/etc/horizon/horizon.toml")
# What commands call the processes that are no strategies, and all of them.
RESERVED_NAMES = ("all", "writer", "gateway", "supervisor")
BUILT_IN_VENUES = ("paper",)
BUILT_IN_FEEDS = ("simulated", "replay")

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Durability = Literal["process", "power"]
OrphanPolicy = Literal["warn", "cancel", "hold"]
Intent = Literal["journal", "committed"]
OnHang = Literal["restart", "alert"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]


class Database(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: Path = Path(DEFAULT_DATABASE)
    durability: Durability = "process"  # "power": what is acknowledged survives a power cut too


class Supervision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stop_timeout_s: Seconds = 20.0  # what a worker, and after them the writer, has to drain before it is killed
    start_timeout_s: Seconds = 30.0  # to load a strategy's file; systemd is told "ready" at the latest then
    recovery_timeout_s: Seconds = 300.0  # to recover; stands still while the writer or its disk has to be waited for
    venue_timeout_s: Seconds = 60.0  # one call of a venue
    degraded_after_s: Seconds = 3.0  # without a heartbeat
    hang_after_s: Seconds = 10.0  # without a heartbeat: what on_hang says
    probe_max_age_s: Seconds = 15.0  # the writer's last commit is younger than that, or the database does not count as alive
    start_limit_burst: Annotated[int, msgspec.Meta(ge=0)] = (
        5  # starts after crashes within the interval, then quarantine; 0: no limit
    )
    start_limit_interval_s: Seconds = 300.0
    control_socket: Path | None = None  # default: control.sock in the folder beside the database


class Logs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stream on stderr, and one rotating file of JSON lines per process."""

    format: LogFormat = "text"  # of the stream
    level: LogLevel = "info"
    folder: Path | None = None  # default: logs in the folder beside the database
    max_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 10_000_000  # of one file
    keep: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5  # older files of one process


class MetricsServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway serves /metrics, /healthz, /readyz and /status."""

    enabled: bool = True
    address: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 9100


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one strategy's processes may take of the host. None: no limit."""

    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] | None = None
    cpus: list[Annotated[int, msgspec.Meta(ge=0)]] | None = None
    memory_max_mb: Annotated[int, msgspec.Meta(ge=16)] | None = (
        None  # MiB, with its helpers; above it is killed and started again
    )
    memory_high_mb: Annotated[int, msgspec.Meta(ge=16)] | None = None  # above it an alarm; default: 80 % of memory_max_mb
    open_files: Annotated[int, msgspec.Meta(ge=64)] | None = None


class FeedTable(msgspec.Struct, frozen=True, kw_only=True):
    """One feed. Every key but `type` goes to the constructor of the feed."""

    type: str  # one of BUILT_IN_FEEDS, or "package.module:Name"
    options: dict[str, Any] = {}


class StrategyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One strategy. What is None is left to the arguments of `hz.run` in its file."""

    file: Path
    name: str = ""  # the table's own key unless given
    interval: Seconds | None = None
    exchange: str | None = None  # one of BUILT_IN_VENUES, or "package.module:Name"
    params: dict[str, Any] | None = None
    risk: dict[str, Any] | None = None
    orphans: OrphanPolicy | None = None  # what becomes of orders that a run left open and whose end the venue does not tell
    intent: Intent | None = None  # "committed": an order is sent only when it is a row of the database
    snapshot_every: Annotated[int, msgspec.Meta(ge=1)] | None = None  # cycles
    feeds: dict[str, FeedTable] | None = None
    on_hang: OnHang = "restart"  # "alert": say so and leave it alone
    hang_after_s: Seconds | None = None  # default: that of [supervisor]
    limits: Limits = Limits()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file, checked, with absolute paths."""

    path: Path
    database: Database
    supervisor: Supervision
    logs: Logs
    metrics: MetricsServer
    strategies: dict[str, StrategyTable]  # by name, in the file's order

    @property
    def folder(self) -> Path:
        return self.path.parent

    def only(self, name: str) -> Config:
        """What one worker needs to know: nothing of the other strategies."""
        return msgspec.structs.replace(self, strategies={name: self.strategies[name]})


def load(path: str | Path) -> Config:
    """Read and check a `horizon.toml`. Raises: ConfigError, naming file and key."""
    file = _File(Path(path))
    file.refuse_unknown(file.data, ("database", "supervisor", "logs", "metrics", "strategies"))
    return Config(
        path=file.path.absolute(),
        database=_database(file),
        supervisor=_supervision(file),
        logs=file.decode(Logs, "logs"),
        metrics=file.decode(MetricsServer, "metrics"),
        strategies=_strategies(file),
    )


class Places(NamedTuple):
    """What the commands need that look at a running or a dead supervisor: they work beside a file whose strategies are being changed."""

    database: Database
    logs: Logs
    strategies: list[str]  # names, unchecked

    @classmethod
    def of(cls, path: Path) -> Places:
        """Raises: ConfigError."""
        file = _File(path)
        tables = file.table("strategies")
        names = [str(table["name"]) if isinstance(table, dict) and table.get("name") else key for key, table in tables.items()]
        return cls(_database(file), file.decode(Logs, "logs"), names)


def resolve_config(option: str | Path | None, folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file that a command to a running supervisor means: --config, HORIZON_CONFIG, ./horizon.toml, /etc/horizon/horizon.toml."""
    here = folder or Path.cwd()
    named = option or environ.get(CONFIG_VARIABLE)
    if named:
        return here / Path(named).expanduser()
    return here / DEFAULT_FILE if (here / DEFAULT_FILE).exists() or not SYSTEM_FILE.exists() else SYSTEM_FILE


def resolve_control_socket(
    option: str | Path | None, folder: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Path:
    """Where the supervisor of that file listens. Reads no more of it than that takes: a table that somebody is just writing must not keep
    anybody else from stopping a strategy.

    Raises: ConfigError.
    """
    file = _File(resolve_config(option, folder, environ))
    return file.decode(Supervision, "supervisor").control_socket or DatabasePaths.of(_database(file).path).control_socket


def resolve_database(option: str | Path | None, folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The database a command means: --db, HORIZON_DB, the one of ./horizon.toml, ./horizon.db, the only *.db here.

    Raises: ConfigError, which lists what lies here.
    """
    here = folder or Path.cwd()
    named = option or database_variable(environ)
    if named:
        return here / Path(named).expanduser()
    if (here / DEFAULT_FILE).exists():
        return _database(_File(here / DEFAULT_FILE)).path
    found = sorted(path for path in here.glob("*.db") if path.is_file())
    if here / DEFAULT_DATABASE in found:
        return here / DEFAULT_DATABASE
    if len(found) == 1:
        return found[0]
    lies = f"these lie here: {', '.join(path.name for path in found)}" if found else "no *.db and no horizon.toml lies here"
    raise ConfigError(f"which database? Say --db PATH or set {DATABASE_VARIABLE}; in {here} {lies}")


def database_variable(environ: Mapping[str, str] = os.environ) -> Path | None:
    """HORIZON_DB, where it is set and not empty."""
    value = environ.get(DATABASE_VARIABLE)
    return Path(value) if value else None


T = TypeVar("T")


class _File:
    """One parsed file, and the sentences about its keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Editors of another system begin a file with a mark that TOML does not know.
            self.data = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path} does not exist; name another with --config, or let `horizon init DIR` write one"
            ) from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {_explain_toml(str(error))}") from error

    def wrong(self, keys: Iterable[str], sentence: str) -> ConfigError:
        return ConfigError(f"{self.path}: {_dotted(keys)}: {sentence}")

    def table(self, *keys: str) -> dict[str, Any]:
        value: Any = self.data
        for key in keys:
            value = value.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(keys, f"expected a table, got {value!r}")
        return value

    def decode(self, kind: type[T], *keys: str, apart: tuple[str, ...] = ()) -> T:
        """One table, without the tables in it that are read `apart`: so every error belongs to a key of this one."""
        table = self.table(*keys)
        self.refuse_unknown(table, kind.__struct_fields__, *keys)  # type: ignore[attr-defined]
        own = {key: value for key, value in table.items() if key not in apart}
        try:
            return msgspec.convert(own, kind, dec_hook=self._path_value)
        except msgspec.ValidationError as error:
            key, sentence = _explain(str(error), table, kind)
            raise self.wrong((*keys, key), sentence) from error

    def refuse_unknown(self, table: dict[str, Any], known: Iterable[str], *keys: str) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
                raise self.wrong((*keys, key), f"unknown key; {hint}")

    def _path_value(self, kind: type, value: object) -> object:
        if kind is Path and isinstance(value, str) and value and "\0" not in value:
            # Absolute, but with its own name: which file a link leads to is the business of whoever opens it.
            return Path(os.path.normpath(self.path.parent.absolute() / Path(value).expanduser()))
        raise ValueError("Expected `path`")


def _database(file: _File) -> Database:
    database = file.decode(Database, "database")
    if not database.path.is_absolute():
        database = msgspec.structs.replace(database, path=file.path.parent.absolute() / database.path)
    if not database.path.parent.is_dir():
        raise file.wrong(("database", "path"), f"the folder {database.path.parent} does not exist")
    if database.path.is_dir():
        raise file.wrong(("database", "path"), f"{database.path} is a folder, not a database")
    return database


def _supervision(file: _File) -> Supervision:
    supervision = file.decode(Supervision, "supervisor")
    if supervision.hang_after_s < supervision.degraded_after_s:
        raise file.wrong(
            ("supervisor", "hang_after_s"), f"must not be less than degraded_after_s, which is {supervision.degraded_after_s:g}"
        )
    return supervision


def _strategies(file: _File) -> dict[str, StrategyTable]:
    strategies: dict[str, StrategyTable] = {}
    key_of: dict[str, str] = {}
    for key in file.table("strategies"):
        strategy = _strategy(file, key)
        if strategy.name in strategies:
            raise file.wrong(
                ("strategies", key, "name"),
                f"{strategy.name!r} is already the name of strategies.{key_of[strategy.name]}; "
                "a strategy's fills and positions are kept under its name, so each needs its own",
            )
        strategies[strategy.name] = strategy
        key_of[strategy.name] = key
    return strategies


def _strategy(file: _File, key: str) -> StrategyTable:
    keys = ("strategies", key)
    strategy = file.decode(StrategyTable, *keys, apart=("feeds", "limits"))
    limits = file.decode(Limits, *keys, "limits")
    if (limits.memory_high_mb or 0) > (limits.memory_max_mb or float("inf")):
        raise file.wrong((*keys, "limits", "memory_high_mb"), f"the alarm must come before memory_max_mb, {limits.memory_max_mb}")
    name = strategy.name or key
    if name in RESERVED_NAMES:
        raise file.wrong(keys, f"{name!r} cannot be a strategy's name: commands use that word for something else")
    if not name.isprintable() or name != name.strip() or not name or len(name) > 100:
        raise file.wrong(keys, f"{name!r} cannot be a strategy's name: 1 to 100 printable characters, no space at either end")
    if not strategy.file.is_file():
        raise file.wrong((*keys, "file"), f"{strategy.file} {'is not a file' if strategy.file.exists() else 'does not exist'}")
    if strategy.exchange is not None:
        _check_kind(file, (*keys, "exchange"), strategy.exchange, BUILT_IN_VENUES)
    feeds = None
    if "feeds" in file.table(*keys):
        feeds = {feed: _feed(file, (*keys, "feeds", feed)) for feed in file.table(*keys, "feeds")}
    return msgspec.structs.replace(strategy, name=name, feeds=feeds, limits=limits)


def _feed(file: _File, keys: tuple[str, ...]) -> FeedTable:
    options = dict(file.table(*keys))
    kind = options.pop("type", None)
    if not isinstance(kind, str):
        wrong = "missing" if kind is None else f"got {kind!r}"
        raise file.wrong((*keys, "type"), f'{wrong}; expected {_one_of(BUILT_IN_FEEDS)} or "package.module:Name"')
    _check_kind(file, (*keys, "type"), kind, BUILT_IN_FEEDS)
    return FeedTable(type=kind, options=options)


def _check_kind(file: _File, keys: tuple[str, ...], kind: str, built_in: tuple[str, ...]) -> None:
    module, colon, name = kind.partition(":")
    if kind not in built_in and not (colon and module and name):
        raise file.wrong(keys, f'expected {_one_of(built_in)} or "package.module:Name", got {kind!r}')


_TOML_TWICE = re.compile(r"Cannot declare \((.*?),?\) twice \((.*)\)")


def _explain_toml(error: str) -> str:
    twice = _TOML_TWICE.fullmatch(error)
    if twice:
        table = ".".join(part.strip().strip("'\"") for part in twice[1].split(","))
        return f"the table [{table}] is declared a second time ({twice[2]}); two strategies need two names"
    return f"not valid TOML: {error}"


_TYPES = {
    "path": "a path",
    "float": "a number",
    "int": "a whole number",
    "str": "a text",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
}
_MISSING = re.compile(r"Object missing required field `(.+)`")
_WRONG = re.compile(r"(?P<what>.*?)(?:, got `.*?`)? - at `\$\.(?P<key>\w+).*`")


def _explain(error: str, table: dict[str, Any], kind: type) -> tuple[str, str]:
    """The key and the sentence of a msgspec error about a flat table."""
    missing = _MISSING.fullmatch(error)
    if missing:
        return missing[1], "missing"
    wrong = _WRONG.fullmatch(error)
    assert wrong, error
    key = wrong["key"]
    what = re.sub(r"`(\w+)[^`]*`", lambda match: _TYPES.get(match[1], match[1]), wrong["what"]).replace("Expected", "expected")
    words = _words(get_type_hints(kind)[key])
    if words:
        what = f"expected {_one_of(words)}"
    return key, f"{what}, got {table[key]!r}"


def _words(annotation: Any) -> tuple[str, ...]:
    """The texts that a key may have, where only some may be."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((words for one in get_args(annotation) if (words := _words(one))), ())


def _one_of(values: Iterable[str]) -> str:
    return " or ".join(f'"{value}"' for value in values)


def _dotted(keys: Iterable[str]) -> str:
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in keys)
