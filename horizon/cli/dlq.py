"""`horizon dlq`: the records that could not be stored, with their bytes and the reason, and what a person decides about them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horizon.cli.database import DATABASE, database_to_read
from horizon.cli.operating import AS_JSON, YES, confirm, decides, order, tell
from horizon.cli.output import emit, emit_json, emit_table, remark
from horizon.cli.plain import plain
from horizon.cli.text import Column, utc
from horizon.errors import ConfigError
from horizon.paths import DatabasePaths

if TYPE_CHECKING:
    from horizon.store.dead_letters import Decided

NEWEST = 50
_COLUMNS = (
    *(
        Column("captured"),
        Column("strategy", cut="end"),
        Column("kind"),
        Column("run_id", cut="front"),
        Column("seq", right=True),
    ),
    *(Column("decided", dispensable=1), Column("reason", cut="end", dispensable=2)),
)


@click.group()
def dlq() -> None:
    """See and decide about records that could not be stored."""


@dlq.command("list")
@DATABASE
@click.option("--strategy", metavar="NAME", help="Of this strategy only.")
@click.option("--limit", type=click.IntRange(min=1), default=NEWEST, metavar="N", help=f"The newest N instead of {NEWEST}.")
@click.option("--all", "all_", is_flag=True, help="Also those that were replayed or dismissed.")
@AS_JSON
def list_(db: Path | None, strategy: str | None, limit: int, all_: bool, as_json: bool) -> None:
    """List dead letters, newest first."""
    paths = DatabasePaths.of(database_to_read(db))
    letters = _letters(paths, strategy=strategy, limit=limit + 1, all_=all_)
    if as_json:
        emit_json([_row(decided) for decided in letters[:limit]])
    elif letters:
        emit_table(_COLUMNS, [_cells(decided) for decided in letters[:limit]])
    else:
        remark(f"no dead letters{'' if all_ else ' that wait for a decision'} beside {paths.database}")
    if len(letters) > limit:
        remark("more dead letters not shown; see --limit")


@dlq.command()
@click.argument("run_id")
@click.argument("seq", type=click.IntRange(min=1))
@DATABASE
@AS_JSON
def show(run_id: str, seq: int, db: Path | None, as_json: bool) -> None:
    """Show the record SEQ of RUN_ID: why it was not stored, and what it says."""
    from horizon.store.journals import committed_seqs

    paths = DatabasePaths.of(database_to_read(db))
    letters = _letters(paths, run_id=run_id, limit=-1, all_=True)
    found = [decided for decided in letters if decided.letter.seq == seq]
    if not letters and run_id not in committed_seqs(paths):
        raise ConfigError(f"no run {run_id!r} is recorded in {paths.database}; `horizon runs` shows those that are")
    if not found:
        raise ConfigError(f"record {seq} of run {run_id} is no dead letter; `horizon dlq list --all` shows them")
    row = {**_row(found[0]), "record": plain(found[0].letter.payload), "bytes": found[0].letter.payload.hex()}
    if as_json:
        emit_json(row)
    else:
        times = {name: utc(row[name]) for name in ("captured_at", "dismissed_at", "replayed_at")}
        emit("\n".join(f"{name:<13} {'-' if value is None else value}" for name, value in {**row, **times}.items()))


@dlq.command()
@click.argument("run_id")
@click.argument("seq", type=click.IntRange(min=1))
@DATABASE
@decides
@YES
@AS_JSON
def replay(run_id: str, seq: int, db: Path | None, who: str | None, reason: str, yes: bool, as_json: bool) -> None:
    """Store the record SEQ of RUN_ID after all, or apply what a venue has corrected."""
    confirm(f"Replay record {seq} of run {run_id}?", yes)
    tell(order(db, "replay", who=who, reason=reason, run_id=run_id, seq=str(seq)), as_json)


@dlq.command()
@click.argument("run_id")
@click.argument("seq", type=click.IntRange(min=1))
@DATABASE
@decides
@YES
@AS_JSON
def dismiss(run_id: str, seq: int, db: Path | None, who: str | None, reason: str, yes: bool, as_json: bool) -> None:
    """Decide that the record SEQ of RUN_ID stays out of the database. Its bytes are kept."""
    confirm(f"Dismiss record {seq} of run {run_id}?", yes)
    tell(order(db, "dismiss", who=who, reason=reason, run_id=run_id, seq=str(seq)), as_json)


def _letters(paths: DatabasePaths, **asked: Any) -> list[Decided]:
    from horizon.store.dead_letters import DeadLetter, Decided
    from horizon.store.letters import reader_of_letters
    from horizon.store.sql import CHECKS
    from horizon.store.translate import reading

    if not paths.dead_letters.exists():
        return []
    values = {"strategy": None, "run_id": None, **asked, "all": asked["all_"]}
    with closing(reader_of_letters(paths.dead_letters)) as connection, reading(connection):
        return [Decided(DeadLetter(*row[:-3]), *row[-3:]) for row in connection.execute(CHECKS["letters"], values)]


def _row(decided: Decided) -> dict[str, Any]:
    letter = decided.letter._asdict()
    del letter["payload"]
    decisions = decided._asdict()
    del decisions["letter"]
    return {**letter, **decisions}


def _cells(decided: Decided) -> list[str]:
    letter = decided.letter
    state = "replayed" if decided.replayed_at else f"dismissed by {decided.dismissed_by}" if decided.dismissed_at else "-"
    return [utc(letter.captured_at), letter.strategy, letter.kind, letter.run_id, str(letter.seq), state, letter.reason]
