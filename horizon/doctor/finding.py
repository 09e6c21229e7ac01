"""What a check says: whether it is well, in one sentence, and what to do about it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """A warning is what will hurt some day, a problem what hurts now or loses what must not be lost."""

    check: str  # what was looked at, in one or two words
    level: Level
    sentence: str
    remedy: str = ""  # a command, or a sentence; empty where nothing is to be done


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, "ok", sentence)


def warning(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, "warning", sentence, remedy)


def problem(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, "problem", sentence, remedy)
