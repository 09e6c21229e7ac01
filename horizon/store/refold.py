"""Whether every snapshot is what its fills add up to: all fills are folded again, from the first one, and no snapshot is believed.

Only what the original left, which has no commit order, begins as recovery takes it. Texts are compared, so the last bit counts; the
page's REAL columns are compared with the rounded view of the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from typing import Any, NamedTuple

from msgspec.structs import astuple

from horizon.positions import Book, average_price, holding_of
from horizon.records import Fill, PositionRow
from horizon.store.accounts import Say

_EXACT = ("token_id", "size", "cost", "realized_pnl", "fees", "base_fees", "multiplier")
_REAL = ("size", "avg_entry_price", "realized_pnl")


class StoredRow(NamedTuple):
    """A row of `position_snapshots`."""

    id: int
    strategy: str
    run_id: str
    seq: int
    commit_no: int
    exchange: str
    market_id: str
    side: str
    token_id: str | None
    exact_size: str
    exact_cost: str
    exact_realized_pnl: str
    exact_fees: str
    exact_base_fees: str
    multiplier: float
    size: float
    avg_entry_price: float
    realized_pnl: float
    snapshot_batch: float


class Stored(NamedTuple):
    """A whole snapshot, at its place in the commit order."""

    commit_no: int
    name: str  # for a sentence
    strategy: str
    taken_at: float | None
    rows: tuple[StoredRow, ...]


class Refold:
    """Takes every fill in commit order, and compares each snapshot as soon as all fills that it includes are in."""

    def __init__(self, snapshots: Iterable[Stored], begun: dict[str, Book], replayed_at: dict[str, float], say: Say) -> None:
        """`begun`: what strategies had before their first fill. `replayed_at`: fills of a strategy were changed then."""
        self._snapshots = iter(snapshots)
        self._next = next(self._snapshots, None)
        self._books = begun
        self._replayed_at = replayed_at
        self._say = say
        self._at = 0
        self.compared = 0
        self.outdated = 0  # from before a dead letter was replayed: the fills were others then

    def fill(self, commit_no: int, strategy: str, fill: Fill) -> None:
        if self._next is not None and self._next.commit_no < commit_no:
            self._compare_up_to(commit_no - 1)
        self._at = commit_no
        book = self._books.get(strategy)
        if book is None:
            book = self._books[strategy] = Book()
        book.apply(fill)

    def close(self) -> None:
        """Compare the snapshots behind the last fill."""
        while self._next is not None:
            self._compare_up_to(self._next.commit_no)

    def _compare_up_to(self, commit_no: int) -> None:
        while (stored := self._next) is not None and stored.commit_no <= commit_no:
            if stored.commit_no < self._at:
                self._say(f"{stored.name} says that it includes fill number {stored.commit_no}, which an earlier one had passed")
            elif stored.taken_at is not None and stored.taken_at <= self._replayed_at.get(stored.strategy, 0.0):
                self.outdated += 1
            else:
                self.compared += 1
                self._compare(stored)
            self._next = next(self._snapshots, None)

    def _compare(self, stored: Stored) -> None:
        """Name the first difference; the rest mostly follows from it."""
        folded = {
            (row.exchange, row.market_id, row.side.value): row for row in self._books.get(stored.strategy, Book()).snapshot()
        }
        for row in stored.rows:
            expected = folded.pop((row.exchange, row.market_id, row.side), None)
            what = f"{stored.name}: {row.market_id} {row.side} on {row.exchange}"
            if expected is None:
                self._say(f"{what} has a position, and no fill gives one")
                return
            if found := _difference(row, expected):
                self._say(f"{what}: {found}")
                return
        for exchange, market, side in folded:
            self._say(f"{stored.name}: {market} {side} on {exchange} is missing, and the fills give a position")
            return


def whole_snapshots(rows: Iterable[tuple[Any, ...]], pointed: Iterable[Stored]) -> Iterator[Stored]:
    """Rows in their order, and those that `newest_snapshots` points to, as snapshots by their place in the commit order."""
    return merge(_grouped(StoredRow(*row) for row in rows), pointed, key=lambda stored: stored.commit_no)


def _grouped(rows: Iterable[StoredRow]) -> Iterator[Stored]:
    # What a program of the original has written has no run, no place, and nothing exact.
    ours = (row for row in rows if row.run_id is not None and row.commit_no is not None)
    for (strategy, run_id, seq, commit_no), group in groupby(
        ours, key=lambda row: (row.strategy, row.run_id, row.seq, row.commit_no)
    ):
        rows_of_one = tuple(group)
        name = f"snapshot of {strategy} (run {run_id}, seq {seq})"
        yield Stored(commit_no, name, strategy, rows_of_one[0].snapshot_batch, rows_of_one)


def _difference(row: StoredRow, expected: PositionRow) -> str:
    exact = (
        row.token_id, row.exact_size, row.exact_cost, row.exact_realized_pnl, row.exact_fees, row.exact_base_fees, row.multiplier,
    )  # fmt: skip
    # In the order of PositionRow, without what the position is kept under and without the mark, which no fill gives.
    folded = astuple(expected)[3:10]
    for name, stored, by_fills in zip(_EXACT, exact, folded, strict=True):
        if stored != by_fills:
            return f"{name} is {stored}, and the fills give {by_fills}"
    holding = holding_of(expected)
    rounded = (float(holding.size), float(average_price(holding)), float(holding.realized_pnl))
    for name, shown, value in zip(_REAL, (row.size, row.avg_entry_price, row.realized_pnl), rounded, strict=True):
        if shown != value:
            return f"the column {name} shows {shown!r}, and its exact state is {value!r}"
    return ""
