"""The moment after `--since`: Unix seconds, ISO 8601, or how long ago."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

import click

from horizon.clock import SYSTEM_CLOCK

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def since_option(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The callback of a click option. Raises: click.BadParameter."""
    if value is None:
        return None
    moment = moment_of(value.strip(), SYSTEM_CLOCK.now())
    if moment is None:
        raise click.BadParameter(
            f"{value!r} is no time: say 10m, 2h, 1d, 2026-11-21, 2026-11-21T09:30:00Z or Unix seconds", param=param
        )
    return moment


def moment_of(text: str, now: float) -> float | None:
    """Unix seconds, or None for a text that is no time. One without a zone is UTC, like every time that Horizon shows."""
    if ago := _AGO.fullmatch(text):
        return now - float(ago[1]) * _UNITS_S[ago[2]]
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if math.isfinite(seconds) else None
