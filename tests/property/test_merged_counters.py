"""Whatever incarnations count, and wherever they end: no counter that anybody sees ever falls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from horizon.telemetry import Family, Sample
from supervisor.gateway.merge import Merged

BUCKETS = ("1.0", "2.0", "+Inf")
# Of each incarnation: what it adds between two snapshots, by bucket, and whether this snapshot arrives.
INCARNATIONS = st.lists(
    st.lists(st.tuples(st.tuples(*[st.integers(0, 5)] * len(BUCKETS)), st.booleans()), max_size=6), min_size=1, max_size=6
)


@given(INCARNATIONS)
def test_counters_and_histograms_never_fall_and_lose_only_what_was_never_heard(
    incarnations: list[list[tuple[tuple[int, ...], bool]]],
) -> None:
    merged = Merged({}, lambda _: None)
    before: dict[tuple[str, str], float] = {}
    heard = 0
    for generation, snapshots in enumerate(incarnations):
        counts = [0] * len(BUCKETS)
        newest = 0
        for added, arrives in snapshots:
            counts = [count + more for count, more in zip(counts, added, strict=True)]
            if arrives:
                newest = sum(counts)
                merged.take("calm", {"strategy": "calm"}, generation, _families(counts), float(generation))
                now = _shown(merged, generation)
                assert all(now[series] >= value for series, value in before.items())
                _assert_is_a_histogram(now)
                before = now
        heard += newest
    assert before.get(("jobs_total", ""), 0) == heard


def _families(counts: list[int]) -> list[Family]:
    total = float(sum(counts))
    at_most = [float(sum(counts[: number + 1])) for number in range(len(counts))]
    buckets = [Sample("wait_bucket", {"le": le}, value) for le, value in zip(BUCKETS, at_most, strict=True)]
    return [
        Family("jobs", "counter", "", [Sample("jobs_total", {}, total)]),
        Family("wait", "histogram", "", [*buckets, Sample("wait_count", {}, total), Sample("wait_sum", {}, total)]),
    ]


def _shown(merged: Merged, now: float) -> dict[tuple[str, str], float]:
    return {(sample.name, sample.labels.get("le", "")): sample.value for one in merged.collect(now) for sample in one.samples}


def _assert_is_a_histogram(shown: dict[tuple[str, str], float]) -> None:
    values = [shown["wait_bucket", le] for le in BUCKETS]
    assert values == sorted(values)
    assert values[-1] == shown["wait_count", ""]
