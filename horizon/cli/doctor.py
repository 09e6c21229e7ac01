"""`horizon doctor`: what is wrong with this host, and what to do about it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from horizon.cli.operating import AS_JSON
from horizon.cli.output import emit, emit_json
from horizon.cli.steering import CONFIG
from horizon.cli.text import counted, one_line
from horizon.config import resolve_config
from horizon.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from horizon.doctor.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(short_help="Check this host, and say what to do.")
@CONFIG
@AS_JSON
def doctor(config: Path | None, as_json: bool) -> ExitCode:
    """Check this host: versions, permissions, disk, clock, limits, port, leftovers.

    Each finding says what to do. Nothing is changed, and no supervisor is needed. Exit code 8 says that there are warnings or problems.
    """
    from horizon.doctor.examine import examine

    findings = examine(resolve_config(config))
    if as_json:
        emit_json([finding._asdict() for finding in findings])
    else:
        emit("\n".join(_told(findings, sys.stdout.isatty() and not os.environ.get("NO_COLOR"))))
    return ExitCode.DONE if all(finding.level == "ok" for finding in findings) else ExitCode.FINDINGS


def _told(findings: Sequence[Finding], in_colour: bool) -> list[str]:
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        level = f"{finding.level:<7}"
        shown = click.style(level, fg=_COLOURS[finding.level]) if in_colour else level
        lines.append(f"{shown}  {finding.check:<{width}}  {one_line(finding.sentence)}")
        if finding.remedy:
            lines.append(f"{' ' * (len(level) + width + 4)}-> {one_line(finding.remedy)}")
    wrong = [counted(sum(finding.level == level for finding in findings), level) for level in ("problem", "warning")]
    return [*lines, "", f"{counted(len(findings), 'finding')}: {', '.join(wrong)}"]
