"""`horizon init`: a folder with a configuration and three strategies that run, to be read and changed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from horizon.errors import ConfigError

# Where it goes: where it comes from in the package. (setuptools packs no file whose name begins with a dot.)
_FILES = {
    "horizon.toml": "horizon.toml",
    "strategies/market_maker.py": "strategies/market_maker.py",
    "strategies/mean_reversion.py": "strategies/mean_reversion.py",
    "strategies/momentum.py": "strategies/momentum.py",
    ".gitignore": "gitignore",
}


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that are there already.")
def init(directory: Path, force: bool) -> None:
    """Write a demo to start from into DIR."""
    targets = {directory / target: source for target, source in _FILES.items()}
    try:
        _write(targets, force)
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or directory}: {error.strerror}") from error
    written = [f"  {target}" for target in targets]
    click.echo("\n".join(["Written:", *written, "Next:", *_next_steps(directory)]))


def _write(targets: dict[Path, str], force: bool) -> None:
    there = [str(target) for target in targets if target.exists()]
    if there and not force:
        raise ConfigError(f"{', '.join(there)} would be overwritten: choose another folder, or say --force")
    templates = files("horizon.cli") / "templates"
    for target, source in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((templates / source).read_text(encoding="utf-8"), encoding="utf-8")


def _next_steps(directory: Path) -> list[str]:
    enter = [] if directory.resolve() == Path.cwd() else [f"  cd {directory}"]
    return [
        *enter,
        "  horizon up                               # all three, supervised; Ctrl-C stops them in order",
        "  horizon run strategies/market_maker.py   # one alone, with a database of its own",
        "  horizon fills                            # what was recorded",
    ]
