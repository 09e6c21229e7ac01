"""Pictures of what a benchmark has found, from its JSON alone, into the folder of the results."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Curves = dict[str, list[list[float]]]


def draw(name: str, result: Result, folder: Path) -> list[Path]:
    """Draw what there is to draw of a benchmark. Says so when the library is missing."""
    drawers = _DRAWERS.get(name)
    if drawers is None:
        return []
    if find_spec("matplotlib") is None:
        print("no pictures: there is no Python package matplotlib (pip install -e '.[bench]')")
        return []
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = name  # the same figures give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"
    return drawers(result, folder)


def _alternatives(result: Result, folder: Path) -> list[Path]:
    """One picture a rate: which share of the events made the strategy wait longer."""
    curves: Curves = result["series"]
    workers = max(int(name.split("|")[1]) for name in curves)
    rates = sorted({name.split("|")[2] for name in curves} - {"max"}, key=float)
    return [_latencies(curves, workers, rate, folder / f"alternatives-{rate}.svg") for rate in rates]


def _latencies(curves: Curves, workers: int, rate: str, path: Path) -> Path:
    figure, axes = _figure(f"How long a strategy waits for its event to be kept: {rate} events/s by {workers} processes")
    for name, points in curves.items():
        way, of_workers, of_rate = name.split("|")
        if (int(of_workers), of_rate) == (workers, rate):
            ours = way.startswith("Horizon")
            axes.plot(*_columns(points), label=way, linewidth=2.5 if ours else 1.0)
    axes.set(
        xscale="log", yscale="log", xlabel="microseconds from the intended moment", ylabel="share of events that took longer"
    )
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _saved(figure, path)


def _writer_throughput(result: Result, folder: Path) -> list[Path]:
    """Committed events by number of workers, with what SQLite takes at most as lines; one panel a durability."""
    durabilities = list({row["durability"]: None for row in result["rows"]})
    figure, panels = _figure("", len(durabilities))
    for durability, axes in zip(durabilities, panels if len(durabilities) > 1 else [panels], strict=True):
        rows = [row for row in result["rows"] if row["durability"] == durability]
        ours = [(int(row["way"].split()[1]), row) for row in rows if row["way"].startswith("Horizon")]
        counts = [count for count, _ in ours]
        reach = [[row["per_s"] - row["per_s_min"] for _, row in ours], [row["per_s_max"] - row["per_s"] for _, row in ours]]
        axes.errorbar(counts, [row["per_s"] for _, row in ours], reach, marker="o", capsize=3, linewidth=2.5, label="Horizon")
        for number, row in enumerate((row for row in rows if not row["way"].startswith("Horizon")), start=1):
            axes.axhline(row["per_s"], linestyle="--", linewidth=1, color=f"C{number}", label=row["way"])
        axes.set(
            title=f"Committed events per second, durability {durability}", xlabel="workers", ylabel="events/s", xticks=counts
        )
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return [_saved(figure, folder / "writer_throughput.svg")]


def _writer_kill_timeline(result: Result, folder: Path) -> list[Path]:
    """Recorded and committed around a kill of the writer, the first of each durability."""
    drawn = []
    for durability in {row["durability"]: None for row in result["rows"]}:
        figure, axes = _figure(f"The writer is killed: what strategies record, what is committed (durability {durability})")
        for what in ("recorded", "committed"):
            axes.step(*_columns(result["series"][f"{what}|{durability}|0"]), where="post", label=what)
        axes.axvline(0, color="red", linewidth=1, label="kill -9 of the writer")
        axes.set(xlabel="milliseconds", ylabel="records since the picture begins")
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))
        drawn.append(_saved(figure, folder / f"writer_kill_timeline-{durability}.svg"))
    return drawn


def _over_time(result: Result, folder: Path, name: str, unit_of: Callable[[str], str]) -> list[Path]:
    """One panel a unit, one line a thing."""
    curves: Curves = result["series"]
    units = list({unit_of(curve): None for curve in curves})
    figure, panels = _figure("", len(units))
    for unit, axes in zip(units, panels if len(units) > 1 else [panels], strict=True):
        for curve, points in curves.items():
            if unit_of(curve) == unit:
                axes.plot(*_columns(points), label=curve.split("|")[0], linewidth=1)
        axes.set(ylabel=unit, xlabel="minutes")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return [_saved(figure, folder / f"{name}.svg")]


def _memory(result: Result, folder: Path) -> list[Path]:
    return _over_time(result, folder, "memory", _unit)


def _soak(result: Result, folder: Path) -> list[Path]:
    return _over_time(result, folder, "soak", _unit)


def _unit(curve: str) -> str:
    return curve.split("|")[1]


_DRAWERS: dict[str, Callable[[Result, Path], list[Path]]] = {
    "alternatives": _alternatives,
    "writer_throughput": _writer_throughput,
    "writer_kill_timeline": _writer_kill_timeline,
    "memory": _memory,
    "soak": _soak,
}


def _figure(title: str, panels: int = 1) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(panels, 1, figsize=(9, 5 if panels == 1 else 3.2 * panels), layout="constrained", squeeze=True)
    if title:
        axes.set_title(title, fontsize="medium")
    for one in [axes] if panels == 1 else axes:
        one.grid(visible=True, linewidth=0.3)
    return figure, axes


def _columns(points: list[list[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
