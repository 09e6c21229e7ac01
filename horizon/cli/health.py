"""`horizon health`: the question of Docker and systemd, asked every few seconds. Imports next to nothing."""

from __future__ import annotations

from pathlib import Path

import click

from horizon.config import resolve_control_socket
from horizon.control import Status, StatusReply, ask, not_ready, sick
from horizon.errors import ExitCode

_TIMEOUT_S = 5.0


@click.command()
@click.option("--ready", is_flag=True, help="Also ask whether every strategy that shall run is ready.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The horizon.toml of the supervisor.")
def health(ready: bool, config: Path | None) -> ExitCode:
    """Tell whether supervisor, writer and database are alive now.

    Ends with 0 when they are, with 8 and a line for each problem when they are not, with 6 when no supervisor answers.
    """
    status = ask(resolve_control_socket(config), Status(), _TIMEOUT_S)
    assert isinstance(status, StatusReply)
    problems = not_ready(status) if ready else sick(status)
    for line in problems or ["ok"]:
        click.echo(line)
    return ExitCode.FINDINGS if problems else ExitCode.DONE
