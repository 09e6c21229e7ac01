"""`horizon journal`: what is recorded and not yet in the database, and what to do about it."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horizon.cli.database import DATABASE
from horizon.cli.operating import AS_JSON, TIMEOUT, YES, confirm, decides, order, tell
from horizon.cli.output import emit, emit_json, emit_table, remark
from horizon.cli.plain import plain
from horizon.cli.text import Column, counted
from horizon.config import resolve_database
from horizon.errors import ConfigError, ExitCode
from horizon.locks import is_free
from horizon.paths import DatabasePaths

if TYPE_CHECKING:
    from horizon.journal import JournalReader
    from horizon.store.journals import Left

_POLL_S = 0.05
_COLUMNS = (
    *(Column("run_id"), Column("strategy", cut="end"), Column("state"), Column("unacked", right=True)),
    *(Column("newest_seq", right=True, dispensable=2), Column("bytes", right=True, dispensable=3)),
    *(Column("pid", right=True, dispensable=1), Column("problem", cut="end", dispensable=4)),
)


@click.group()
def journal() -> None:
    """See and drain what is recorded and not yet in the database."""


@journal.command("list")
@DATABASE
@AS_JSON
def list_(db: Path | None, as_json: bool) -> None:
    """List the journals beside the database: of strategies that run, and left over by those that died."""
    paths = DatabasePaths.of(resolve_database(db))
    rows = [_row(left) for left in _journals(paths)]
    if as_json:
        emit_json(rows)
    elif rows:
        emit_table(_COLUMNS, [["-" if value is None else str(value) for value in list(row.values())[:-1]] for row in rows])
    else:
        remark(f"no journals beside {paths.database}")


@journal.command()
@click.argument("run")
@DATABASE
@AS_JSON
def show(run: str, db: Path | None, as_json: bool) -> ExitCode:
    """Print the records in the journal of RUN (its id, or the beginning or end of it), each as a line of JSON.

    It begins with what the run has not trimmed yet, which the database may have already. Exit code 8 says that a part is damaged.
    """
    from horizon.journal import JournalReader

    paths = DatabasePaths.of(resolve_database(db))
    journals = _journals(paths)
    found = [left for left in journals if left.path.stem.startswith(run) or left.path.stem.endswith(run)]
    if len(found) != 1:
        named = f"{run!r} is the name of {len(found)} journals" if found else f"no journal has the name {run!r}"
        lies = ", ".join(left.path.stem for left in found or journals) or "none"
        raise ConfigError(f"{named} beside {paths.database}; there lie: {lies}")
    with closing(JournalReader(found[0].path)) as reader:
        return _print(reader, found[0].is_dead, as_json)


@journal.command()
@DATABASE
@TIMEOUT
@AS_JSON
def drain(db: Path | None, timeout_s: float, as_json: bool) -> ExitCode:
    """Store what runs that died have left in their journals.

    The writer does that by itself; where none runs, one is started and leaves again. Exit code 7 says that journals are still left.
    """
    paths = DatabasePaths.of(resolve_database(db))
    before = [left for left in _journals(paths) if left.is_dead]
    until = time.monotonic() + timeout_s
    started_at = float("-inf")
    while any(left.is_dead for left in _journals(paths)) and (now := time.monotonic()) < until:
        if is_free(paths.writer_lock) and now - started_at > 1.0:
            started_at = now
            _start_writer(paths)
        time.sleep(_POLL_S)
    rest = [left.path.stem for left in _journals(paths) if left.is_dead]
    drained = [left.path.stem for left in before if left.path.stem not in rest]
    if as_json:
        emit_json({"drained": drained, "left": rest})
    else:
        emit(f"drained {counted(len(drained), 'journal')}")
    if rest:
        remark(f"still left after {timeout_s:g} s: {', '.join(rest)}; {paths.writer_log} may say why")
    return ExitCode.DEADLINE if rest else ExitCode.DONE


@journal.command("accept-gap")
@click.argument("run_id")
@DATABASE
@decides
@YES
@AS_JSON
def accept_gap(run_id: str, db: Path | None, who: str | None, reason: str, yes: bool, as_json: bool) -> None:
    """Accept that records of RUN_ID are lost, so that its strategy may order again."""
    confirm(f"Accept that records of run {run_id} are lost for good?", yes)
    tell(order(db, "accept_gap", who=who, reason=reason, run_id=run_id), as_json)


def _journals(paths: DatabasePaths) -> list[Left]:
    from horizon.store.journals import committed_seqs, left_in

    return left_in(paths, committed_seqs(paths))


def _row(left: Left) -> dict[str, Any]:
    about = left.about
    return {
        "run_id": left.path.stem if about is None else about.run_id,
        "strategy": None if about is None else about.strategy,
        "state": "unreadable" if about is None else "left over" if left.is_dead else "live" if left.is_locked else "no lock",
        "unacked": None if about is None else left.unacked,
        "newest_seq": None if about is None else left.last_seq,
        "bytes": left.used_bytes,
        "pid": None if about is None else about.pid,
        "problem": left.problem or _gap(left),
        "path": str(left.path),
    }


def _gap(left: Left) -> str | None:
    return None if left.missing is None else f"records {left.missing[0]} to {left.missing[1]} are in neither journal nor database"


def _print(reader: JournalReader, is_dead: bool, as_json: bool) -> ExitCode:
    """In pages, so that a journal of any size comes out. A live one may be trimmed under the reader, which is no damage."""
    offset = reader.tail
    expected = reader.first_seq(offset) or reader.head_seq + 1
    shown = []
    damage = None
    while damage is None:
        reading = reader.read(offset, expected, dead=is_dead)
        damage = reading.damage
        records = [{"seq": seq, **plain(payload)} for seq, payload in enumerate(reading.frames.payloads, expected)]
        if as_json:
            shown += records
        elif records:
            emit("\n".join(_line(record) for record in records))
        if not records:
            break
        offset, expected = reading.next_offset, reading.frames.last_seq + 1
    if as_json:
        emit_json(shown)
    if damage is not None:
        remark(f"{reader.path}: {damage}" if is_dead else f"{reader.path} was trimmed while it was read: show it again")
    return ExitCode.FINDINGS if damage is not None and is_dead else ExitCode.DONE


def _line(record: dict[str, Any]) -> str:
    import msgspec

    return msgspec.json.encode(record).decode()


def _start_writer(paths: DatabasePaths) -> None:
    """One that belongs to nobody, as a lone run starts it (R15)."""
    with paths.writer_log.open("ab") as output:
        subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-m", "horizon.writer", "--private", "--database", str(paths.database)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            check=False,
        )
