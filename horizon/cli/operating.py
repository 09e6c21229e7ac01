"""What the commands share that change something: who asks and why, the question before it is done, and the way to the writer."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from horizon.cli.database import database_to_read
from horizon.cli.output import emit, emit_json
from horizon.errors import ConfigError, HorizonError
from horizon.paths import DatabasePaths

F = TypeVar("F", bound=Callable[..., object])

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
YES = click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
TIMEOUT = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    metavar="SECONDS",
    help="How long to wait.",
)


def decides(command: F) -> F:
    """The options of a command that writes: it is recorded with who and why."""
    who = click.option("--who", metavar="NAME", help="Who decided it, if not this user of this host.")
    reason = click.option("--reason", required=True, metavar="TEXT", help="Why. It is recorded.")
    return who(reason(command))


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be taken back. Raises: HorizonError on a no; ConfigError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} There is no terminal to ask on: say --yes")
    if not click.confirm(question, err=True):
        raise HorizonError("nothing was changed")


def who_asks(named: str | None) -> str:
    """The person, as it is written down."""
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"  # a user id without a name, as in a container
    return f"{user}@{socket.gethostname()}"


def order(
    db: Path | None,
    action: str,
    *,
    strategy: str = "",
    who: str | None,
    reason: str,
    timeout_s: float = 10.0,
    **arguments: str,
) -> str:
    """Have the writer do it, and return its sentence. Raises: CommandRefused, StoreError, LinkError."""
    from horizon import operator
    from horizon.wire import Command

    paths = DatabasePaths.of(database_to_read(db))
    return operator.command(paths, Command(action, strategy, who_asks(who), reason, arguments), timeout_s)


def tell(done: str, as_json: bool) -> None:
    if as_json:
        emit_json({"done": done})
    else:
        emit(done)
