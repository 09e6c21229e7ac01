"""`python -m bench NAME`: one question, measured on this machine, printed and kept in bench/results/NAME.json."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar

from bench.figures import draw
from bench.machine import facts, sync_cost_us
from bench.options import MAX, Measured, Options, Row
from bench.writer import end_all_in

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"
_BOTH = ["process", "power"]
_ANY: dict[str, Any] = {"workers": [4], "rate": [10_000.0], "seconds": 5.0, "durability": _BOTH, "repeats": 3}
_INTERRUPTED = 130


class Question(NamedTuple):
    text: str
    takes: Mapping[str, Any] = MappingProxyType({})  # the options that mean something to it, with what they are when nobody says
    needs_gib: float = 1.0  # free disk, at the default options


QUESTIONS = {
    "record_cost": Question(
        "What does recording cost the strategy, at which rate?",
        {"rate": [100.0, 1000.0, 10_000.0, MAX], "seconds": 2.0, "repeats": 3},
    ),
    "fill_to_commit": Question(
        "How long from recorded to committed, for how many strategies, at which rate, and what makes the tail?",
        {"workers": [1, 4, 8], "rate": [100.0, 1000.0, 10_000.0, 50_000.0], "seconds": 1.0, "durability": _BOTH, "repeats": 3},
    ),
    "writer_throughput": Question(
        "How many events a second does the writer commit, for 1 to 8 workers, and what would SQLite take at most?",
        {"workers": [1, 4, 8], "seconds": 2.5, "durability": _BOTH, "repeats": 3},
        needs_gib=3,
    ),
    "alternatives": Question(
        "What would one use today instead: how fast is it, and what does a kill lose?",
        {"workers": [4], "rate": [1000.0, 10_000.0, MAX], "seconds": 1.5, "durability": _BOTH, "repeats": 3},
        needs_gib=3,
    ),
    "recovery_time": Question(
        "How long from the start of a killed strategy to its first order, with how much history?", {"repeats": 1}, needs_gib=6
    ),
    "restart_time": Question("How long from the kill of a strategy until the supervisor knows, and until it trades again?"),
    "writer_kill_gap": Question("How long is nothing committed when the writer is killed?", {"durability": _BOTH, "repeats": 3}),
    "writer_kill_timeline": Question(
        "What do strategies record, and what is committed, in the second in which the writer is killed?",
        {"durability": _BOTH, "repeats": 3},
    ),
    "supervisor_loop_lag": Question(
        "How long does the supervisor's loop take for a turn, with fifty strategies and hostile clients?", {"seconds": 5.0}
    ),
    "memory": Question(
        "How much memory do supervisor, writer and strategies take, and does it grow under load?",
        {"workers": [4], "rate": [10_000.0], "seconds": 75.0, "durability": ["power"]},
        needs_gib=4,
    ),
    "soak": Question(
        "What becomes of memory, files and latency in hours of load?",
        {"workers": [4], "rate": [5000.0], "seconds": 14_400.0, "durability": ["power"]},
    ),
    "smoke": Question("Has the road become slower than what is written down, as ratios within one run?"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parsed(arguments)
    if parsed.name == "smoke":
        from bench import smoke

        return smoke.check(RESULTS / "smoke.json", write_down=parsed.write_down)
    interrupt = _Interrupt()
    try:
        _emit(_answer(parsed))
    except BaseException:
        if not interrupt.came:
            raise
        print("interrupted: nothing of it is kept", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _answer(parsed: argparse.Namespace) -> str:
    """Measure, keep and draw. Returns what is printed."""
    question = QUESTIONS[parsed.name]
    options = Options(parsed.workers, parsed.rate, parsed.seconds, parsed.durability, parsed.repeats)
    with _scratch(question.needs_gib) as folder, redirect_stdout(sys.stderr):
        machine = facts(folder)
        answer = import_module(f"bench.{parsed.name}").measure(folder, options)
        machine["fdatasync_us_after"] = sync_cost_us(folder)
    rows, series = answer if isinstance(answer, Measured) else (answer, None)
    result = {
        "question": question.text,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": options._asdict(),
        "machine": machine,
        "rows": rows,
    }
    text = json.dumps(result, indent=2)
    (RESULTS / f"{parsed.name}.json").write_text(text + "\n")
    if series is not None:
        (RESULTS / f"{parsed.name}.series.json").write_text(json.dumps(series, separators=(",", ":")) + "\n")
    for picture in draw(parsed.name, {**result, "series": series}, RESULTS):
        print(f"drawn: {picture}", file=sys.stderr)
    return text if parsed.json else _readable(machine, rows)


@contextmanager
def _scratch(needs_gib: float) -> Iterator[Path]:
    """A folder beside the checkout and not in /tmp, which often is no disk at all. At its end nobody works in it any more."""
    free_gib = shutil.disk_usage(RESULTS).free / 2**30
    if free_gib < needs_gib:
        raise SystemExit(f"this needs {needs_gib:g} GiB of free disk at {RESULTS}, there are {free_gib:.1f}")
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=RESULTS, ignore_cleanup_errors=True) as name:
        try:
            yield Path(name)
        finally:
            for process in multiprocessing.active_children():
                process.kill()
            end_all_in(Path(name))


class _Interrupt:
    """A Ctrl-C or a SIGTERM counts once: what follows is the tidying up, and whatever fails there has that one reason."""

    def __init__(self) -> None:
        self.came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: object) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt


def _emit(text: str) -> None:
    """A reader that has gone (`| head`) has what it wanted."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- what it is asked for


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"python -m bench: {message}\n")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:21}{question.text}" for name, question in QUESTIONS.items()),
    )
    parser.add_argument("name", type=_name, metavar="NAME", help="one of the names below")
    parser.add_argument("--workers", type=_list_of(_count), help="strategies at once, such as 1,4")
    parser.add_argument("--rate", type=_list_of(_rate), help="events per second over all workers, such as 100,max")
    parser.add_argument("--seconds", type=_seconds, help="how long each row is measured")
    parser.add_argument("--durability", type=_list_of(_durability), help="process, power or both: process,power")
    parser.add_argument("--repeats", type=_count, help="how often each row is measured, in turn with the others")
    parser.add_argument("--json", action="store_true", help="print the JSON that is kept")
    parser.add_argument("--write-down", action="store_true", help="smoke: make what is measured now the figures to compare with")
    parsed = parser.parse_args(arguments)
    takes = QUESTIONS[parsed.name].takes
    for option, usual in _ANY.items():
        if getattr(parsed, option) is None:
            setattr(parsed, option, takes.get(option, usual))
        elif option not in takes:
            known = ", ".join(f"--{name}" for name in takes) or "none of these"
            parser.error(f"--{option} means nothing to {parsed.name}; it takes {known}")
    if parsed.write_down and parsed.name != "smoke":
        parser.error("--write-down is for smoke")
    return parsed


def _name(text: str) -> str:
    if text not in QUESTIONS:
        raise argparse.ArgumentTypeError(f"there is no benchmark {text!r}; there are {', '.join(QUESTIONS)}")
    return text


def _list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    def listed(text: str) -> list[T]:
        return [kind(part) for part in text.split(",")]

    return listed


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is needed, not {text!r}")
    return int(text)


def _rate(text: str) -> float:
    return MAX if text == "max" else _above_zero(text, "events per second, or max")


def _seconds(text: str) -> float:
    return _above_zero(text, "seconds")


def _above_zero(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a number of {what} above zero is needed, not {text!r}")
    return value


def _durability(text: str) -> str:
    if text not in _BOTH:
        raise argparse.ArgumentTypeError(f"durability is process or power, not {text!r}")
    return text


# ---- what is printed


def _readable(machine: Mapping[str, object], rows: Sequence[Row]) -> str:
    """The machine, what is the same in all rows, and a table; what `spread` made of repeats is one column: median (least–most)."""
    titles = [title for title in rows[0] if not _is_end_of_spread(title, rows[0])]
    same = [title for title in titles if len(rows) > 1 and len({_cell(row, title) for row in rows}) == 1]
    titles = [title for title in titles if title not in same]
    cells = [titles, *([_cell(row, title) for title in titles] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(titles))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    above = [f"{name}: {value}" for name, value in machine.items()] + [f"{title}: {_cell(rows[0], title)}" for title in same]
    return "\n".join([*above, "", *lines])


def _is_end_of_spread(title: str, row: Row) -> bool:
    name, _, end = title.rpartition("_")
    return end in ("min", "max") and name in row


def _cell(row: Row, title: str) -> str:
    middle = _figure(row[title])
    if f"{title}_min" not in row:
        return middle
    return f"{middle} ({_figure(row[f'{title}_min'])}–{_figure(row[f'{title}_max'])})"


def _figure(value: str | int | float) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
