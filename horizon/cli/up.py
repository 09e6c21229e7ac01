"""`horizon up`: check the configuration, then become the supervisor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from horizon.config import DEFAULT_FILE, load


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_FILE,
    metavar="FILE",
    help=f"What to run (default: ./{DEFAULT_FILE}).",
)
@click.option(
    "--duration", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop by itself after this time."
)
@click.option("--plain", is_flag=True, help="Plain lines instead of the live table.")
def up(config: Path, duration: float | None, plain: bool) -> None:
    """Run all strategies of a horizon.toml.

    A supervisor starts the writer, then a process for each strategy, and starts again what crashes. Ctrl-C drains and stops all in
    order.
    """
    load(config)
    options = ["--config", str(config)]
    options += ["--duration", str(duration)] if duration is not None else []
    options += ["--plain"] if plain else []
    # Replaced, not called: `ps` says what it is, and its children import neither click nor this. -P: no folder of the user's
    # working directory can stand in for a module.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "supervisor", *options])  # noqa: S606
