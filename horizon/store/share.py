"""One share of a check: the fills and order events of some markets, each row once.

All shares together see every row. What one of them has found is data, so that it can come from another process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from horizon.errors import StoreRefused
from horizon.positions import Holding
from horizon.store.accounts import Accounts, Cursor
from horizon.store.chains import OrderChains, Unsettled
from horizon.store.connection import open_reader
from horizon.store.fills import fill_of
from horizon.store.refold import Compared, Holdings, Key, Refold, Stored, whole_snapshots
from horizon.store.sql import CHECKS
from horizon.store.translate import translated

PAGE_ROWS = 5000
MMAP_BYTES = 1 << 36  # more than SQLite was built for: it takes what it can


class Last(NamedTuple):
    """The last row of each table."""

    fill: int
    order_event: int
    snapshot_row: int
    risk_event: int
    duplicate: int


class Share(NamedTuple):
    """What is looked at, and what was true when the check began."""

    number: int
    database: Path
    markets: frozenset[str]
    others: bool  # all markets but these
    last: Last
    cursors: list[Cursor]
    pointed: list[Stored]  # the newest snapshot of each strategy
    begun: dict[str, list[tuple[Key, Holding]]]  # what the original left
    replayed_at: dict[str, float]  # by strategy
    open_orders: list[str]
    original_commit_no: int

    def has(self, market: str) -> bool:
        return (market in self.markets) != self.others


class Seen(NamedTuple):
    """What one share has found. `findings`: kind, text."""

    number: int
    fills: int
    order_events: int
    accounts: Accounts
    unsettled: Unsettled
    snapshots: Compared
    findings: list[tuple[str, str]]
    is_renumbered: bool  # a row whose place in the commit order is not its number


def look(share: Share, tell: Callable[[int], None] | None = None) -> Seen:
    """Read the share's rows. `tell` hears how many rows were read since it was called last. Raises: StoreError."""
    with closing(open_reader(share.database)) as connection, translated(share.database):
        connection.pragma("mmap_size", MMAP_BYTES)
        return _Look(connection, share, tell).all()


def pages(connection: apsw.Connection, query: str, last: int, **values: object) -> Iterator[list[Any]]:
    """Every row up to the last one, in the order of its number, which is its first column."""
    after = 0
    while True:
        bindings = {"after": after, "last": last, "limit": PAGE_ROWS, **values}
        page: list[Any] = connection.execute(CHECKS[query], bindings).fetchall()
        if not page:
            return
        yield page
        after = page[-1][0]


class _Look:
    def __init__(self, connection: apsw.Connection, share: Share, tell: Callable[[int], None] | None) -> None:
        self._connection = connection
        self._share = share
        self._tell = tell
        self._accounts = Accounts(share.cursors)
        self._findings: list[tuple[str, str]] = []
        self._chains = OrderChains(lambda text: self._findings.append(("order", text)))
        begun = {
            strategy: [(key, holding) for key, holding in holdings if share.has(key[1])]
            for strategy, holdings in share.begun.items()
        }
        rows = (row for page in pages(connection, "snapshots_page", share.last.snapshot_row) for row in page)
        self._refold = Refold(whole_snapshots(rows, share.pointed), share.has, Holdings(begun), share.replayed_at)
        self._is_renumbered = False

    def all(self) -> Seen:
        fills = order_events = 0
        for events, page in self._side_by_side():
            if events:
                self._accounts.tick_events(page)
                self._chains.events(page)
                order_events += len(page)
            else:
                self._accounts.tick_fills(page)
                self._chains.fills(page)
                self._refold.fills(page, self._irregular)
                fills += len(page)
            if self._tell is not None:
                self._tell(len(page))
        self._refold.close()
        unsettled = self._chains.unsettled(self._share.open_orders)
        return Seen(
            self._share.number,
            fills,
            order_events,
            self._accounts,
            unsettled,
            self._refold.found,
            self._findings,
            self._is_renumbered,
        )

    def _side_by_side(self) -> Iterator[tuple[bool, list[Any]]]:
        """Pages of both tables, whichever is behind in its own: so few orders wait for their other half."""
        share = self._share
        values = {"markets": json.dumps(sorted(share.markets)), "others": share.others}
        fills = pages(self._connection, "fills_share", share.last.fill, **values)
        events = pages(self._connection, "order_events_share", share.last.order_event, **values)
        of_fills, of_events = next(fills, None), next(events, None)
        while of_fills or of_events:
            if of_fills and (not of_events or of_fills[-1][0] / share.last.fill <= of_events[-1][0] / share.last.order_event):
                yield False, of_fills
                of_fills = next(fills, None)
            elif of_events:
                yield True, of_events
                of_events = next(events, None)

    def _irregular(self, rowid: int) -> None:
        """A row that is not quite as we write them: of the original, with a fee in what was bought, or damaged."""
        row: Any = self._connection.execute(CHECKS["fill_at"], {"rowid": rowid}).fetchone()
        _, commit_no, strategy, run_id, seq, _, order_id, *_ = row
        place: int = rowid if commit_no is None else commit_no
        self._is_renumbered = self._is_renumbered or place != rowid
        if run_id is not None:
            if seq is not None:
                self._accounts.tick("fill", run_id, seq)
            self._accounts.note_commit_no(run_id, place)
        try:
            fill = fill_of(row[5:])
        except StoreRefused as error:
            self._findings.append(("fill", str(error)))
            return
        self._chains.fill(order_id, fill.size)
        # What the original left is in the holdings already; what its programs added since belongs to no strategy.
        if place > self._share.original_commit_no and strategy is not None:
            self._refold.fill(place, strategy, fill)
