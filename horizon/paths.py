"""Where things lie beside a database: everything of `NAME.db` that is not SQLite's lies in `NAME.db.d/`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from horizon.ids import strategy_lock_name

JOURNAL_SUFFIX = ".journal"
SOCKET_NAME = "writer.sock"
CONTROL_SOCKET_NAME = "control.sock"
METRICS_SOCKET_NAME = "metrics.sock"


class DatabasePaths(NamedTuple):
    """The files of one database. `database` is resolved, so that two names of one file are one database (R12)."""

    database: Path
    folder: Path

    @classmethod
    def of(cls, database: str | Path) -> DatabasePaths:
        resolved = Path(database).expanduser().resolve()
        return cls(resolved, resolved.with_name(resolved.name + ".d"))

    @property
    def dead_letters(self) -> Path:
        return self.folder / "dlq.db"

    @property
    def writer_lock(self) -> Path:
        return self.folder / "writer.lock"

    @property
    def supervisor_lock(self) -> Path:
        return self.folder / "supervisor.lock"

    @property
    def writer_log(self) -> Path:
        return self.folder / "writer.log"

    @property
    def desired(self) -> Path:
        """What people decided about strategies: stopped by hand, in quarantine."""
        return self.folder / "desired.json"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def control_socket(self) -> Path:
        return self.folder / CONTROL_SOCKET_NAME

    @property
    def metrics_socket(self) -> Path:
        """Where processes send what they count, and the gateway listens."""
        return self.folder / METRICS_SOCKET_NAME

    @property
    def socket(self) -> Path:
        return self.folder / SOCKET_NAME

    def strategy_lock(self, strategy: str) -> Path:
        return self.folder / strategy_lock_name(strategy)

    def journal(self, run_id: str) -> Path:
        return self.folder / f"{run_id}{JOURNAL_SUFFIX}"

    def journals(self) -> list[Path]:
        """Every journal in the folder, oldest run first (run ids are time-ordered)."""
        return sorted(self.folder.glob(f"*{JOURNAL_SUFFIX}"))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut: syncing a file does not sync the name that it has."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
