"""`python -m bench NAME`: one question, measured on this machine, printed and kept in bench/results/NAME.json."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from bench.figures import draw
from bench.machine import facts
from bench.options import MAX, Measured, Options, Row

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"
QUESTIONS = {
    "record_cost": "What does recording cost the strategy, at which rate?",
    "fill_to_commit": "How long from recorded to committed, for how many strategies, at which rate?",
    "writer_throughput": "How many events a second does the writer commit, for 1 to 8 workers, and what would SQLite take at most?",
    "alternatives": "What would one use today instead: how fast is it, and what does a kill lose?",
    "recovery_time": "How long from the start of a killed strategy to its first order, with how much history?",
    "restart_time": "How long from the kill of a strategy until the supervisor knows, and until it trades again?",
    "writer_kill_gap": "How long is nothing committed when the writer is killed?",
    "writer_kill_timeline": "What do strategies record, and what is committed, in the second in which the writer is killed?",
    "supervisor_loop_lag": "How long does the supervisor's loop take for a turn, with fifty strategies and hostile clients?",
    "memory": "How much memory do supervisor, writer and strategies take, and does it grow under load?",
    "soak": "What becomes of memory, files and latency in hours of load?",
    "smoke": "Has the road become slower than what is written down, as ratios within one run?",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    if parsed.name == "smoke":
        from bench import smoke

        return smoke.check(RESULTS / "smoke.json", write_down=parsed.write_down)
    options = Options(parsed.workers, parsed.rate, parsed.seconds, parsed.durability, parsed.repeats)
    # Beside the checkout and not in /tmp, which often is no disk at all.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=RESULTS) as folder:
        machine = facts(Path(folder))
        answer = import_module(f"bench.{parsed.name}").measure(Path(folder), options)
    rows, series = answer if isinstance(answer, Measured) else (answer, None)
    result = {
        "question": QUESTIONS[parsed.name],
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
    print(text if parsed.json else _readable(machine, rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=QUESTIONS, help="; ".join(f"{name}: {question}" for name, question in QUESTIONS.items()))
    parser.add_argument("--workers", type=_list_of(int), default=[1, 4], help="strategies at once, such as 1,4")
    parser.add_argument(
        "--rate", type=_list_of(_rate), default=[100.0, 1000.0, 10000.0, MAX], help="events/s over all workers, or max"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each row is measured")
    parser.add_argument("--durability", type=_list_of(_durability), default=["process", "power"], help="process, power or both")
    parser.add_argument("--repeats", type=int, default=3, help="how often each row is measured, in turn with the others")
    parser.add_argument("--json", action="store_true", help="print the JSON that is kept")
    parser.add_argument("--write-down", action="store_true", help="smoke: make what is measured now the figures to compare with")
    return parser


def _list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    def numbers(text: str) -> list[T]:
        return [kind(part) for part in text.split(",")]

    return numbers


def _rate(text: str) -> float:
    return MAX if text == "max" else float(text)


def _durability(text: str) -> str:
    if text not in ("process", "power"):
        raise argparse.ArgumentTypeError(f"durability is process or power, not {text!r}")
    return text


def _readable(machine: dict[str, object], rows: Sequence[Row]) -> str:
    titles = list(rows[0])
    cells = [titles, *([_cell(row[title]) for title in titles] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(titles))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([f"{name}: {value}" for name, value in machine.items()] + ["", *lines])


def _cell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
