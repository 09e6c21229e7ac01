"""How everything stands, for those who ask: the answer to `horizon status`, and the line in `systemctl status`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import horizon
from horizon.control import StatusReply, WriterHealth
from supervisor.worker_states import State

if TYPE_CHECKING:
    from supervisor.loop import Supervisor


def status_of(supervisor: Supervisor, uptime_s: float, now: float) -> StatusReply:
    config, beat = supervisor.config, supervisor.writer.writer_beat
    left = {path.stem for path in supervisor.left_journals()}
    strategies = [
        slot.status(now, has_journal=bool(slot.child) or not left.isdisjoint(slot.runs[-1:])) for slot in supervisor.workers
    ]
    others = [slot.status(now) for slot in (supervisor.writer, supervisor.gateway) if slot is not None]
    return StatusReply(
        version=horizon.__version__,
        pid=os.getpid(),
        database=str(config.database.path),
        config=str(config.path),
        uptime_s=uptime_s,
        loop_lag_ms=supervisor.pace.lag_ms,
        is_stopping=supervisor.is_stopping,
        probe_max_age_s=config.supervisor.probe_max_age_s,
        writer=_health(supervisor, now) if beat is not None else WriterHealth(commit_age_s=None),
        processes=[*strategies, *others],
        log_dropped=supervisor.sink.dropped if supervisor.sink is not None else 0,
        why_no_groups=supervisor.why_no_groups,
    )


def is_up(supervisor: Supervisor) -> bool:
    """Whether the start is over: the writer is ready, and every wanted strategy is ready, done or in quarantine."""
    return supervisor.writer.is_ready and all(
        slot.is_ready or slot.life.is_done or not slot.life.wanted or slot.life.state is State.QUARANTINED
        for slot in supervisor.workers
    )


def status_line(supervisor: Supervisor) -> str:
    """`3/4 ready, 1 quarantined: momentum`."""
    wanted = [slot for slot in supervisor.workers if slot.life.wanted and not slot.life.is_done]
    words = [f"{sum(slot.life.state is State.READY for slot in wanted)}/{len(wanted)} ready"]
    for state in (State.QUARANTINED, State.BACKOFF, State.DEGRADED, State.STARTING):
        names = [slot.name for slot in wanted if slot.life.state is state]
        if names:
            words.append(f"{len(names)} {state.value}: {', '.join(names)}")
    if not supervisor.writer.is_ready:
        words.append(f"the writer is {supervisor.writer.life.state.value}")
    return ("stopping: " if supervisor.is_stopping else "") + ", ".join(words)


def _health(supervisor: Supervisor, now: float) -> WriterHealth:
    writer, beat = supervisor.writer, supervisor.writer.writer_beat
    assert beat is not None
    assert writer.heard_at is not None
    # The age was told some time ago, and grows.
    return WriterHealth(beat.commit_age_s + now - writer.heard_at, beat.stalled, beat.committed, beat.dead_letters)
