"""`horizon reload`: have the supervisor read its configuration again, and see what that changes before or after."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from horizon.cli.operating import AS_JSON
from horizon.cli.output import emit, emit_json, remark
from horizon.cli.steering import CONFIG, TIMEOUT, Goal, Supervisor, to_be_gone, to_follow, to_run, wait_until
from horizon.cli.text import one_line
from horizon.control import PlanReply, Reload
from horizon.errors import ExitCode


@click.command(short_help="Apply what has changed in horizon.toml.")
@CONFIG
@click.option("--dry-run", is_flag=True, help="Check the file and print what would change; change nothing.")
@TIMEOUT
@AS_JSON
def reload(config: Path | None, dry_run: bool, timeout_s: float, as_json: bool) -> ExitCode:
    """Read horizon.toml again and apply what has changed, all of it or nothing.

    A strategy whose table has changed is started again; new code in its file alone wants `horizon restart`.
    """
    supervisor = Supervisor.of(config, timeout_s)
    plan = supervisor.ask(Reload(dry_run))
    assert isinstance(plan, PlanReply)
    if as_json:
        document = msgspec.to_builtins(plan)
        del document["type"], document["starts"]
        emit_json(document)
    else:
        emit("\n".join(_described(plan)))
    if not plan.applied:
        return ExitCode.DONE
    goals: dict[str, Goal] = {name: to_run() for name in plan.add}
    goals |= {name: to_follow(plan.starts.get(name, -1)) for name in plan.restart}
    goals |= dict.fromkeys(plan.remove, to_be_gone)
    return wait_until(supervisor, goals, timeout_s, say=remark if as_json else emit)


def _described(plan: PlanReply) -> list[str]:
    parts = (("add", plan.add), ("remove", plan.remove), ("restart", plan.restart), ("change at once", plan.live))
    lines = [f"{word:<15} {', '.join(map(one_line, names))}" for word, names in parts if names]
    if not lines:
        return ["nothing has changed"]
    return lines if plan.applied else [*lines, "nothing of this is done yet: this was a dry run"]
