"""Which numbers of the configuration a process is judged by: how long it may be silent, and how often it may crash."""

from __future__ import annotations

from horizon.config import Config
from supervisor.liveness import Limits, Verdict, judge
from supervisor.policy import judge_worker, judge_writer
from supervisor.slot import Slot
from supervisor.worker_states import Rules

# A writer that waits for a slow disk is silent too, and a new one would wait for the same disk.
_WRITER_HANGS_AFTER_S = 30.0


def rules_of(slot: Slot, config: Config) -> Rules:
    supervision = config.supervisor
    return Rules(
        judge_writer if slot.kind == "writer" else judge_worker,
        supervision.start_limit_burst,
        supervision.start_limit_interval_s,
        can_be_reset=slot.kind == "strategy",
    )


def verdict_of(slot: Slot, now: float, config: Config) -> Verdict:
    assert slot.watch is not None
    return judge(slot.watch, now, _limits_of(slot, config))


def leaves_hangs_alone(slot: Slot, config: Config) -> bool:
    """Whether a hang is only said, because killing the process may do more harm than its silence."""
    table = config.strategies.get(slot.name) if slot.kind == "strategy" else None
    return table is not None and table.on_hang == "alert"


def _limits_of(slot: Slot, config: Config) -> Limits:
    supervision = config.supervisor
    hung_s, loading_s = supervision.hang_after_s, supervision.start_timeout_s
    if slot.kind == "writer":
        # Before it is ready it drains what the last one left.
        hung_s, loading_s = max(_WRITER_HANGS_AFTER_S, hung_s), supervision.recovery_timeout_s
    elif slot.kind == "strategy" and (table := config.strategies.get(slot.name)) is not None:
        hung_s = table.hang_after_s or hung_s
    return Limits(
        late_s=supervision.degraded_after_s,
        hung_s=hung_s,
        loading_s=loading_s,
        recovering_s=supervision.recovery_timeout_s,
        venue_s=supervision.venue_timeout_s,
    )
