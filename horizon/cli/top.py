"""`horizon top`: everything at a glance, refreshed, with keys to stop and restart. It needs no supervisor: it waits for one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from horizon.cli.steering import CONFIG
from horizon.config import Places, resolve_config, resolve_control_socket
from horizon.errors import ExitCode
from horizon.paths import DatabasePaths

if TYPE_CHECKING:
    from horizon.cli.top_session import Session
    from horizon.cli.top_watch import Watcher

_REDRAW_S = 0.25  # also how late a new size of the terminal may be noticed


@click.command(short_help="Watch and steer everything on the whole screen.")
@CONFIG
@click.pass_context
def top(ctx: click.Context, config: Path | None) -> ExitCode:
    """Watch strategies, positions, PnL, rates and errors, live; keys stop, start, restart.

    Press ? for the keys. A dumb terminal, and a pipe, get what `horizon status --watch` shows.
    """
    if not _is_full_screen():
        from horizon.cli.status import status

        code: ExitCode = ctx.invoke(status, config=config, watch=True, as_json=False)
        return code
    from horizon.cli.keyboard import Hangup
    from horizon.cli.top_session import Session
    from horizon.cli.top_watch import Watcher

    places = Places.of(resolve_config(config))
    database = places.database.path
    watcher = Watcher(resolve_control_socket(config), database, places.logs.folder or DatabasePaths.of(database).logs)
    watcher.start()
    session = Session()
    try:
        with _signals_heard() as heard:
            while not session.is_over:
                _show(watcher, session, heard)
                for number in heard:
                    if number != signal.SIGTSTP:
                        return ExitCode.DONE if number == signal.SIGINT else sys.exit(128 + number)
                if heard:
                    heard.clear()
                    os.kill(os.getpid(), signal.SIGSTOP)  # the terminal is the shell's again; `fg` goes on behind this line
    except (KeyboardInterrupt, Hangup):
        pass  # as good as q
    finally:
        watcher.end()
    return ExitCode.DONE


def _is_full_screen() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "")


def _show(watcher: Watcher, session: Session, heard: list[int]) -> None:
    """Own the terminal until the person or a signal ends it, and give it back as it was, whatever happens."""
    from rich.console import Console, ConsoleDimensions
    from rich.live import Live

    from horizon.cli.keyboard import read_keys, single_keys
    from horizon.cli.top_screen import draw

    console = Console(highlight=False, markup=False, emoji=False)
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    keyboard = sys.stdin.fileno()
    with single_keys(keyboard), live:
        while not session.is_over and not heard:
            if watcher.failure is not None:
                raise watcher.failure
            seen, now = watcher.seen, time.monotonic()
            for answer in watcher.answers():
                session.hear(answer, now)
            session.follow(seen.status, now)
            watcher.select(session.selected)
            # Asked anew each time, and of the terminal: COLUMNS in the environment follows no change of its size.
            console.size = ConsoleDimensions(*os.get_terminal_size(sys.stdout.fileno()))
            live.update(draw(seen, session, now, *console.size), refresh=True)
            for key in read_keys(keyboard, _REDRAW_S):
                request = session.press(key, seen.status, seen.silence, now)
                if request is not None:
                    watcher.tell(request)


@contextmanager
def _signals_heard() -> Iterator[list[int]]:
    """Put what would end or stop a program into a list, which is looked at between two frames.

    An exception instead could strike while the terminal is just being taken, when nothing gives it back yet. The second
    signal is one: the terminal may be stopped, and then nothing looks at the list.
    """
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        if heard and number != signal.SIGTSTP:
            sys.exit(128 + number)
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
