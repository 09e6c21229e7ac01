"""The place of one process: its life by the rules of worker_states.py, its incarnation if there is one, and what its incarnations did."""

from __future__ import annotations

import signal
from typing import Literal

import msgspec

from horizon.channel import Draining, Heartbeat, Phase, Ready, WriterBeat
from horizon.cli.live import StrategyRow
from horizon.control import ProcessStatus
from horizon.errors import ExitCode
from supervisor.child import Child
from supervisor.limits import Memory
from supervisor.liveness import Watch
from supervisor.worker_states import Life, State

Kind = Literal["strategy", "writer", "gateway"]
_LOADING_S = 1.0
_SAY_GARBAGE_EVERY_S = 10.0


class Did(msgspec.Struct):
    """What a strategy did, over all its incarnations, by the last word of each."""

    starts: int = 0
    cycles: int = 0
    orders: int = 0
    fills: int = 0


class Slot:
    """One strategy of the configuration, the writer or the gateway."""

    def __init__(self, name: str, kind: Kind, life: Life) -> None:
        self.name = name
        self.kind = kind
        self.life = life
        self.child: Child | None = None
        self.watch: Watch | None = None  # of the incarnation, while it lives
        self.memory = Memory()  # of the newest incarnation
        self.heartbeat = Heartbeat()  # the newest of the newest incarnation
        self.writer_beat: WriterBeat | None = None
        self.heard_at: float | None = None  # when it last said something
        self.draining: Draining | None = None
        self.runs: list[str] = []  # the run id of every incarnation that became ready
        self.was_ready = False  # some incarnation of it
        self.exit_code: int | None = None  # of the incarnation that ended last; negative: the signal
        self.last_end = ""
        self.said_hang = False
        self.hangs = 0  # how often it was killed for one
        self.is_leaving = False  # the configuration does not know it any more
        self.dump_text: str | None = None  # the newest answer to a question of a person
        self._did = Did()
        self._garbage = 0
        self._say_garbage_at = 0.0
        self._is_stalled = False
        self._why_killed = ""

    @property
    def title(self) -> str:
        """What sentences call it."""
        return self.name if self.kind == "strategy" else f"the {self.name}"

    @property
    def is_ready(self) -> bool:
        return self.life.state in (State.READY, State.DEGRADED)

    @property
    def is_over(self) -> bool:
        """Neither alive nor to be started again by itself."""
        return self.child is None and self.life.start_at is None

    @property
    def run_id(self) -> str:
        return self.runs[-1] if self.runs and self.is_ready else ""

    def begin(self, child: Child, watch: Watch) -> None:
        """An incarnation was started."""
        self.child = child
        self.watch = watch
        self.memory = Memory(child.group)
        self.draining = None
        self.writer_beat = None
        self.heard_at = child.started_at
        self._did.starts += 1
        self._garbage = 0
        self._why_killed = ""

    def hear(self, now: float) -> bool:
        """Take what the process said of itself. Returns whether it said that it is ready."""
        assert self.child is not None
        assert self.watch is not None
        says_ready = False
        for message in self.child.channel.receive():
            self.heard_at = now
            if isinstance(message, Ready):
                says_ready = self.was_ready = True
                self.runs.append(message.run_id)
                self.watch.ready(now)
            elif isinstance(message, Phase):
                self.watch.in_phase(now, message.name)
            elif isinstance(message, Heartbeat):
                self.heartbeat = message
                self.watch.heard(now, message.progress)
            elif isinstance(message, WriterBeat):
                self.writer_beat = message
                self.watch.heard(now, message.progress)
            elif isinstance(message, Draining):
                self.draining = message
        return says_ready

    def is_loading(self, now: float) -> bool:
        """Whether it was started just now. One that takes longer holds nobody else up."""
        return self.child is not None and not self.is_ready and now - self.child.started_at < _LOADING_S

    @property
    def waits_for_a_writer(self) -> bool:
        """Whether it cannot go on while there is no writer: until it is ready it reads what was committed."""
        return self.kind == "strategy" and not self.is_ready

    def shift(self, seconds: float) -> None:
        """Do not count so much of the time that has passed against it."""
        if self.watch is not None and seconds > 0.0:
            self.watch.shift(seconds)

    def silence(self, now: float) -> str:
        """How long it has said nothing, and what it did last."""
        assert self.watch is not None
        phase = f" while {self.watch.phase}" if self.watch.phase else ""
        return f"no sign of life for {now - self.watch.since:.0f} s{phase}"

    @property
    def is_a_wrong_start(self) -> bool:
        """In quarantine because its file or its table is wrong, and never ready: only a person who corrects it can help."""
        return (
            self.life.state is State.QUARANTINED and not self.was_ready and self.exit_code in (ExitCode.USAGE, ExitCode.STRATEGY)
        )

    def new_garbage(self, now: float, has_ended: bool) -> int:
        """How many packets that nobody understands have come and were not said yet; a flood of them is not a flood of sentences."""
        assert self.child is not None
        new = self.child.channel.garbage - self._garbage
        if not new or (now < self._say_garbage_at and not has_ended):
            return 0
        self._garbage += new
        self._say_garbage_at = now + _SAY_GARBAGE_EVERY_S
        return new

    def news_of_the_database(self) -> str | None:
        """Why the writer cannot write, once when that begins; empty once when it can again. None: nothing new."""
        beat = self.writer_beat
        if beat is None or bool(beat.stalled) == self._is_stalled:
            return None
        self._is_stalled = bool(beat.stalled)
        return beat.stalled

    def hang(self, now: float) -> str:
        """It will be killed for that: its end shall say so, for the signal alone tells nobody who sent it."""
        self.hangs += 1
        silence = self.silence(now)
        self._why_killed = f"was killed because it hung: {silence}"
        return silence

    def why_killed(self, exit_code: int) -> str:
        """Why the supervisor killed it; empty when it was somebody else, or when it ended before."""
        return self._why_killed if exit_code == -signal.SIGKILL else ""

    def bury(self, exit_code: int, last_end: str) -> None:
        """The process has ended, and its last words were heard."""
        assert self.child is not None
        self.child.close()
        self.child = None
        self.watch = None
        self.exit_code = exit_code
        self.last_end = last_end
        self._did = self.did
        self.heartbeat = msgspec.structs.replace(self.heartbeat, cycles=0, orders=0, fills=0)

    @property
    def did(self) -> Did:
        now = self.heartbeat
        return Did(self._did.starts, self._did.cycles + now.cycles, self._did.orders + now.orders, self._did.fills + now.fills)

    @property
    def unacked(self) -> int:
        return self.draining.unacked if self.draining else self.heartbeat.unacked

    def status(self, now: float, has_journal: bool = True) -> ProcessStatus:
        """`has_journal`: whether the newest run's journal is still there; without one all of it is stored."""
        life, child, beat, did = self.life, self.child, self.heartbeat, self.did
        return ProcessStatus(
            name=self.name,
            kind=self.kind,
            state=life.state.value,
            wanted=life.wanted,
            why=life.why,
            pid=child.pid if child else None,
            run_id=self.run_id,
            starts=did.starts,
            restarts=life.restarts,
            hangs=self.hangs,
            uptime_s=now - child.started_at if child else None,
            heartbeat_age_s=now - self.watch.since if self.watch else None,
            next_start_s=max(0.0, life.start_at - now) if life.start_at is not None else None,
            exit_code=self.exit_code,
            last_end=self.last_end,
            is_done=life.is_done,
            rss_bytes=(self.memory.held_bytes or child.rss_bytes()) if child else None,
            cycles=did.cycles,
            orders=did.orders,
            fills=did.fills,
            open_orders=beat.open_orders,
            position=beat.position,
            pnl=beat.pnl,
            unacked=self.unacked if has_journal else 0,
            journal_bytes=beat.journal_bytes if has_journal else 0,
            latency_ms=beat.latency_ms,
            kill_switch=beat.kill_switch,
            hold=beat.hold,
            log_dropped=beat.log_dropped,
            last_error=beat.last_error,
        )

    def row(self, now: float) -> StrategyRow:
        beat, did = self.heartbeat, self.did
        return StrategyRow(
            strategy=self.name,
            state=self._state_in_a_word,
            pid=self.child.pid if self.child else None,
            uptime_s=now - self.child.started_at if self.child else None,
            cycles=did.cycles,
            orders=did.orders,
            fills=did.fills,
            position=beat.position,
            pnl=beat.pnl,
            unacked=self.unacked,
            latency_ms=beat.latency_ms,
        )

    @property
    def _state_in_a_word(self) -> str:
        if self.life.state is State.STOPPED and self.life.is_done:
            return "done"
        if self.life.state is State.STOPPED and self.life.start_at is not None:
            return "waiting"
        return self.life.state.value
