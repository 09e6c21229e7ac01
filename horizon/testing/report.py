"""How claims are judged and reported; shared by the contracts of venues and feeds."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

KEPT, BROKEN, NOT_CHECKED = "kept", "BROKEN", "not checked"

# Unix seconds of 1980 and 2100: a time outside is counted in milliseconds, or from another epoch.
_EARLIEST_S, _LATEST_S = 315_532_800.0, 4_102_444_800.0


class Outcome(NamedTuple):
    claim: str
    verdict: str  # KEPT, BROKEN or NOT_CHECKED
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What became of each claim; as text, one line per claim."""

    subject: str
    outcomes: Sequence[Outcome]

    @property
    def ok(self) -> bool:
        return not self.broken

    @property
    def broken(self) -> tuple[str, ...]:
        return tuple(outcome.claim for outcome in self.outcomes if outcome.verdict == BROKEN)

    @property
    def not_checked(self) -> tuple[str, ...]:
        return tuple(outcome.claim for outcome in self.outcomes if outcome.verdict == NOT_CHECKED)

    def __str__(self) -> str:
        verdict = "keeps the contract" if self.ok else f"breaks {len(self.broken)} of {len(self.outcomes)} claims of the contract"
        lines = [f"{self.subject} {verdict}:"]
        for claim, state, detail in self.outcomes:
            lines.append(f"  {state:<11}  {claim.replace('_', ' ')}" + (f": {detail}" if detail else ""))
        return "\n".join(lines)


class ContractBroken(AssertionError):
    """An adapter breaks a claim of its contract; `report` says which."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


class Broken(Exception):
    """A claim does not hold; the text says how."""


class NotChecked(Exception):
    """A claim cannot be checked; the text says what is missing."""


class Bench(Protocol):
    """One adapter under test."""

    subject: str

    def begin(self) -> None:
        """Make the adapter afresh."""
        ...

    def end(self) -> None: ...


_Bench = TypeVar("_Bench", bound=Bench)


def judge(claims: Mapping[str, Callable[[_Bench], None]], chosen: Iterable[str] | None, bench: _Bench) -> Report:
    """Check the chosen claims, or all. Raises: ContractBroken; ValueError for a claim that does not exist."""
    names = list(claims) if chosen is None else list(chosen)
    unknown = [name for name in names if name not in claims]
    if unknown:
        raise ValueError(f"no such claim: {', '.join(unknown)}; there are {', '.join(claims)}")
    outcomes = [_outcome(name, claims[name], bench) for name in names]
    report = Report(bench.subject, outcomes)
    if not report.ok:
        raise ContractBroken(report)
    return report


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Broken(message)


def look_like_unix_seconds(timestamp: float) -> bool:
    return _EARLIEST_S < timestamp < _LATEST_S


def _outcome(name: str, claim: Callable[[_Bench], None], bench: _Bench) -> Outcome:
    try:
        bench.begin()
        try:
            claim(bench)
        finally:
            bench.end()
    except NotChecked as reason:
        return Outcome(name, NOT_CHECKED, str(reason))
    except Broken as reason:
        return Outcome(name, BROKEN, str(reason))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(name, BROKEN, f"{error!r} was raised in {place.name} ({place.filename}:{place.lineno})")
    return Outcome(name, KEPT)
