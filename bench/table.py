"""`python -m bench.table`: the tables of bench/README.md, from what is in bench/results/. Nobody types a figure there.

A table stands between two comments with its name. A figure whose benchmark has not run here is a dash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

README = Path(__file__).parent / "README.md"
RESULTS = Path(__file__).parent / "results"
_NONE = "–"
_SATURATED = 0.9  # of a rate: below that the waits tell how long it was asked, not what it takes
_ONE_FILE = "SQLite, one file, autocommit"
_OWN_FILES = "SQLite, a file each"

# What a power cut takes: said by the makers of each, not measured. A kill is measured.
_POWER_CUT = {
    "Horizon, power": "what is not acked yet",
    "Redis XADD, everysec": "up to 1 s",
    "Redis XADD, always": "nothing",
    "PostgreSQL INSERT": "nothing",
    "PostgreSQL COPY by 1000": "its batches",
    "nothing": _NONE,
}

_SINCE_CHECKPOINT = "since the last checkpoint"  # SQLite in WAL mode with synchronous = NORMAL, and so the page's pragmas

Found = dict[str, Any]


class Results:
    """The newest JSON of each benchmark."""

    def __init__(self, folder: Path) -> None:
        self._of = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json") if path.stem.count(".") == 0}

    def rows(self, name: str) -> list[Found]:
        return list(self._of.get(name, {}).get("rows", []))

    def row(self, name: str, **columns: object) -> Found:
        """The first with these values; empty when there is none."""
        return next((row for row in self.rows(name) if all(row.get(key) == value for key, value in columns.items())), {})

    def machine(self) -> Found:
        """Of the comparison, with the day."""
        result = self._of.get("alternatives", {})
        return {**result.get("machine", {}), "day": result.get("measured_at", _NONE)[:10]}


def rendered(text: str, results: Results) -> str:
    """The page with every table anew. Raises: SystemExit when the page has no place for one."""
    for name, render in _TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"{README} has no {begin} … {end}")
        table = render(results)
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)  # noqa: B023
    return text


# ---- what one would use today


def _machine(results: Results) -> str:
    facts = results.machine()
    if "cpu" not in facts:
        return _NONE
    sync = facts["fdatasync_us"]
    others = dict.fromkeys(row["made_of"] for row in results.rows("alternatives") if row.get("made_of"))
    return (
        f"{facts['day']}, {facts['cores']} shared cores ({facts['cpu']}), Linux {facts['kernel']}, {facts['file_system']} on a disk whose "
        f"fdatasync takes {sync['p50']} µs (p99 {sync['p99']}), Python {facts['python']}, SQLite {facts['sqlite']}, "
        f"load before the run {facts['load_before']}. The others: {'; '.join(others)}."
    )


def _alternatives(results: Results) -> str:
    rows = results.rows("alternatives")
    workers = max((row["workers"] for row in rows), default=0)
    names = list({row["way"]: None for row in rows if row["workers"] == workers})
    lines = []
    for name in names:
        slow, fast, most = (
            results.row("alternatives", way=name, workers=workers, rate=rate) for rate in ("1000", "10000", "max")
        )
        some = most or slow or fast
        lines.append(
            [
                f"**{name}**" if name.startswith("Horizon") else name,
                _of(most, "per_s"),
                _of(most, "loaded_per_s"),
                _times(most, "less_per_s"),
                _waits(slow),
                _waits(fast),
                _of(fast, "errors_per_1000"),
                _of(some, "lost_caller"),
                _of(some, "lost_store"),
                _POWER_CUT.get(name, _SINCE_CHECKPOINT),
            ]
        )
    return _table(
        [
            "Way",
            "committed/s",
            "of that while all call",
            "Horizon's is",
            "a strategy waits, 1k/s: p50 / p99 / p99.9",
            "the same, 10k/s",
            "refused of 1000, 10k/s",
            "lost by kill -9: strategies",
            "server or writer",
            "a power cut takes",
        ],
        lines,
    )


def _waits(row: Found) -> str:
    if not row:
        return _NONE
    if row["unsent"] or row["per_s"] < _SATURATED * float(row["rate"]):
        return f"only {row['per_s']:,}/s reached"
    return " / ".join(_time(row[name]) for name in ("p50_us", "p99_us", "p99.9_us"))


# ---- what was asked for


class _Ask(NamedTuple):
    what: str
    asked: str
    found: Callable[[Results], str]


def _against(rate: str, cases: Sequence[tuple[str, str]]) -> Callable[[Results], str]:
    """By (way, column)."""
    return lambda results: " / ".join(_times(results.row("alternatives", way=way, rate=rate), column) for way, column in cases)


def _committed(*ways: str) -> Callable[[Results], str]:
    return _against("max", [(way, "less_per_s") for way in ways])


def _waited(way: str, rate: str, of: str = "") -> Callable[[Results], str]:
    return _against(rate, [(way, f"slower_{of}{share}") for share in ("p99", "p99.9")])


def _power(results: Results) -> str:
    ratio = results.row("alternatives", way="Horizon, power", rate="max").get("less_per_s")
    return _NONE if not ratio else f"{1 / ratio:.2f}"


def _of_c(results: Results) -> str:
    row = results.row("writer_throughput", way="Horizon, 4 strategies", durability="process")
    return f"{_of(row, 'of_c')} by the clock, {_of(row, 'cpu_of_c')} by processor time"


def _cost(what: str, *rates: str) -> Callable[[Results], str]:
    return lambda results: " / ".join(f"{_of(results.row('record_cost', what=what, rate=rate), 'p50_us')} µs" for rate in rates)


def _acked(rate: str) -> Callable[[Results], str]:
    def found(results: Results) -> str:
        row = results.row("fill_to_commit", durability="process", workers=4, rate=rate, what="")
        return " / ".join(f"{_of(row, name)} ms" for name in ("p50_ms", "p99_ms"))

    return found


def _inline(results: Results) -> str:
    return _times(results.row("fill_to_commit", durability="process", what="checkpoints inline"), "p99_of_beside")


def _wal(results: Results) -> str:
    cases = ("checkpoints beside", "reader, 1 s each", "reader, all the time")
    rows = [results.row("fill_to_commit", durability="process", what=case) for case in cases]
    return ", ".join(f"{case}: {_of(row, 'wal_mib_max')} MiB" for case, row in zip(cases, rows, strict=True))


def _tail(results: Results) -> str:
    whole, read = (
        _times(results.row("recovery_time", what="recovery", of=of, history=10_000_000), "ratio")
        for of in ("10k fills", "10k fills, read only")
    )
    return f"{read} to read, {whole} with the fold"


def _replay(results: Results) -> str:
    rows = [row for row in results.rows("recovery_time") if row.get("what") == "check"]
    return ", ".join(f"{row['of']}: {row['ms'] / 1000:.3g} s" for row in rows) or _NONE


def _views(results: Results) -> str:
    """As a reader waits for it, without the start of Python."""
    wanted = ("fills", "fills of a market", "open orders", "positions")
    times = {row["of"]: row["ms"] for row in results.rows("recovery_time") if row.get("what") == "view" and row["of"] in wanted}
    if not times:
        return _NONE
    slowest = max(times, key=lambda view: times[view])
    return f"{slowest}: {times[slowest]:.3g} ms"


_ASKED = (
    _Ask("committed/s against N processes writing one SQLite file", "≥ 6×", _committed(_ONE_FILE)),
    _Ask("the same, only what is committed while all call", _NONE, _against("max", [(_ONE_FILE, "less_loaded_per_s")])),
    _Ask(
        "against SQLAlchemy, one file / a file each",
        "≥ 50× / ≥ 12×",
        _committed("SQLAlchemy, one file", "SQLAlchemy, a file each"),
    ),
    _Ask(
        "against Redis XADD everysec / PostgreSQL INSERT", "≥ 8× / ≥ 20×", _committed("Redis XADD, everysec", "PostgreSQL INSERT")
    ),
    _Ask("throughput of `power` against `process`", "≥ 0.6", _power),
    _Ask("writer against the C ceiling of the same run, with checkpoints", "≥ 0.65", _of_c),
    _Ask("`recorder.record`, flat out / at 10k/s, p50", "≤ 2.5 µs / ≤ 6 µs", _cost("Recorder.record", "max", "10000")),
    _Ask("`engine.process_fill`, flat out / at 10k/s, p50", "≤ 15 µs", _cost("Engine.process_fill", "max", "10000")),
    _Ask("a strategy's wait against the direct writers', 1k/s, p99 / p99.9", "≥ 8× / ≥ 15×", _waited(_ONE_FILE, "1000")),
    _Ask("the same, 10k/s", "≥ 25× / ≥ 25×", _waited(_ONE_FILE, "10000")),
    _Ask("of that the call alone, 1k/s", _NONE, _waited(_ONE_FILE, "1000", "call_")),
    _Ask("the same, 10k/s", _NONE, _waited(_ONE_FILE, "10000", "call_")),
    _Ask("a strategy's wait against a SQLite file each, 10k/s, p99 / p99.9", _NONE, _waited(_OWN_FILES, "10000")),
    _Ask("recorded → acked at 1k/s, p50 / p99", "≤ 0.7 ms / ≤ 3 ms", _acked("1000")),
    _Ask("recorded → acked at 10k/s, p50 / p99", "≤ 0.7 ms / ≤ 3 ms", _acked("10000")),
    _Ask("recorded → acked p99 at 50k/s, against checkpoints inline", "≥ 5×", _inline),
    _Ask("the largest WAL at 50k/s", "bounded", _wal),
    _Ask("recovery, a tail of 10k fills on 10M rows, against a scan by timestamp", "≥ 50×", _tail),
    _Ask("whole replay of 10M fills, exact", "≤ 20 s", _replay),
    _Ask("the slowest of a person's default views on 10M rows", "≤ 50 ms", _views),
)


def _targets(results: Results) -> str:
    return _table(["Figure", "asked for", "found"], [[ask.what, ask.asked, ask.found(results)] for ask in _ASKED])


# ---- where the time goes


def _stages(results: Results) -> str:
    def cpu(way: str) -> float | None:
        found = results.row("writer_throughput", way=way, durability="process").get("cpu_us")
        return float(found) if isinstance(found, int | float) else None

    def record_p50(what: str) -> str:
        times = [_of(results.row("record_cost", what=what, rate=rate), "p50_us") for rate in ("1000", "10000", "max")]
        return " / ".join(times)

    in_c, store, journal, whole = map(cpu, ("C, all", "Store.append", "journal to Store.append", "Horizon, 4 strategies"))
    of_strategy = [
        ["number, encode, journal", "`Recorder.record`", record_p50("Recorder.record")],
        ["send, look for acks: once a cycle", "`ship`, `hear`", record_p50("Recorder.record, ship")],
        ["compare, record fill and order event, apply", "`Engine.process_fill`", record_p50("Engine.process_fill")],
    ]
    of_writer = [
        ["insert, commit, checkpoint in C", "ceiling.c", _figure(in_c)],
        ["the same from Python: rows, bookkeeping", "`Store.append`", _difference(store, in_c)],
        ["find, check and decode frames", "journal", _difference(journal, store)],
        ["messages, acks, and what shares the cores", "`Writer`", _difference(whole, journal)],
        ["the writer, in all", "", _figure(whole)],
    ]
    return "\n\n".join(
        [
            _table(["In the strategy", "where", "µs a call, p50: 1k/s / 10k/s / flat out"], of_strategy),
            _table(["In the writer, when it is never idle", "where", "µs of processor time an event"], of_writer),
        ]
    )


def _difference(more: float | None, less: float | None) -> str:
    return _NONE if more is None or less is None else f"{more - less:+.2f}"


# ---- how it is written


def _as_measured(name: str) -> Callable[[Results], str]:
    """Every row and column, but for the ends of what `spread` made; a table for each set of columns."""

    def titles(row: Found) -> list[str]:
        return [title for title in row if not title.endswith(("_min", "_max"))]

    def tables(results: Results) -> str:
        alike = [(of, list(rows)) for of, rows in groupby(results.rows(name), titles)]
        return "\n\n".join(_table(of, [[_of(row, title) for title in of] for row in rows]) for of, rows in alike) or _NONE

    return tables


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of(row: Found, column: str) -> str:
    return _figure(row.get(column))


def _figure(value: object) -> str:
    if value is None or value == "-":
        return _NONE
    if isinstance(value, int | float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _times(row: Found, column: str) -> str:
    value = row.get(column)
    return f"{value:.3g}×" if isinstance(value, int | float) else _NONE


def _time(us: float) -> str:
    return f"{us / 1000:.3g} ms" if us >= 1000 else f"{us:.3g} µs"


_TABLES: dict[str, Callable[[Results], str]] = {
    "machine": _machine,
    "alternatives": _alternatives,
    "targets": _targets,
    "stages": _stages,
    "history": _as_measured("recovery_time"),
}


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(), Results(RESULTS)))
