"""`horizon dump NAME`: what every thread of a process is doing at this moment. The process goes on."""

from __future__ import annotations

from pathlib import Path

import click

from horizon.cli.output import emit
from horizon.cli.steering import CONFIG, Supervisor, complete_names
from horizon.control import Dump, DumpReply


@click.command()
@click.argument("name", metavar="NAME", shell_complete=complete_names)
@CONFIG
def dump(name: str, config: Path | None) -> None:
    """Print what every thread of a process is doing now.

    NAME is a strategy, `writer` or `gateway`. It works on one that hangs too, and disturbs none.
    """
    reply = Supervisor.of(config).ask(Dump(name))
    assert isinstance(reply, DumpReply)
    emit(reply.text)
