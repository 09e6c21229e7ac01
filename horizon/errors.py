"""Every error Horizon raises, in one tree, and the exit codes of every process.

An error's text is the operator's sentence: what happened, to which file or key, what to do. There are three outcomes
everywhere: try again (with back-off), dead letter (and carry on), halt (the process ends because it cannot keep its promise).
"""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What a process of Horizon ends with; `horizon help exit-codes` prints this table."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STRATEGY = 3
    STORE = 4
    HALTED = 5
    NOBODY = 6
    DEADLINE = 7
    FINDINGS = 8
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "unexpected failure",
    ExitCode.USAGE: "usage or configuration",
    ExitCode.STRATEGY: "a strategy file failed to load",
    ExitCode.STORE: "the database is unusable: corrupt, of a newer schema, or owned by another writer",
    ExitCode.HALTED: "halted: a promise could not be kept",
    ExitCode.NOBODY: "no supervisor or writer to talk to",
    ExitCode.DEADLINE: "not finished by the deadline",
    ExitCode.FINDINGS: "ran well and found something wrong",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}


class HorizonError(Exception):
    """The base of every error of Horizon that a caller may catch."""

    exit_code = ExitCode.FAILED


class ConfigError(HorizonError):
    """A key or value of a configuration, an argument or an environment variable is wrong."""

    exit_code = ExitCode.USAGE


class NotThereYet(HorizonError, NotImplementedError):
    """Something the original offers and Horizon does not; README lists it under "Not there yet"."""

    exit_code = ExitCode.USAGE


class StrategyError(HorizonError):
    """A strategy file cannot be loaded: it does not import, calls no hz.run, or has no pipeline."""

    exit_code = ExitCode.STRATEGY


class RecordRejected(HorizonError, ValueError):
    """A value that may not be recorded: NaN, infinity, or a size that is not positive."""


class WireError(HorizonError):
    """Something that came over a socket cannot be understood."""


class DecodeError(WireError):
    """Bytes that are not a record; they are kept in `data` for the dead letter."""

    def __init__(self, reason: str, data: bytes) -> None:
        super().__init__(reason)
        self.data = data


class VersionMismatch(WireError):
    """A run and a writer speak different protocol versions."""

    exit_code = ExitCode.STORE


class JournalError(HorizonError):
    """A journal file cannot be made, read or written."""


class JournalFull(JournalError):
    """The journal holds as many unacknowledged records as it may; new orders are refused until the writer catches up."""


class JournalCorrupt(JournalError):
    """A journal file is not one of ours or its header is damaged."""


class ForeignJournal(JournalError):
    """A journal of another database; it is reported and left where it is."""


class LinkError(HorizonError):
    """The writer cannot be reached or does not answer."""

    exit_code = ExitCode.NOBODY


class AckTimeout(LinkError):
    """The writer did not acknowledge in time; what is unacknowledged stays in the journal."""

    exit_code = ExitCode.DEADLINE


class DeadLettered(HorizonError):
    """Records that were to be flushed could not be stored and lie in dlq.db, with their bytes and the reason."""


class StrategyBusy(HorizonError):
    """Another process runs a strategy of this name on this database."""

    exit_code = ExitCode.STORE


class StoreError(HorizonError):
    """The database cannot be used as it is; waiting does not help."""

    exit_code = ExitCode.STORE


class StoreStalled(StoreError):
    """The database cannot be written now (disk full, I/O error, locked): wait and try again."""


class StoreRefused(StoreError):
    """A statement was refused because of the values of a record."""


class CommandRefused(StoreError):
    """What a person asked the writer for cannot be done; nothing was changed."""

    exit_code = ExitCode.USAGE


class VenueError(HorizonError):
    """A venue refused or could not be asked."""


class RiskError(HorizonError):
    """A pre-trade check refused an order; `check` names it."""

    def __init__(self, check: str, reason: str) -> None:
        super().__init__(reason)
        self.check = check


class KillSwitchActive(RiskError):
    """Trading is forbidden by risk until the kill switch is cleared."""


class Halt(BaseException):
    """This process ends because it cannot keep a promise.

    Derives from BaseException so that a strategy's broad except does not swallow it.
    """

    def __init__(self, reason: str, exit_code: ExitCode = ExitCode.HALTED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


def is_disk_full(error: OSError) -> bool:
    """Whether time, or a person who makes room, cures this (R20)."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
