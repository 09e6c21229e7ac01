"""`horizon db`: check, back up, restore, measure and upgrade a database. Nothing here needs a supervisor."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from horizon.cli.database import DATABASE, database_to_read
from horizon.cli.operating import AS_JSON, TIMEOUT, YES, confirm
from horizon.cli.output import emit, emit_json, remark
from horizon.cli.text import counted, utc
from horizon.clock import SYSTEM_CLOCK
from horizon.config import resolve_database
from horizon.errors import ConfigError, ExitCode, StoreError
from horizon.paths import DatabasePaths

if TYPE_CHECKING:
    from horizon.store.check import Report
    from horizon.store.stats import Stats

_PATIENCE_S = 1.0  # before a person wants to know how far it is


@click.group()
def db() -> None:
    """Check, back up, restore and measure a database."""


@db.command("check")
@DATABASE
@AS_JSON
def check_(db: Path | None, as_json: bool) -> ExitCode:
    """Check that nothing is lost, twice, or wrong.

    Every record of every run is accounted for, all fills are folded again and compared with the snapshots, orders are followed through
    their events, and journals that were left over are named. It reads beside a running writer, a large database with all processors, and
    changes nothing. The processes that it starts have the lowest priority: trading goes first. Exit code 8 says that something is wrong.
    """
    from horizon.store.check import check

    with _progress() as tell:
        report = check(DatabasePaths.of(database_to_read(db)), tell=tell)
    if as_json:
        emit_json({**report._asdict(), "findings": [finding._asdict() for finding in report.findings]})
    else:
        emit("\n".join(_described(report)))
    return ExitCode.FINDINGS if report.findings else ExitCode.DONE


@db.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@DATABASE
@TIMEOUT
@AS_JSON
def backup(path: Path, db: Path | None, timeout_s: float, as_json: bool) -> ExitCode:
    """Copy the database to PATH while trading goes on, and check the copy.

    A folder gets a file with a dated name. What was recorded before the command and is not in the copy is named, with exit code 8.
    """
    from horizon.store.backup import back_up

    made = back_up(DatabasePaths.of(database_to_read(db)), path, timeout_s)
    report = made.report
    if as_json:
        findings = [finding._asdict() for finding in report.findings]
        emit_json({**made._asdict(), "report": {**report._asdict(), "findings": findings}})
    else:
        missing = [f"not in it: {what}" for what in made.not_in_it]
        emit("\n".join([f"copied to {made.path} ({made.size_bytes} bytes)", *missing, *_described(report)]))
    return ExitCode.FINDINGS if report.findings or made.not_in_it else ExitCode.DONE


@db.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@DATABASE
@click.option("--anyway", is_flag=True, help="Also a backup in which something is wrong, or after which records are missing.")
@YES
@AS_JSON
def restore(path: Path, db: Path | None, anyway: bool, yes: bool, as_json: bool) -> ExitCode:
    """Put the backup PATH in the place of the database, and keep what was there under a dated name.

    Refused while a writer, a supervisor or a strategy uses the database; and, unless --anyway, when the check of the backup finds
    something (exit code 8) or when journals beside the database go on where the backup does not reach.
    """
    from horizon.store.backup import consequences, restore, taken_back
    from horizon.store.check import check

    paths = DatabasePaths.of(resolve_database(db))
    report = check(DatabasePaths.of(path))
    if report.findings and not anyway:
        remark("\n".join([*_described(report), "nothing was restored; --anyway restores it as it is"]))
        return ExitCode.FINDINGS
    told = consequences(path, paths)
    if told and not anyway:
        raise StoreError(f"{'; '.join(told)}. Nothing was restored: take a newer backup, or say --anyway")
    back = taken_back(path, paths)
    newer = f"{paths.database} has {_taken_back(*back)} that {path} lacks. " if any(back) else ""
    confirm(f"{newer}Put {path} in the place of {paths.database}?", yes)
    done = restore(path, paths)
    if as_json:
        emit_json(done._asdict())
    else:
        lines = [f"restored {done.database} from {path}", *(f"what was there is kept as {name}" for name in done.kept)]
        if done.runs_taken_back or done.records_taken_back:
            lines.append(f"taken back, as the backup lacks them: {_taken_back(done.runs_taken_back, done.records_taken_back)}")
        emit("\n".join([*lines, *done.consequences]))
    return ExitCode.DONE


@db.command("stats")
@DATABASE
@AS_JSON
def stats_(db: Path | None, as_json: bool) -> None:
    """Show sizes, rows and runs."""
    from horizon.store.stats import stats

    found = stats(DatabasePaths.of(database_to_read(db)))
    if as_json:
        emit_json(found._asdict())
    else:
        emit("\n".join(_measured(found)))


@db.command()
@DATABASE
@click.option("--dry-run", is_flag=True, help="Only say what an upgrade would do.")
@AS_JSON
def migrate(db: Path | None, dry_run: bool, as_json: bool) -> None:
    """Say what an upgrade of the schema would do.

    The upgrade itself is done by the first writer that opens the database, in one transaction, after a copy was made.
    """
    from horizon.store.stats import pending

    path = database_to_read(db)
    if not dry_run:
        raise ConfigError(
            "say --dry-run to see what would be done; the next start of a strategy upgrades the database, and keeps a copy of it"
        )
    found = pending(DatabasePaths.of(path))
    if as_json:
        emit_json(found._asdict())
    elif found.migrations:
        emit(
            "\n".join(
                [f"{path} has schema version {found.schema_version}; to come:", *(f"  {name}" for name in found.migrations)]
            )
        )
    else:
        emit(f"{path} has the newest schema, version {found.newest_version}")


def _taken_back(runs: int, records: int) -> str:
    return f"{counted(runs, 'run')} and {counted(records, 'record')}"


@contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    """One line that says how far the reading is, on a terminal, once it has taken a while; it is gone at the end."""
    began, shown = SYSTEM_CLOCK.monotonic(), ""

    def tell(part: float) -> None:
        nonlocal shown
        said = f"{part:.0%} of the rows read"
        if said != shown and sys.stderr.isatty() and SYSTEM_CLOCK.monotonic() - began > _PATIENCE_S:
            sys.stderr.write(f"\r{said}")
            sys.stderr.flush()
            shown = said

    try:
        yield tell
    finally:
        if shown:
            sys.stderr.write(f"\r{' ' * len(shown)}\r")
            sys.stderr.flush()


def _described(report: Report) -> list[str]:
    looked_at = ", ".join(
        (
            counted(report.runs, "run"),
            counted(report.fills, "fill"),
            counted(report.order_events, "order event"),
            counted(report.snapshots, "snapshot"),
            counted(report.journals, "journal"),
        )
    )
    verdict = f"{counted(len(report.findings), 'finding')}" if report.findings else "nothing wrong"
    return [
        f"checked {shlex.quote(report.database)}: {looked_at}: {verdict}",
        *(f"  {finding.kind}: {finding.text}" for finding in report.findings),
        *(f"  note: {text}" for text in report.remarks),
    ]


def _measured(found: Stats) -> list[str]:
    runs = ", ".join(f"{count} {status}" for status, count in found.runs.items()) or "none"
    values = {
        "database": found.database,
        "id": found.database_id or "- (of the original)",
        "schema": str(found.schema_version),
        "sqlite": found.sqlite,
        "size": f"{found.database_bytes} bytes, {found.free_bytes} of them free",
        "wal": f"{found.wal_bytes} bytes",
        "dead letters": f"{found.dead_letters_bytes} bytes",
        "journals": f"{found.journals}, {found.journal_bytes} bytes",
        **{table: counted(count, "row") for table, count in found.rows.items()},
        "runs": runs,
        "oldest record": utc(found.oldest_recorded_at),
        "newest record": utc(found.newest_recorded_at),
    }
    width = max(map(len, values))
    return [f"{name:<{width}}  {value}" for name, value in values.items()]
