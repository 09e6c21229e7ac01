"""A feed of your own. This one follows a CSV file to which another program appends lines of `timestamp,bid,ask`.

Copy it and put your socket, database or API in the place of the file. Then give it to a strategy, in code or in horizon.toml:

    hz.run(..., feeds={"btc": TailedFile("quotes.csv")})

    [strategies.mine.feeds.btc]
    type = "feed:TailedFile"      # module:Name
    path = "quotes.csv"           # further keys go to the constructor

The cycle calls a feed from one thread: `start`, then `advance` and `snapshot` in every cycle, at the end `stop`. None of them may
block, since all feeds and orders of the strategy would wait with it. If your source makes you wait, let a thread of your own put
what arrives into a `queue.SimpleQueue`, and empty that queue in `advance`.

Check it before it sees money, in a test of yours: `horizon.testing.check_feed(lambda: TailedFile("quotes.csv"))`, with a `wait=`
that makes your source send something.
"""

from __future__ import annotations

import logging
import math
from io import BufferedReader
from pathlib import Path

from horizon.errors import ConfigError
from horizon.feeds.base import FeedData

logger = logging.getLogger(__name__)


class TailedFile:
    """Keeps the protocol `horizon.feeds.base.Feed`, which needs no base class."""

    paced = True  # it follows the real clock; False is for recordings, which give one event a call

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._file: BufferedReader | None = None
        self._unfinished = b""  # a line whose end has not been written yet
        self._newest = FeedData()  # its timestamp of 0 says that nothing was seen yet, so it counts as stale

    def start(self) -> None:
        """Open what the feed reads. A ConfigError ends the run with this sentence, before any order is sent."""
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise ConfigError(f"feed: {self._path} cannot be read: {error.strerror}; start the program that writes it") from error

    def stop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def advance(self) -> bool:
        """Take in what is new. True: more may come. False would end the feed, as at the end of a recording."""
        if self._file is None:
            return False
        *lines, self._unfinished = (self._unfinished + self._file.read()).split(b"\n")
        for line in lines:
            try:
                self._newest = _parsed(line)
            except ValueError as error:
                # One bad message must not stop trading; a source that sends nothing else becomes stale.
                logger.warning("feed: a line of %s is skipped: %s", self._path, error)
        return True

    def next_time(self) -> float | None:
        return None  # only a recording knows when its next event comes

    def snapshot(self) -> FeedData:
        # `age_s` is left out: staleness is then the wall clock minus the timestamp.
        return self._newest


def _parsed(line: bytes) -> FeedData:
    timestamp, bid, ask = (float(text) for text in line.split(b","))
    if not math.isfinite(timestamp + bid + ask):
        raise ValueError(f"{line!r} has a number that is not finite")
    return FeedData(price=(bid + ask) / 2, timestamp=timestamp, bid=bid, ask=ask, source="tailed")
