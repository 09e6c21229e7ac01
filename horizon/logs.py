"""How Horizon logs: one logger per module, a sentence for people, and a machine key `action` beside it in `extra`.

    log.warning("orphaned orders of %s: %s", strategy, ids, extra={"action": "orphans"})

Nothing is logged in signal handlers, and the road of a fill logs at debug only. What looks like a secret is cut out, by the name
of its key, before it is written anywhere: see `redacted`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import IO

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(r"key|secret|token(?!_ids?$)|passw|passphrase|private|credential", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(
    r"""((?:api_?key|secret|token|password|passphrase|private_?key)["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|[^\s,;&)}\]]+)""",
    re.IGNORECASE,
)
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
    """One JSON object a line: time, level, logger, message, and everything given in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted_text(record.getMessage()),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")}
        line |= redacted(extra)
        if record.exc_info:
            line["exception"] = redacted_text(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


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
