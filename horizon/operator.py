"""What a person asks of a database, as one call: whoever owns the database does it, and writes down who asked and why.

It attaches to the writer that runs, a supervisor's or a private one, and starts a private one when there is none. So the command line
never opens a database for writing, and a running strategy hears of the change from the writer it is attached to.
"""

from __future__ import annotations

from horizon.clock import SYSTEM_CLOCK
from horizon.errors import StoreError
from horizon.ids import new_run_id
from horizon.link import Link
from horizon.paths import DatabasePaths
from horizon.wire import Command


def command(paths: DatabasePaths, message: Command, timeout_s: float = 10.0) -> str:
    """Have a command done and return the sentence that says what was done.

    Raises: CommandRefused, with nothing changed and what to do instead; StoreError when the database cannot be used; LinkError when the
    writer has not confirmed it in time, and it may or may not have been done.
    """
    if not paths.database.is_file():
        raise StoreError(f"there is no database at {paths.database}")
    try:
        paths.folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{paths.folder}: the folder beside the database cannot be made: {error.strerror}") from error
    link = Link(paths, new_run_id(), "process", may_start_writer=True, clock=SYSTEM_CLOCK)
    try:
        return link.command(message, timeout_s)
    finally:
        link.close()
