"""dlq.db: the records that can never be stored, with their bytes and the reason.

A dead letter is committed before the transaction of the trading database that passes its seq (R27), without ATTACH: over two files
in WAL mode that would not be atomic anyway. So after a crash a letter may lie here whose seq is not passed yet. It stays one: what
was captured once never becomes a row as well, unless a person replays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from horizon.errors import StoreError
from horizon.store.connection import connect, set_durability
from horizon.store.place import refuse_unfit_place
from horizon.store.sql import DEAD_LETTERS_STEPS, QUERIES
from horizon.store.translate import transaction, translated

Kind = Literal["undecodable", "unstorable", "conflict", "amended"]

_VERSION = len(DEAD_LETTERS_STEPS)


class DeadLetter(NamedTuple):
    """The columns of the table, in their order."""

    run_id: str
    seq: int
    strategy: str
    kind: Kind
    reason: str
    payload: bytes
    fill_id: str | None
    captured_at: float


class Decided(NamedTuple):
    """A letter, and what a person decided about it."""

    letter: DeadLetter
    dismissed_at: float | None
    dismissed_by: str | None
    replayed_at: float | None


class DeadLetters:
    """The open dlq.db of a writer. Raises: StoreError, StoreStalled."""

    def __init__(self, path: Path, durability: str) -> None:
        self._path = path
        with translated(path):
            refuse_unfit_place(path)
            self._connection = connect(path, durability)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def capture(self, letters: Sequence[DeadLetter]) -> None:
        """Commit letters; one that is there already keeps its first reason."""
        with translated(self._path), transaction(self._connection):
            self._connection.executemany(QUERIES["insert_dead_letter"], letters)

    def seqs(self, run_id: str, after: int = 0) -> list[int]:
        """The seqs of a run's dead letters beyond `after`, rising."""
        with translated(self._path):
            rows = self._connection.execute(QUERIES["dead_letter_seqs"], {"run_id": run_id, "after": after})
            return [seq for (seq,) in rows]

    def find(self, run_id: str, seq: int) -> Decided | None:
        with translated(self._path):
            row = self._connection.execute(QUERIES["dead_letter"], {"run_id": run_id, "seq": seq}).fetchone()
        return None if row is None else Decided(DeadLetter(*row[:-3]), *row[-3:])

    def mark_replayed(self, run_id: str, seq: int, at: float) -> None:
        """Nothing happens to a letter that has the mark."""
        with translated(self._path):
            self._connection.execute(QUERIES["mark_replayed"], {"run_id": run_id, "seq": seq, "at": at})

    def mark_dismissed(self, run_id: str, seq: int, at: float, who: str) -> None:
        """Nothing happens to a letter that has the mark."""
        with translated(self._path):
            self._connection.execute(QUERIES["mark_dismissed"], {"run_id": run_id, "seq": seq, "at": at, "who": who})

    def set_durability(self, durability: str) -> None:
        with translated(self._path):
            set_durability(self._connection, durability)

    def checkpoint(self) -> None:
        with translated(self._path):
            self._connection.wal_checkpoint()

    def close(self) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        version = self._connection.pragma("user_version")
        assert isinstance(version, int)
        if version > _VERSION:
            raise StoreError(
                f"{self._path} has schema version {version} and this Horizon knows up to {_VERSION}: use the newer Horizon"
            )
        if version < _VERSION:
            with transaction(self._connection):
                for step in DEAD_LETTERS_STEPS[version:]:
                    self._connection.execute(step)
                self._connection.pragma("user_version", _VERSION)
