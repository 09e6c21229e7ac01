"""What many processes count, as one set of series; pure.

A strategy that starts again begins to count at 0, so what its earlier incarnations counted is kept and added: no counter ever falls.
Gauges say how something is now: those of a process that is silent disappear. All is bounded, whatever an author registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from horizon.telemetry import LABEL, NAME, PREFIX, SAMPLES_MAX, Family

SILENT_AFTER_S = 5.0
FORGET_AFTER_S = 60.0  # a process that nobody knows any more
SOURCES_MAX = 1000
_ENDINGS = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
    "gauge": ("",),
    "unknown": ("",),
    "info": ("_info",),
    "stateset": ("",),
}
_RISING = ("counter", "histogram", "summary")

Labels = tuple[tuple[str, str], ...]  # sorted


class Group(NamedTuple):
    """The series that rise together: one counter, or one histogram with all its buckets."""

    family: str
    labels: Labels


Values = dict[tuple[str, Labels], float]  # by name of the sample and the labels that it has besides its group's


class Newest(NamedTuple):
    """A family in the newest snapshot, without what rises."""

    type: str
    help: str
    samples: dict[tuple[str, Labels], Sample]


class Merged:
    """All processes. `say` is told, once for each, of metrics that are left out."""

    def __init__(self, ours: Mapping[str, str], say: Callable[[str], None]) -> None:
        """`ours` are Horizon's own metrics by family, with their types."""
        self._ours = ours
        self._say = say
        self._said: set[str] = set()
        self._sources: dict[str, _Source] = {}

    def take(
        self,
        source: str,
        labels: dict[str, str],
        generation: int,
        families: Iterable[Family],
        now: float,
        room: int = SAMPLES_MAX,
    ) -> None:
        """Take a snapshot of a process. One of an incarnation before the newest is dropped: its time is over."""
        if source not in self._sources and len(self._sources) >= SOURCES_MAX:
            self._once(f"metrics of {source} are left out: {SOURCES_MAX} processes are counted already")
            return
        of = self._sources.setdefault(source, _Source(generation))
        if generation < of.generation:
            return
        if generation > of.generation:
            of.begin(generation)
        of.now, of.heard_at = {}, now
        for family in families:
            if self._is_fit(source, family):
                of.take(family, labels)
        of.forget_beyond(room)

    def forget_unknown(self, known: Collection[str], now: float) -> None:
        """Forget processes that nobody knows and that are silent: strategies that were removed, runs that were alone."""
        for source, of in list(self._sources.items()):
            if source not in known and now - of.heard_at > FORGET_AFTER_S:
                del self._sources[source]

    def collect(self, now: float) -> Iterator[Metric]:
        """Every series. Where two processes give one name to two things, the one that was heard of first keeps it."""
        merged: dict[str, Metric] = {}
        taken: set[str] = set()  # names in the exposition
        for source, of in self._sources.items():
            for name, family in of.shown(now - of.heard_at <= SILENT_AFTER_S):
                if name not in merged:
                    clash = next((one for one in _names(family.name, family.type) if one in taken), None)
                    if clash is not None:
                        self._once(f"metric {name} of {source} is left out: another one has the name {clash} already")
                        continue
                    merged[name] = Metric(name, family.documentation, family.type)
                    taken.update(_names(name, family.type))
                if merged[name].type != family.type:
                    self._once(
                        f"metric {name} of {source} is left out: it is a {family.type}, and of another strategy a {merged[name].type}"
                    )
                    continue
                merged[name].samples += family.samples
        return iter(merged.values())

    def _is_fit(self, source: str, family: Family) -> bool:
        if not NAME.fullmatch(family.name) or family.type not in _ENDINGS:
            self._once(
                f"metric {family.name[:100]!a} of {source} is left out: its name or its type {family.type[:100]!a} is not known"
            )
        elif family.name.startswith(PREFIX) and self._ours.get(family.name) != family.type:
            self._once(f"metric {family.name[:100]} of {source} is left out: names that begin with {PREFIX} are Horizon's own")
        else:
            return True
        return False

    def _once(self, sentence: str) -> None:
        if sentence not in self._said and len(self._said) < SOURCES_MAX:
            self._said.add(sentence)
            self._say(sentence)


class _Source:
    """One process, through all its incarnations."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.heard_at = 0.0
        self.now: dict[str, Newest] = {}  # by family
        self._types: dict[str, tuple[str, str]] = {}  # type and help of the families that rise
        self._before: dict[Group, Values] = {}  # counted by earlier incarnations
        self._counted: dict[Group, Values] = {}  # by this one; what was heard of last stands last

    def begin(self, generation: int) -> None:
        """A new incarnation: what the last one counted is history."""
        self.generation = generation
        for group in list(self._counted):
            self._retire(group)

    def take(self, family: Family, labels: dict[str, str]) -> None:
        if family.name in self.now and self.now[family.name].type != family.type:
            return  # two collectors of one program; the first one stays
        if self._types.get(family.name, (family.type,))[0] != family.type:
            self._drop(family.name)  # another program under the same name
        newest = self.now.setdefault(family.name, Newest(family.type, family.help, {}))
        rising: dict[Group, Values] = {}
        for sample in family.samples:
            if not _is_valid(family, sample.name, sample.labels, sample.value):
                continue
            own = {f"exported_{key}" if key in labels else key: value for key, value in sample.labels.items()} | labels
            bucket = tuple((key, own.pop(key)) for key in ("le",) if family.type == "histogram" and key in own)
            key = tuple(sorted(own.items()))
            if family.type in _RISING and "quantile" not in own:
                rising.setdefault(Group(family.name, key), {})[sample.name, bucket] = sample.value
            else:
                newest.samples[sample.name, key] = Sample(sample.name, own, sample.value)
        if rising:
            self._types[family.name] = family.type, family.help
        for group, values in rising.items():
            self._count(group, values)

    def shown(self, is_heard: bool) -> Iterator[tuple[str, Metric]]:
        """The families with all their series; of one that is not heard only what it has counted."""
        families = {name: Metric(name, text, kind) for name, (kind, text) in self._types.items()}
        if is_heard:
            for name, newest in self.now.items():
                families.setdefault(name, Metric(name, newest.help, newest.type)).samples += newest.samples.values()
        for group in [*self._before, *(group for group in self._counted if group not in self._before)]:
            values = self._total(group)
            families[group.family].samples += [
                Sample(name, dict(group.labels + bucket), value) for (name, bucket), value in values.items()
            ]
        yield from ((name, metric) for name, metric in families.items() if metric.samples)

    def forget_beyond(self, room: int) -> None:
        """Forget the oldest of what is not counted any more, until there is room: an author may label by order.

        Horizon's own series are few, and the last to go.
        """
        excess = sum(map(len, self._counted.values())) - room
        excess += sum(len(values) for group, values in self._before.items() if group not in self._counted)
        if excess <= 0:
            return
        past = [group for group in self._before if group not in self._counted]
        for group in sorted([*past, *self._counted], key=lambda group: group.family.startswith(PREFIX)):
            excess -= len(self._total(group))
            self._before.pop(group, None)
            self._counted.pop(group, None)
            if excess <= 0:
                break
        kept = {group.family for group in (*self._before, *self._counted)}
        self._types = {family: said for family, said in self._types.items() if family in kept}

    def _count(self, group: Group, values: Values) -> None:
        counted = self._counted.get(group)
        if counted is not None and _events(values) < _events(counted):
            self._retire(group)  # begun anew by the program itself
        self._counted.pop(group, None)
        self._counted[group] = values
        before = self._before.get(group)
        if before is not None and before.keys() != values.keys():
            del self._before[group]  # other buckets cannot be added up

    def _retire(self, group: Group) -> None:
        total = self._total(group)
        self._before.pop(group, None)
        self._before[group] = total
        del self._counted[group]

    def _total(self, group: Group) -> Values:
        before, counted = self._before.get(group, {}), self._counted.get(group, {})
        return {key: before.get(key, 0.0) + counted.get(key, 0.0) for key in {**before, **counted}}

    def _drop(self, family: str) -> None:
        del self._types[family]
        for groups in (self._before, self._counted):
            for group in [group for group in groups if group.family == family]:
                del groups[group]


def _events(values: Values) -> float:
    """What cannot fall: a counter's value, a histogram's count."""
    return next((value for (name, _), value in values.items() if not name.endswith(("_sum", "_bucket"))), 0.0)


def _is_valid(family: Family, name: str, labels: Mapping[str, str], value: float) -> bool:
    """Whether a line of the exposition may say so: one wrong line costs a scraper all of them."""
    ending = name.removeprefix(family.name)
    if not name.startswith(family.name) or ending not in _ENDINGS[family.type]:
        return False
    if not all(LABEL.fullmatch(key) and not key.startswith("__") for key in labels):
        return False
    if ending == "_bucket" and not _is_number(labels.get("le", "")):
        return False
    return family.type not in _RISING or ending in ("", "_sum") or (value >= 0 and math.isfinite(value))


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def _names(family: str, kind: str) -> tuple[str, ...]:
    """Every name that a family may have in the text or in the OpenMetrics format."""
    return family, *(family + ending for ending in _ENDINGS[kind] if ending)
