"""What the database and the folder beside it hold that waits for a person: gaps, holds, dead letters, journals, copies."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import apsw

from horizon.cli.text import counted, size
from horizon.doctor.finding import Finding, ok, problem, warning
from horizon.errors import StoreError
from horizon.locks import is_free
from horizon.paths import DatabasePaths
from horizon.store.connection import open_reader
from horizon.store.controls import all_controls
from horizon.store.journals import Left, left_in
from horizon.store.letters import depths
from horizon.store.migrate import NEWEST_VERSION
from horizon.store.sql import CHECKS, QUERIES
from horizon.store.translate import reading


def check_leftovers(paths: DatabasePaths) -> list[Finding]:
    """Everything that lies there, or that nothing lies there yet."""
    if not paths.database.exists():
        journals = paths.journals() if paths.folder.is_dir() else []
        if journals:
            sentence = f"{paths.database} is missing, and {counted(len(journals), 'journal')} lie in {paths.folder}"
            return [problem("database", sentence, "put the database or a backup of it back: `horizon db restore PATH`")]
        return [ok("database", f"{paths.database} is made by the first start")]
    try:
        with closing(open_reader(paths.database)) as connection, reading(connection):
            found, cursors, database_id = _look_into(connection, paths)
    except StoreError as error:
        return [problem("database", str(error), "if the file is damaged: `horizon db check`, then `horizon db restore PATH`")]
    return [*found, *_check_letters(paths), *_check_journals(paths, cursors, database_id), _check_copies(paths)]


def _look_into(connection: apsw.Connection, paths: DatabasePaths) -> tuple[list[Finding], dict[str, int], str]:
    version: Any = connection.pragma("user_version")
    if version != NEWEST_VERSION:
        whose = "the original's schema" if version == 0 else f"schema version {version}"
        sentence = f"{paths.database} has {whose}; the next start upgrades it to {NEWEST_VERSION}, and keeps a copy"
        return [warning("database", sentence, "see what is to come: `horizon db migrate --dry-run`")], {}, ""
    found = [ok("database", f"{paths.database}, schema version {version}")]
    gaps: list[Any] = connection.execute(QUERIES["gaps"]).fetchall()
    for strategy, run_id, from_seq, to_seq, reason, _ in gaps:
        sentence = f"records {from_seq} to {to_seq} of {strategy}'s run {run_id} are lost ({reason}); {strategy} may not order"
        found.append(problem("gaps", sentence, f"accept it: `horizon journal accept-gap {run_id} --reason WHY`"))
    held_by_gap = {gap[0] for gap in gaps}
    for strategy, control in all_controls(connection).items():
        quoted = shlex.quote(strategy)
        if control.kill_switch:
            remedy = f"`horizon kill-switch clear --strategy {quoted} --reason WHY`"
            found.append(warning("kill switch", f"{strategy} may not trade: {control.kill_switch}", remedy))
        if control.hold and strategy not in held_by_gap:
            remedy = f"`horizon orphans list`; then `horizon orphans release --strategy {quoted} --reason WHY`"
            found.append(warning("holds", f"{strategy} may not open orders: {control.hold}", remedy))
    cursors = {row[0]: row[2] for row in connection.execute(CHECKS["cursors"])}
    return found, cursors, str(connection.execute(QUERIES["meta"], {"key": "database_id"}).get)


def _check_letters(paths: DatabasePaths) -> list[Finding]:
    try:
        count = sum(depths(paths.dead_letters).values())
    except StoreError as error:
        return [problem("dead letters", str(error), "`horizon db check` says more")]
    if count:
        sentence = f"{counted(count, 'record')} could not be stored, and nobody has decided what becomes of them"
        return [warning("dead letters", sentence, "`horizon dlq list`; then replay or dismiss each")]
    return [ok("dead letters", "none that waits for a decision")]


def _check_journals(paths: DatabasePaths, cursors: dict[str, int], database_id: str) -> list[Finding]:
    """A live run has one, and one that died leaves one: only what nobody will store is wrong."""
    if not paths.folder.is_dir():
        return []
    writer_runs = not is_free(paths.writer_lock)
    left = left_in(paths, cursors)
    found = [finding for one in left if (finding := _judge_journal(one, database_id, writer_runs)) is not None]
    damaged = sorted(paths.folder.glob("*.damaged"))
    if damaged:
        sentence = f"{counted(len(damaged), 'damaged journal')} set aside: {_names(path.name for path in damaged)}"
        found.append(
            warning("journals", sentence, f"what they lost is told by `horizon db check`; keep or remove them in {paths.folder}")
        )
    live = sum(1 for one in left if one.is_locked)
    return found or [ok("journals", f"{counted(live, 'journal')} of live runs, and nothing left behind")]


def _judge_journal(left: Left, database_id: str, writer_runs: bool) -> Finding | None:
    if left.about is None:
        return problem("journals", f"{left.path} cannot be read: {left.problem}", "keep it: it may be all that is left of a run")
    if database_id and left.about.database_id != database_id:
        return problem(
            "journals", f"{left.path} belongs to another database", "put it back beside that database, then start there once"
        )
    if not left.is_dead and not left.is_locked:
        sentence = f"the lock of {left.about.strategy} was deleted, so nobody can tell whether the run of {left.path.name} lives"
        return problem("journals", sentence, "stop everything, and start it again: never delete lock files")
    if left.is_dead and left.unacked and not writer_runs:
        sentence = f"a run of {left.about.strategy} died and left {counted(left.unacked, 'record')} in its journal alone"
        return warning("journals", sentence, "the next start stores them, and so does `horizon journal drain`")
    return None


def _check_copies(paths: DatabasePaths) -> Finding:
    copies = [path for path in paths.database.parent.glob(f"{paths.database.name}.before-*") if path.is_file()]
    if not copies:
        return ok("copies", "none of upgrades or restores")
    taken = size(sum(path.stat().st_size for path in copies))
    return Finding("copies", "ok", f"upgrades and restores have left {_names(path.name for path in copies)} ({taken})")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
