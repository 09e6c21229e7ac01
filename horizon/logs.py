"""How Horizon logs: one logger per module, a sentence for people, and a machine key `action` beside it in `extra`.

    log.warning("orphaned orders of %s: %s", strategy, ids, extra={"action": "orphans"})

Nothing is logged in signal handlers, and the road of a fill logs at debug only. What looks like a secret is cut out, by the name
of its key, before it is written anywhere: see `redacted`.

An entry is one record on its way to people: a mapping with time, level, strategy (or the process that is none: writer, gateway,
supervisor), run_id, pid, logger, message, exception, and what was given in `extra`. It is written as one line of JSON or as text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(r"key|secret|token(?!_ids?$)|passw|passphrase|private|credential", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(
    r"""((?:api_?key|secret|token|password|passphrase|private_?key)["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|[^\s,;&)}\]]+)""",
    re.IGNORECASE,
)
# Escapes, and what turns the direction of writing: both can make a line look like another one.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}")
EVENTS = "events"  # the file of what the supervisor did
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redacted(values: Mapping[str, object]) -> dict[str, object]:
    """A copy in which everything under a key that sounds like a secret is replaced, at any depth."""
    return {
        str(name): REDACTED if _SECRET_NAME.search(str(name)) and value is not None else _redacted(value)
        for name, value in values.items()
    }


def redacted_text(text: str) -> str:
    """A text without the values of things like `api_key=...`."""
    return _SECRET_IN_TEXT.sub(rf"\g<1>{REDACTED}", text)


class TextFormatter(logging.Formatter):
    """`2025-01-31 12:00:00.123Z WARNING horizon.engine: sentence`, UTC."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%d %H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return redacted_text(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: what `entry_of` says."""

    def format(self, record: logging.LogRecord) -> str:
        return as_json(entry_of(record))


def entry_of(record: logging.LogRecord, process: str = "") -> dict[str, object]:
    """A record as names and values; `process` is the name of the strategy, or of the process that is none."""
    entry: dict[str, object] = {"time": record.created, "level": record.levelname.lower()}
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")}
    run_id = extra.pop("run_id", "")
    entry |= {name: value for name, value in (("strategy", process), ("run_id", run_id), ("pid", record.process)) if value}
    entry |= {"logger": record.name, "message": redacted_text(record.getMessage())}
    entry |= {name: value for name, value in redacted(extra).items() if name not in entry}
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if record.exc_text:
        entry["exception"] = redacted_text(record.exc_text)
    return entry


def as_json(entry: Mapping[str, object]) -> str:
    """One line; a number that JSON does not know becomes its name."""
    return json.dumps({name: _known_to_json(value) for name, value in entry.items()}, default=str)


def as_text(entry: Mapping[str, object]) -> str:
    """`2025-01-31 12:00:00.123Z WARNING mm[4711 RUN_ID] horizon.engine: sentence`, UTC, safe for a terminal.

    Further lines (of a traceback) are set in: none of them can pass for an entry of its own.
    """
    where = " ".join(str(entry[name]) for name in ("pid", "run_id") if entry.get(name))
    who = f"{entry.get('strategy', '')}{f'[{where}]' if where else ''}"
    text = f"{str(entry.get('level', '')).upper()} {who} {entry.get('logger', '')}: {entry.get('message', '')}"
    if entry.get("exception"):
        text += f"\n{entry['exception']}"
    return without_controls(f"{_utc(entry.get('time'))} {text}".rstrip().replace("\n", "\n    "))


def without_controls(text: str) -> str:
    """What a venue's error text must not do to a terminal. Line feed and tab stay."""
    return _CONTROL.sub("?", text)


def log_file_name(process: str) -> str:
    """The file of a process in the folder of logs. A name that is no file name, or that of another file, is told by its hash."""
    if _FILE_NAME.fullmatch(process) and process != EVENTS:
        return f"{process}.log"
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", process)[:40]
    return f"{readable}+{hashlib.sha256(process.encode()).hexdigest()[:16]}.log"


def older_files(path: Path) -> list[tuple[int, Path]]:
    """What `mm.log` was before it was rotated: `mm.log.1` is the newest of them and comes first."""
    numbers: list[int] = []
    with suppress(FileNotFoundError):
        for other in path.parent.iterdir():
            name, _, number = other.name.rpartition(".")
            if name == path.name and number.isdecimal():
                numbers.append(int(number))
    return [(number, path.with_name(f"{path.name}.{number}")) for number in sorted(numbers)]


def log_to(stream: IO[str] = sys.stderr, level: int = logging.INFO, as_json: bool = False) -> None:
    """Write the whole program's log to a stream, unless the program has set up logging by itself."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level)


def _redacted(value: object) -> object:
    if isinstance(value, Mapping):
        return redacted(value)
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return redacted_text(value) if isinstance(value, str) else value


def _known_to_json(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    # More digits than Python prints, and than any reader takes.
    return hex(value) if isinstance(value, int) and value.bit_length() > 63 else value


def _utc(timestamp: object) -> str:
    try:
        return f"{datetime.fromtimestamp(float(str(timestamp)), UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"
    except (ValueError, OverflowError, OSError):
        return "-"
