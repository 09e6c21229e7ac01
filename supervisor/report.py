"""What `horizon up` says at its end: what each strategy did, whether all of it is stored, and how to look at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from supervisor.loop import Supervisor
from supervisor.policy import describe_end
from supervisor.slot import Slot


def report(supervisor: Supervisor, database: Path) -> list[str]:
    """Lines for a person; the figures are the last that each strategy sent."""
    left = supervisor.left_journals()
    width = max(len(slot.name) for slot in supervisor.workers)
    strange = [path for path in left if not any(path.stem in slot.runs for slot in supervisor.workers)]
    return [
        "",
        f"Recorded in {database}:",
        *(f"  {slot.name:<{width}}  {_did(slot)}; {_stored(slot, left)}" for slot in supervisor.workers),
        *(f"  {path} holds records of a run that never became ready; they are stored at the next start" for path in strange),
        "Look at it with:",
        *(f"  horizon {command} --db {database}" for command in ("fills", "positions", "orders", "runs")),
    ]


def _did(slot: Slot) -> str:
    did = slot.did
    words = f"{did.cycles} cycles, {did.orders} orders, {did.fills} fills"
    if did.starts > 1:
        words += f", {did.starts} starts"
    if slot.exit_code:
        words += f", {describe_end(slot.exit_code)}"
    return words


def _stored(slot: Slot, left: Sequence[Path]) -> str:
    """The journals decide: the writer removes one when all of it is stored."""
    own = [path for path in left if path.stem in slot.runs]
    if not own:
        return "nothing unacknowledged"
    return f"{slot.unacked} records unacknowledged by its last word, kept in {', '.join(map(str, own))} for the next start"
