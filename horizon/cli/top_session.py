"""What the keys of `horizon top` do: pure, so that every key can be tried without a terminal."""

from __future__ import annotations

from typing import NamedTuple

from horizon.cli.steering import open_things
from horizon.cli.text import one_line
from horizon.cli.top_watch import Answer
from horizon.control import Dump, ProcessStatus, Request, Reset, Restart, Start, StatusReply, Stop

MESSAGE_S = 10.0

KEYS = (
    ("up, k", "the process above"),
    ("down, j", "the process below"),
    ("s", "stop the strategy; it stays stopped until it is started"),
    ("t", "start it"),
    ("r", "restart it"),
    ("x", "reset it: end its quarantine, forget its crashes, start it"),
    ("d", "dump: what every thread of the process does now"),
    ("?", "this help"),
    ("q", "quit; nothing stops"),
)
_VERBS: dict[str, type[Stop] | type[Start] | type[Restart] | type[Reset]] = {"s": Stop, "t": Start, "r": Restart, "x": Reset}
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10}


class Question(NamedTuple):
    """What is done if the person says yes."""

    verb: type[Stop] | type[Start] | type[Restart] | type[Reset]
    name: str


class Session:
    """What the person looks at, and what was asked. `press` says what is to be told to the supervisor."""

    def __init__(self) -> None:
        self.selected = ""
        self.question: Question | None = None
        self.message = ""
        self.message_is_good = True
        self.pages: list[str] | None = None  # the lines of a text over everything: a dump, the help
        self.scrolled = 0
        self.is_over = False
        self._message_until = 0.0

    def follow(self, status: StatusReply | None, now: float) -> None:
        """Keep to what there is: a strategy may have been removed, a message may be old."""
        names = [] if status is None else [process.name for process in status.processes]
        if self.selected not in names:
            self.selected = names[0] if names else ""
        if self.question is not None and self.question.name not in names:
            self.question = None
        if now > self._message_until:
            self.message = ""

    def hear(self, answer: Answer, now: float) -> None:
        if isinstance(answer.request, Dump) and answer.is_good:
            self.pages, self.scrolled = answer.text.splitlines() or ["nothing"], 0
        else:
            self.say(answer.text, now, answer.is_good)

    def say(self, sentence: str, now: float, is_good: bool = True) -> None:
        self.message, self.message_is_good, self._message_until = one_line(sentence), is_good, now + MESSAGE_S

    def press(self, key: str, status: StatusReply | None, silence: str, now: float) -> Request | None:
        if self.pages is not None:
            self._turn_page(key)
        elif self.question is not None:
            return self._answer(key)
        elif key in _MOVES:
            self._move(_MOVES[key], status)
        elif key == "q":
            self.is_over = True
        elif key == "?":
            width = max(len(keys) for keys, _ in KEYS)
            self.pages, self.scrolled = [f"{keys:<{width}}  {what}" for keys, what in KEYS], 0
        elif key in _VERBS or key == "d":
            return self._command(key, status, silence, now)
        return None

    def _turn_page(self, key: str) -> None:
        assert self.pages is not None
        if key in _MOVES:
            self.scrolled = min(max(0, self.scrolled + _MOVES[key]), len(self.pages) - 1)
        else:
            self.pages = None

    def _answer(self, key: str) -> Request | None:
        """Only a clear yes is one."""
        assert self.question is not None
        question, self.question = self.question, None
        return question.verb([question.name]) if key in ("y", "Y") else None

    def _move(self, by: int, status: StatusReply | None) -> None:
        names = [] if status is None else [process.name for process in status.processes]
        if self.selected in names:
            self.selected = names[min(max(0, names.index(self.selected) + by), len(names) - 1)]

    def _command(self, key: str, status: StatusReply | None, silence: str, now: float) -> Request | None:
        process = process_of(status, self.selected)
        if silence or process is None:
            self.say("there is no supervisor to tell", now, is_good=False)
            return None
        if key == "d":
            self.say(f"asking {process.name} what it does", now)
            return Dump(process.name)
        if process.kind != "strategy":
            self.say(f"{process.name} is no strategy: it comes and goes with the supervisor", now, is_good=False)
            return None
        if _VERBS[key] is Start:
            return Start([process.name])
        self.question = Question(_VERBS[key], process.name)
        return None


def process_of(status: StatusReply | None, name: str) -> ProcessStatus | None:
    return None if status is None else next((process for process in status.processes if process.name == name), None)


def asked(question: Question, process: ProcessStatus | None, open_positions: int) -> str:
    """The question with what is at stake now, which may change while it stands there. `open_positions` are those of the database."""
    things = open_things(process, open_positions) if process is not None and process.pid is not None else ""
    name = one_line(question.name)
    stake = f"{name} has {things}. " if things else ""
    return f"{stake}{question.verb.__name__} {name}? y/n"
