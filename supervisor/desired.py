"""What people decided, and the quarantines: stored, so that no restart of the supervisor starts what a person stopped, or forgets why a
strategy was taken out.

What runs is not stored here: the configuration says it, and the loop sees it. The file is written by a thread that lives for one save: a
disk may take seconds, and the loop must not wait for it. The newest state wins: what changed during a save is saved by the next one.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import msgspec

from horizon.errors import StoreError
from horizon.paths import sync_folder

log = logging.getLogger(__name__)

_RETRY_S = 5.0


class Decisions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file, as JSON."""

    stopped: list[str] = []  # by hand
    quarantined: dict[str, str] = {}  # why, by name


class Desired:
    """The decisions by name, and how far they are on disk. Used by the loop's thread only."""

    def __init__(self, path: Path) -> None:
        """Raises: StoreError when the file is there and cannot be read: starting what a person stopped would be worse than a sentence."""
        self.version = 0  # of the newest decision
        self.stored = 0  # the version that is on disk
        self.problem = ""  # why the last save failed; empty: it did not
        self._path = path
        loaded = _load(path)
        self._stopped = dict.fromkeys(loaded.stopped)
        self._quarantined = dict(loaded.quarantined)
        self._save: _Save | None = None
        self._retry_at = 0.0

    def is_stopped(self, name: str) -> bool:
        return name in self._stopped

    def quarantine_of(self, name: str) -> str | None:
        """Why it is in quarantine; None: it is not."""
        return self._quarantined.get(name)

    def note(self, name: str, is_stopped: bool, quarantine: str | None) -> None:
        """What holds for a strategy now; a decision only if it is another than before."""
        if is_stopped != (name in self._stopped) or quarantine != self._quarantined.get(name):
            self._stopped.pop(name, None)
            self._quarantined.pop(name, None)
            if is_stopped:
                self._stopped[name] = None
            if quarantine is not None:
                self._quarantined[name] = quarantine
            self._changed()

    def forget(self, name: str) -> None:
        """It is no strategy of the configuration any more."""
        self.note(name, is_stopped=False, quarantine=None)

    def failed(self, version: int) -> bool:
        """Whether this version was tried to be stored and is not; `problem` says why. It is tried again."""
        return bool(self.problem) and self._save is None and self.stored < version

    def keep(self, now: float) -> None:
        """Called every turn: take the result of a save that has ended, begin the one that is due. Never waits."""
        if self._save is not None:
            if self._save.thread.is_alive():
                return
            self.problem = self._save.problem
            if self.problem:
                self._retry_at = now + _RETRY_S
            else:
                self.stored = self._save.version
            self._save = None
        elif self.stored < self.version and (not self.problem or now >= self._retry_at):
            self._save = _Save(self._path, self.version, Decisions(list(self._stopped), dict(self._quarantined)))

    def finish(self, timeout_s: float) -> None:
        """At the end of the supervisor: save what is not saved yet, and wait for it, but not for ever."""
        for _ in range(3):  # one save may be under way with an older state, then comes the newest
            if self._save is not None and self._save.thread.is_alive():
                self._save.thread.join(timeout_s)
            self.keep(self._retry_at)

    def _changed(self) -> None:
        self.version += 1
        self.problem = ""


class _Save:
    """One save: its thread, and what came of it."""

    def __init__(self, path: Path, version: int, decisions: Decisions) -> None:
        self.version = version
        self.problem = f"{path} was not written; the traceback is in the log"  # until it is
        self._path = path
        self._text = msgspec.json.format(msgspec.json.encode(decisions), indent=2)
        self.thread = threading.Thread(target=self._run, name="desired state", daemon=True)
        try:
            self.thread.start()
        except RuntimeError as error:  # the host gives no more threads
            self.problem = f"{path} cannot be written: {error}"

    def _run(self) -> None:
        new = self._path.with_name(self._path.name + ".new")
        try:
            with new.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(self._text + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            self.problem = f"{self._path} cannot be written: {error.strerror}"
        except Exception:
            log.exception("writing %s", self._path)
        else:
            self.problem = ""


def _load(path: Path) -> Decisions:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Decisions)
    except FileNotFoundError:
        return Decisions()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; it says which strategies people stopped") from error
    except msgspec.DecodeError as error:
        raise StoreError(
            f"{path} is damaged ({error}); it says which strategies people stopped. Correct it, or remove it to start every strategy"
        ) from error
