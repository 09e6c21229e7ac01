"""Pictures of what a benchmark has found, from its JSON alone, into the folder of the results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Curves = dict[str, list[list[float]]]

_CEILINGS = ("C, all", "apsw executemany", "sqlite3 executemany")

# On no ground of its own, so that a picture can be read on a light page and on a dark one.
_GREY = "#768390"
_COLOURS = ("#2f81f7", "#d9730d", "#2da44e", "#a371f7", "#e5534b", "#b08800", "#d6569a", "#17a2a2", "#8a6d5a", "#6e7bd9")
_TEXTS = (
    *("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor"),
    *("xtick.color", "ytick.color", "grid.color", "legend.labelcolor"),
)


def draw(name: str, result: Result, folder: Path) -> list[Path]:
    """Draw what there is to draw of a benchmark. Says so when the library is missing."""
    drawers = _DRAWERS.get(name)
    if drawers is None:
        return []
    if find_spec("matplotlib") is None:
        print("no pictures: there is no Python package matplotlib (pip install -e '.[bench]')", file=sys.stderr)
        return []
    import matplotlib

    matplotlib.use("svg")
    from cycler import cycler

    matplotlib.rcParams |= {
        "svg.hashsalt": name,  # the same figures give the same file
        "svg.fonttype": "none",
        "savefig.transparent": True,
        "axes.prop_cycle": cycler(color=_COLOURS),
        "axes.grid": True,
        "grid.linewidth": 0.3,
        "axes.titlesize": "medium",
        "legend.frameon": False,
        **dict.fromkeys(_TEXTS, _GREY),
    }
    return drawers(result, folder)


def _alternatives(result: Result, folder: Path) -> list[Path]:
    """One picture a rate: how many of the events made the strategy wait longer."""
    curves: Curves = result["series"]
    workers = max((int(name.split("|")[1]) for name in curves), default=0)  # no curves without a paced rate
    rates = sorted({name.split("|")[2] for name in curves} - {"max"}, key=float)
    return [_latencies(curves, workers, rate, folder / f"alternatives-{rate}.svg") for rate in rates]


def _latencies(curves: Curves, workers: int, rate: str, path: Path) -> Path:
    figure, (axes,) = _figure()
    for name, points in curves.items():
        way, of_workers, of_rate = name.split("|")
        if (int(of_workers), of_rate) == (workers, rate):
            width, style = (2.5, "-") if way.startswith("Horizon") else (1.0, ":" if way == "nothing" else "-")
            again = len(axes.get_lines()) >= len(_COLOURS)  # the colours have come round
            axes.plot(*_columns(points), label=way, linewidth=width, linestyle="--" if again else style)
    title = f"How long a strategy waits for its event to be kept: {rate} events/s by {workers} processes"
    _shares(axes, title, "microseconds from the intended moment", "events that took longer")
    return _saved(figure, path)


def _record_cost(result: Result, folder: Path) -> list[Path]:
    """One panel a call: which share of the calls took longer, at which rate."""
    curves: Curves = result["series"]
    calls = list({name.split("|")[0]: None for name in curves})
    figure, panels = _figure(len(calls))
    for call, axes in zip(calls, panels, strict=True):
        for name, points in curves.items():
            if name.split("|")[0] == call:
                axes.plot(*_columns(points), label=_rate(name.split("|")[1]))
        _shares(axes, f"{call}: how long the strategy waits", "microseconds", "calls that took longer")
    return [_saved(figure, folder / "record_cost.svg")]


def _fill_to_commit(result: Result, folder: Path) -> list[Path]:
    """How long until an ack is heard: by rate, and by what the writer or a reader does meanwhile."""
    curves: Curves = result["series"]
    workers = 4 if any(name.split("|")[1] == "4" for name in curves) else max(int(name.split("|")[1]) for name in curves)
    durabilities = list({name.split("|")[0]: None for name in curves})
    drawn = []
    for what in ("rate", "tail"):
        figure, panels = _figure(len(durabilities))
        for durability, axes in zip(durabilities, panels, strict=True):
            for name, points in curves.items():
                of_durability, of_workers, rate, case = name.split("|")
                if (of_durability, int(of_workers), bool(case)) == (durability, workers, what == "tail"):
                    axes.plot(*_columns(points), label=case or _rate(rate))
            of = f"{workers} strategies, durability {durability}"
            title = f"Recorded to acknowledged: {of}"
            if what == "tail":
                rate = next(name.split("|")[2] for name in curves if name.split("|")[3])
                title = f"What makes the tail at {rate} events/s: {of}"
            _shares(axes, title, "milliseconds from the intended moment", "events that took longer")
        drawn.append(_saved(figure, folder / f"fill_to_commit-{what}.svg"))
    return drawn


def _writer_throughput(result: Result, folder: Path) -> list[Path]:
    """Committed events by number of workers, with what SQLite takes at most as lines; one panel a durability."""
    durabilities = list({row["durability"]: None for row in result["rows"]})
    figure, panels = _figure(len(durabilities))
    for durability, axes in zip(durabilities, panels, strict=True):
        rows = [row for row in result["rows"] if row["durability"] == durability]
        ours = [(int(row["way"].split()[1]), row) for row in rows if row["way"].startswith("Horizon")]
        counts = [count for count, _ in ours]
        reach = [[row["per_s"] - row["per_s_min"] for _, row in ours], [row["per_s_max"] - row["per_s"] for _, row in ours]]
        axes.errorbar(counts, [row["per_s"] for _, row in ours], reach, marker="o", capsize=3, linewidth=2.5, label="Horizon")
        for number, row in enumerate((row for row in rows if row["way"] in _CEILINGS), start=1):
            axes.axhline(row["per_s"], linestyle="--", linewidth=1, color=f"C{number}", label=row["way"])
        axes.set(title=f"Committed at saturation, durability {durability}", xlabel="strategies", ylabel="events/s", xticks=counts)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend(axes)
    return [_saved(figure, folder / "writer_throughput.svg")]


def _writer_kill_timeline(result: Result, folder: Path) -> list[Path]:
    """Recorded and committed around a kill of the writer, the first of each durability."""
    drawn = []
    for durability in {row["durability"]: None for row in result["rows"]}:
        figure, (axes,) = _figure()
        for what in ("recorded", "committed"):
            axes.step(*_columns(result["series"][f"{what}|{durability}|0"]), where="post", label=what)
        axes.axvline(0, color="red", linewidth=1, label="kill -9 of the writer")
        axes.set(xlabel="milliseconds from the kill", ylabel="records since the picture begins")
        axes.set_title(f"What strategies record and what is committed when the writer is killed, durability {durability}")
        _legend(axes)
        drawn.append(_saved(figure, folder / f"writer_kill_timeline-{durability}.svg"))
    return drawn


def _over_time(curves: Curves, path: Path, title: str) -> Path:
    """One panel a unit, one line a thing."""
    units = list({_unit(curve): None for curve in curves})
    figure, panels = _figure(len(units))
    for unit, axes in zip(units, panels, strict=True):
        for curve, points in curves.items():
            if _unit(curve) == unit:
                axes.plot(*_columns(points), label=curve.split("|")[0], linewidth=1)
        axes.set(ylabel=unit, xlabel="minutes")
        axes.set_ylim(bottom=0)
        _legend(axes)
    panels[0].set_title(title)
    return _saved(figure, path)


def _memory(result: Result, folder: Path) -> list[Path]:
    return [_over_time(result["series"], folder / "memory.svg", "Memory under load")]


def _soak(result: Result, folder: Path) -> list[Path]:
    curves: Curves = result["series"]
    times = {name: points for name, points in curves.items() if _unit(name).startswith(("µs", "ms"))}
    sizes = {name: points for name, points in curves.items() if name not in times}
    return [
        _over_time(sizes, folder / "soak-sizes.svg", "What becomes of memory and files under load"),
        _over_time(times, folder / "soak-times.svg", "What becomes of the time to record and to commit under load"),
    ]


def _unit(curve: str) -> str:
    return curve.split("|")[1]


_DRAWERS: dict[str, Callable[[Result, Path], list[Path]]] = {
    "alternatives": _alternatives,
    "record_cost": _record_cost,
    "fill_to_commit": _fill_to_commit,
    "writer_throughput": _writer_throughput,
    "writer_kill_timeline": _writer_kill_timeline,
    "memory": _memory,
    "soak": _soak,
}


def _figure(panels: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        panels, 1, figsize=(9, 5 if panels == 1 else 3.2 * panels), layout="constrained", squeeze=False
    )
    return figure, [row[0] for row in axes]


def _shares(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Both axes logarithmic: the median and the worst of a hundred thousand are read from one line."""
    axes.set(xscale="log", yscale="log", title=title, xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.yaxis.set_major_formatter(lambda share, _: "all" if share == 1 else f"1 in {round(1 / share):,}")
    _legend(axes)


def _legend(axes: Any) -> None:
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))


def _rate(rate: str) -> str:
    return "flat out" if rate == "max" else f"{rate} events/s"


def _columns(points: list[list[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
