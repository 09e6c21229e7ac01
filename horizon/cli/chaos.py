"""`horizon chaos`: kill everything again and again on this machine and this disk, and show that nothing was lost."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from horizon.cli.output import emit_json, emit_table, remark
from horizon.cli.text import Column, counted, duration, rounded
from horizon.errors import ExitCode

if TYPE_CHECKING:
    from horizon.chaos.run import Report


@click.command()
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True, metavar="N", help="Strategies that record.")
@click.option(
    "--kills", type=click.IntRange(min=1), default=200, show_default=True, metavar="N", help="How often something dies."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=290.0,
    show_default=True,
    metavar="S",
    help="No kill comes later than this.",
)
@click.option("--seed", type=int, metavar="X", help="Repeat the plan of an earlier run (default: a new one, which is shown).")
@click.option("--durability", type=click.Choice(["process", "power"]), default="process", show_default=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Try the disk of this folder (default: where temporary files lie).",
)
@click.option("--small-disk", is_flag=True, help="Let the disk of the database fill up, too: a small one in memory. Needs root.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def chaos(
    workers: int,
    kills: int,
    seconds: float,
    seed: int | None,
    durability: str,
    folder: Path | None,
    small_disk: bool,
    as_json: bool,
) -> int:
    """Kill everything at random, and count what was lost.

    Strategies trade on a database of their own while the workers, the writer, the supervisor and all of them at once get SIGKILL. An
    independent log, written before and after each record, is then compared with the database, row by row. Exit code 8 when anything
    is missing, doubled, out of order or changed, or a position is off.
    """
    from horizon.chaos.run import Trial, run

    seed = random.randrange(1_000_000) if seed is None else seed  # noqa: S311
    where = Path(tempfile.gettempdir()) if folder is None else folder
    remark(
        f"chaos with seed {seed}: {counted(kills, 'kill')}, {counted(workers, 'worker')}, durability {durability!r}, in {where}"
    )
    report = run(Trial(workers, kills, seconds, seed, durability, where, small_disk), say=_progress)
    if as_json:
        emit_json(report)
    else:
        emit_table((Column(f"seed {report.seed}", cut="end"), Column("", right=True)), _rows(report))
    for sentence in [*report.trouble, *report.verdict.examples]:
        remark(sentence)
    if report.kept_in is not None:
        remark(f"database, journals, logs and the witness's files are kept in {report.kept_in}")
    return ExitCode.DONE if report.is_clean else ExitCode.FINDINGS


def _progress(sentence: str) -> None:
    if sys.stderr.isatty():
        remark(sentence)


def _rows(report: Report) -> list[tuple[str, str]]:
    verdict = report.verdict
    done = sum(report.kills.values())
    asked = "" if done == report.planned else f" of {report.planned}"
    return [
        ("events recorded", f"{verdict.events:,}"),
        ("runs", f"{verdict.runs:,}"),
        ("kills", f"{done}{asked} in {duration(report.lasted_s)}"),
        *((f"  {target}", str(count)) for target, count in report.kills.items()),
        *((f"  within 5 ms after {moment}", str(count)) for moment, count in report.close_kills.items()),
        ("stopped and continued", str(report.pauses)),
        ("disk full", "not tried (--small-disk)" if report.full_disks is None else str(report.full_disks)),
        ("killed within record(), there whole or not at all", str(verdict.in_flight)),
        ("fills with a known id and other content, in dlq.db", str(verdict.dead_letters)),
        ("lost", str(verdict.lost)),
        ("duplicated", str(verdict.duplicated)),
        ("out of order", str(verdict.out_of_order)),
        ("altered", str(verdict.altered)),
        ("stored, never recorded", str(verdict.invented)),
        ("executed, never recorded", f"{verdict.missed} of {verdict.executions:,}"),
        ("dead letters that should be rows", str(verdict.dead_lettered)),
        ("journals left", str(verdict.journals_left)),
        ("positions off, bit by bit", f"{verdict.positions_off} of {verdict.states:,}"),
        ("longest gap without commits", _seconds(report.longest_gap_s)),
        ("recovery, kill to first new commit: median", _seconds(report.recovery_median_s)),
        ("recovery, kill to first new commit: max", _seconds(report.recovery_max_s)),
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{rounded(value, 2)} s"
