"""The commands of `horizon`, each imported only when it is asked for: a health check runs `horizon version` every 30 s."""

from __future__ import annotations

import json
import platform
from importlib import import_module

import click

import horizon
from horizon.errors import ExitCode

_COMMANDS = {
    "init": "horizon.cli.init:init",
    "up": "horizon.cli.up:up",
    "status": "horizon.cli.status:status",
    "top": "horizon.cli.top:top",
    "start": "horizon.cli.steer:start",
    "stop": "horizon.cli.steer:stop",
    "restart": "horizon.cli.steer:restart",
    "reset": "horizon.cli.steer:reset",
    "reload": "horizon.cli.reload:reload",
    "logs": "horizon.cli.logs:logs",
    "events": "horizon.cli.logs:events",
    "dump": "horizon.cli.dump:dump",
    "down": "horizon.cli.steer:down",
    "health": "horizon.cli.health:health",
    "run": "horizon.cli.run:run",
    "summary": "horizon.cli.summary:summary",
    "fills": "horizon.cli.show:fills",
    "positions": "horizon.cli.show:positions",
    "orders": "horizon.cli.show:orders",
    "runs": "horizon.cli.show:runs",
    "doctor": "horizon.cli.doctor:doctor",
    "chaos": "horizon.cli.chaos:chaos",
    "db": "horizon.cli.db:db",
    "journal": "horizon.cli.journal:journal",
    "dlq": "horizon.cli.dlq:dlq",
    "kill-switch": "horizon.cli.kill_switch:kill_switch",
    "orphans": "horizon.cli.orphans:orphans",
    "version": "horizon.cli.app:version",
    "help": "horizon.cli.app:help_",
}
_EXIT_CODES = "exit-codes"


class _Commands(click.Group):
    """A group that knows the names of its commands before it imports them. The order is that of a first hour with Horizon."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Exit codes: horizon help exit-codes. Completion for bash: eval "$(_HORIZON_COMPLETE=bash_source horizon)"',
)
@click.version_option(horizon.__version__, message="horizon %(version)s")
def cli() -> None:
    """Run several trading strategies on one host and lose nothing."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def version(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        click.echo(json.dumps({"version": horizon.__version__, "python": platform.python_version()}))
    else:
        click.echo(f"horizon {horizon.__version__}")


@click.command("help")
@click.argument("topic", required=False)
@click.pass_context
def help_(ctx: click.Context, topic: str | None) -> None:
    """Explain a command, or `exit-codes`."""
    top = ctx.parent
    assert top is not None
    if topic is None:
        click.echo(top.get_help())
    elif topic == _EXIT_CODES:
        click.echo("\n".join(f"{code:>4}  {code.meaning}" for code in ExitCode))
    else:
        command = cli.get_command(top, topic)
        if command is None:
            raise click.UsageError(f"no command {topic!r}; topics are {', '.join(_COMMANDS)} and {_EXIT_CODES}", ctx)
        click.echo(command.get_help(click.Context(command, info_name=topic, parent=top)))
