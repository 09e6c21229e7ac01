"""Which database a command reads, and the connection to it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from horizon.config import resolve_database
from horizon.errors import StoreError

if TYPE_CHECKING:
    import apsw

DATABASE = click.option(
    "--db",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The database; else HORIZON_DB, that of ./horizon.toml, ./horizon.db, or the only *.db here.",
)


def database_to_read(option: Path | None) -> Path:
    """The database that is meant. Raises: ConfigError, StoreError with what lies here instead."""
    path = resolve_database(option)
    if not path.exists():
        others = sorted(other.name for other in Path().glob("*.db") if other.is_file())
        hint = f"; here lies {', '.join(others)}: name it with --db" if others else ""
        raise StoreError(f"there is no database at {path}{hint}")
    return path


def reader(path: Path) -> closing[apsw.Connection]:
    """A read-only connection for a `with`. SQLite is imported here: --help does without it. Raises: StoreError."""
    from horizon.store.connection import open_reader

    return closing(open_reader(path))
