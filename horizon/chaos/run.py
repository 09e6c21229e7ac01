"""One trial: start the victims, do to them what the plan says, end cleanly, and let the referee judge what is left."""

from __future__ import annotations

import math
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec

from horizon.chaos.fleet import Fleet, Ground, Member, adopting, descendants, kill, prepare, processes
from horizon.chaos.plan import FullDisk, Kill, Moment, Pause, Step, Target, make_plan
from horizon.chaos.referee import Verdict, judge
from horizon.chaos.watch import Watch
from horizon.errors import ConfigError, is_disk_full

_LOOK_EVERY_S = 0.001
_COMES_BACK_WITHIN_S = 60.0  # else the trial is over, and lost
_MOMENT_WITHIN_S = 1.5  # who shows no such moment is killed at any
_GIVES_UP_WITHIN_S = 5.0
_TEND_EVERY_S = 0.05
_BALLAST = "ballast"
_SMALL_DISK_MIB = (200, 60)  # and so much more for each worker: a journal takes 16 MiB


class Trial(NamedTuple):
    """What was asked for."""

    workers: int
    kills: int
    seconds: float  # no kill comes later than this
    seed: int
    durability: str
    folder: Path
    small_disk: bool = False


class Report(msgspec.Struct):
    """What was done, how it was taken, and what the referee says."""

    seed: int
    kills: dict[str, int]  # by target
    close_kills: dict[str, int]  # of them, within 5 ms after which moment
    planned: int
    rounds: int
    pauses: int
    full_disks: int | None  # None: not tried
    lasted_s: float
    recovery_median_s: float | None  # kill -> first new commit
    recovery_max_s: float | None
    longest_gap_s: float  # without a commit
    trouble: list[str]  # what did not come back or did not end as it should
    verdict: Verdict
    kept_in: str | None = None  # where everything lies, when there is something to look at

    @property
    def is_clean(self) -> bool:
        return self.verdict.is_clean and not self.trouble and self.verdict.events > 0


def run(trial: Trial, say: Callable[[str], None]) -> Report:
    """Carry out a trial in a folder of its own, which is removed unless there is something to look at.

    Raises: ConfigError; KeyboardInterrupt, also for SIGTERM and SIGHUP. Whatever is raised, no process of the trial is left.
    """
    _check(trial)
    folder = Path(tempfile.mkdtemp(prefix="horizon-chaos-", dir=trial.folder)).resolve()
    try:
        with _interrupted_by_signals():
            report = _in_folder(trial, Ground(folder), say)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if report.is_clean:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        report.kept_in = str(folder)
    return report


def _in_folder(trial: Trial, ground: Ground, say: Callable[[str], None]) -> Report:
    ground.data.mkdir()
    with _small_disk(ground.data, trial.workers) if trial.small_disk else nullcontext():
        strategies = prepare(ground, trial.workers, trial.seed, trial.durability)
        chaos = Chaos(trial, ground, strategies, say)
        with adopting():
            chaos.carry_out()
        say("comparing what was recorded with what is stored")
        report = chaos.report(judge(ground.paths.database, ground.witness, ground.accounts))
        if trial.small_disk and not report.is_clean:
            shutil.copytree(ground.data, ground.folder / "data-of-small-disk", ignore=shutil.ignore_patterns("*.sock"))
    return report


def _check(trial: Trial) -> None:
    if not trial.folder.is_dir():
        raise ConfigError(f"{trial.folder} is not a folder: --folder names one on the disk that is to be tried")
    if trial.small_disk and os.geteuid() != 0:
        raise ConfigError("--small-disk mounts a small disk to fill it up, and only root may mount: leave it out, or run as root")


class Chaos:
    """The hand that kills. It looks at everything about a thousand times a second."""

    def __init__(self, trial: Trial, ground: Ground, strategies: list[str], say: Callable[[str], None]) -> None:
        self._trial = trial
        self._ground = ground
        self._strategies = strategies
        self._say = say
        self._plan = make_plan(trial.seed, trial.kills, trial.small_disk)
        self._watch = Watch(ground.paths)
        self._fleet = Fleet(ground, strategies, supervised=True)
        self._kills: Counter[Target] = Counter()
        self._close: Counter[Moment] = Counter()
        self._rounds = self._pauses = self._full_disks = 0
        self._trouble: list[str] = []
        self._stopped: dict[int, float] = {}  # when each stopped process goes on
        self._full_until: float | None = None
        self._full_at = -math.inf  # when the disk was full last
        self._tend_at = 0.0
        self._began_at = time.monotonic()
        self._lasted_s = 0.0

    def carry_out(self) -> None:
        """All rounds, then a clean end. What did not come back stands in the report."""
        *rounds, last = self._plan
        try:
            for one in rounds:
                if self._is_over():
                    break
                self._live(one.supervised, one.steps)
            self._live(True, last.steps)
            self._end()
        finally:
            self._watch.close()
            self._lasted_s = time.monotonic() - self._began_at

    def report(self, verdict: Verdict) -> Report:
        recovery = self._watch.recovery_s
        return Report(
            seed=self._trial.seed,
            kills={target.value: self._kills[target] for target in Target},
            close_kills={moment.value: self._close[moment] for moment in Moment if moment is not Moment.ANY},
            planned=self._trial.kills,
            rounds=self._rounds,
            pauses=self._pauses,
            full_disks=self._full_disks if self._trial.small_disk else None,
            lasted_s=self._lasted_s,
            recovery_median_s=statistics.median(recovery) if recovery else None,
            recovery_max_s=max(recovery, default=None),
            longest_gap_s=self._watch.longest_gap_s,
            trouble=self._trouble,
            verdict=verdict,
        )

    # ---- rounds

    def _live(self, supervised: bool, steps: tuple[Step, ...]) -> None:
        """One life of everything, as far as the plan and the time take it."""
        self._rounds += 1
        self._fleet = Fleet(self._ground, self._strategies, supervised)
        self._watch.forget()
        self._fleet.start()
        for step in steps:
            if self._is_over():
                if not supervised:
                    kill(descendants())  # strategies that run alone would keep the supervised ones out
                break
            self._do(step)
        self._say(f"{self._kills.total()} of {self._trial.kills} kills, {time.monotonic() - self._began_at:.0f} s")

    def _end(self) -> None:
        """Let everything come back once more, then stop it as a person would."""
        self._wait(lambda: not self._stopped and self._full_until is None, _COMES_BACK_WITHIN_S)
        self._watch.forget()
        self._await_trading()
        if not self._fleet.stop():
            self._trouble.append("the supervisor did not end cleanly when it was asked to stop")
        if not self._wait(lambda: not descendants(), _COMES_BACK_WITHIN_S):
            self._trouble.append("processes were left after the supervisor had ended")

    def _is_over(self) -> bool:
        return bool(self._trouble) or time.monotonic() - self._began_at >= self._trial.seconds

    # ---- steps

    def _do(self, step: Step) -> None:
        if isinstance(step, Kill) and step.when_all_trade:
            self._await_trading()
        self._wait(_never, step.gap_s)
        if isinstance(step, Kill):
            self._kill(step)
        elif isinstance(step, Pause):
            self._pause(step)
        else:
            self._fill_disk(step)

    def _kill(self, step: Kill) -> None:
        if step.moment is not Moment.ANY and self._kill_close(step):
            self._close[step.moment] += 1
            return
        if not self._wait(lambda: self._strike(step, self._fleet.members()), _COMES_BACK_WITHIN_S):
            self._trouble.append(f"no {step.target.value} came back within {_COMES_BACK_WITHIN_S:g} s")

    def _kill_close(self, step: Kill) -> bool:
        """Strike within 5 ms after a moment; False when it did not come. Whom to strike is known before: finding out takes time."""
        members = self._fleet.members()
        born: list[Member] = []
        if step.moment is Moment.START:
            before = processes()

            def came() -> bool:
                born[:] = [one for one in self._fleet.newborn(before) if _may_strike(step.target, one)]
                return bool(born)

        else:
            came = _changed(self._watch, step.moment)
        if not self._wait(came, _MOMENT_WITHIN_S):
            return False
        time.sleep(step.delay_s)
        single = step.target in (Target.WORKER, Target.WRITER)
        return self._strike(step, born if born and single else members)

    def _strike(self, step: Kill, members: list[Member]) -> bool:
        """SIGKILL one of them, or everything; False when there was nobody to hit."""
        victims = [one for one in members if one.target is step.target]
        victim = _pick(victims, step.pick) if victims else None
        pids = [victim.pid] if victim is not None else descendants() if step.target is Target.ALL and members else []
        if not kill(pids):
            return False
        self._kills[step.target] += 1
        strategy = victim.strategy if victim is not None else None
        # A worker that had no name yet has recorded nothing: there is no commit of it to wait for.
        if step.target is not Target.WORKER or strategy is not None:
            self._watch.killed(strategy, by_newer_run=step.target is not Target.WRITER)
        return True

    def _await_trading(self) -> None:
        everyone = set(self._strategies)
        if not self._wait(lambda: everyone <= self._watch.trading, _COMES_BACK_WITHIN_S):
            missing = ", ".join(sorted(everyone - self._watch.trading))
            self._trouble.append(f"{missing} did not trade again within {_COMES_BACK_WITHIN_S:g} s")

    def _pause(self, step: Pause) -> None:
        victims = [one for one in self._fleet.members() if one.target is step.target]
        if victims:
            pid = _pick(victims, step.pick).pid
            kill([pid], signal.SIGSTOP)
            self._stopped[pid] = time.monotonic() + step.stopped_s
            self._pauses += 1

    def _fill_disk(self, step: FullDisk) -> None:
        with (self._ground.data / _BALLAST).open("ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                _write_until_full(ballast.fileno(), bytes(size))
        self._full_until = time.monotonic() + step.full_s
        self._full_at = math.inf
        self._full_disks += 1

    # ---- time

    def _wait(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Look on until something is so; returns whether it came to be. Meanwhile what was stopped goes on in its time."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._watch.look()
            now = time.monotonic()
            if now >= self._tend_at:
                self._tend_at = now + _TEND_EVERY_S
                self._tend(now)
            if is_so():
                return True
            if now >= deadline:
                return False
            time.sleep(_LOOK_EVERY_S)

    def _tend(self, now: float) -> None:
        # As a service manager would: on a full disk, and only there, a supervisor may give up at its start.
        if self._fleet.tend() and now - self._full_at > _GIVES_UP_WITHIN_S:
            self._trouble.append("the supervisor ended by itself")
        for pid in [pid for pid, until in self._stopped.items() if now >= until]:
            del self._stopped[pid]
            kill([pid], signal.SIGCONT)
        if self._full_until is not None and now >= self._full_until:
            self._full_until, self._full_at = None, now
            (self._ground.data / _BALLAST).unlink()


def _never() -> bool:
    return False


def _changed(watch: Watch, moment: Moment) -> Callable[[], bool]:
    def newest() -> float:
        return watch.committed_at if moment is Moment.COMMIT else watch.acked_at

    before = newest()
    return lambda: newest() != before


def _may_strike(target: Target, born: Member) -> bool:
    """Whether the start of this process is one that a kill of the target waits for."""
    return born.target is target or target in (Target.ALL, Target.SUPERVISOR)


def _pick(members: list[Member], pick: float) -> Member:
    return sorted(members)[int(pick * len(members))]


def _write_until_full(fd: int, block: bytes) -> None:
    try:
        while os.write(fd, block) == len(block):
            pass
    except OSError as error:
        if not is_disk_full(error):
            raise


@contextmanager
def _small_disk(folder: Path, workers: int) -> Iterator[None]:
    size = _SMALL_DISK_MIB[0] + _SMALL_DISK_MIB[1] * workers
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=0700", "horizon-chaos", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ConfigError(f"--small-disk: the small disk cannot be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)  # noqa: S603, S607


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt like Ctrl-C, once: what they start, the end of all victims, no second one may break off."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
