"""What each strategy may do: the latch of its kill switch, and its hold. One row a strategy, which only the writer changes.

A gap that nobody has accepted holds its strategy like a hold that a person asked for (R13), and no release lifts it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import apsw

from horizon.records import RiskEvent, RiskEventType
from horizon.store.sql import QUERIES
from horizon.wire import Control


class UnacceptedGap(NamedTuple):
    """Records of a run that no journal holds any more, and that nobody has accepted as lost (R13)."""

    run_id: str
    from_seq: int
    to_seq: int
    reason: str
    recorded_at: float


def control_of(connection: apsw.Connection, strategy: str) -> Control:
    """What one strategy may do."""
    row = connection.execute(QUERIES["controls_of"], {"strategy": strategy}).fetchone()
    control = Control() if row is None else Control(*row)
    return _held_by_gaps(control, gaps_of(connection, strategy))


def all_controls(connection: apsw.Connection) -> dict[str, Control]:
    """What every strategy may do that is not free to do everything."""
    controls = {strategy: Control(*values) for strategy, *values in connection.execute(QUERIES["controls"])}
    gaps: dict[str, list[UnacceptedGap]] = {}
    for strategy, *values in connection.execute(QUERIES["gaps"]):
        gaps.setdefault(strategy, []).append(UnacceptedGap(*values))
    for strategy, missing in gaps.items():
        controls[strategy] = _held_by_gaps(controls.get(strategy, Control()), missing)
    return controls


def gaps_of(connection: apsw.Connection, strategy: str) -> tuple[UnacceptedGap, ...]:
    """The gaps of a strategy that nobody has accepted, oldest first."""
    return tuple(UnacceptedGap(*row) for row in connection.execute(QUERIES["gaps_of"], {"strategy": strategy}))


def latch(connection: apsw.Connection, strategy: str, event: RiskEvent, who: str) -> None:
    """Let the kill switch follow a risk event, in the transaction that stores it. One that is on keeps its first reason."""
    values = {"strategy": strategy, "at": event.timestamp, "who": who}
    if event.event_type is RiskEventType.KillSwitchActivated:
        connection.execute(QUERIES["turn_on_kill_switch"], {**values, "reason": event.details or "no reason was given"})
    elif event.event_type is RiskEventType.KillSwitchDeactivated:
        connection.execute(QUERIES["turn_off_kill_switch"], values)


def _held_by_gaps(control: Control, gaps: Iterable[UnacceptedGap]) -> Control:
    missing = [f"{gap.from_seq} to {gap.to_seq} of run {gap.run_id}" for gap in gaps]
    if not missing:
        return control
    reason = f"records {', '.join(missing)} are missing, and nobody has accepted that"
    return Control(control.kill_switch, f"{control.hold}; {reason}" if control.hold else reason, control.released_at)
