"""One log stream for all processes: every worker incarnation has a queue of its own, and all end in one sink.

Never a queue shared by workers: who is killed while it holds the queue's lock silences everybody for good. A queue per incarnation
dies with it. The supervisor closes its copy of the write end right after the start, so that the death of the worker is the end of the
file and the receiver thread ends by itself; `MultiProcessingHandler.close()` would wait five seconds for it and is never called.

Here are both ends: `LogChannel` and `LineChannel` in the supervisor, `WorkerLog` in the worker.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from contextlib import closing, suppress
from multiprocessing import resource_tracker
from multiprocessing.queues import Queue
from pathlib import Path

from multiprocessing_logging import MultiProcessingHandler

from horizon.logs import TextFormatter, redacted_text
from supervisor.log_files import Sink as Sink
from supervisor.log_files import entry_from
from supervisor.rate import BURST, LINES_PER_S, Rate

WAITING_MAX = 2000  # records of one worker on their way to the sink; what comes on top is dropped and counted
TEXT_MAX = 8192  # characters of one text of a record
LEAVE_WITHIN_S = 2.0
_TRACEBACK = "Traceback (most recent call last):"
_TRACEBACK_LINES = 500


def start_resource_tracker() -> None:
    """Have multiprocessing start the process that removes the semaphores of queues when this process is killed.

    It complains on stderr then, and before a terminal that is stopped or a pipe that nobody reads it would wait for ever: so it gets none.
    """
    if sys.stderr is None:  # there is none
        return
    stderr = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        resource_tracker.ensure_running()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class LogChannel:
    """The supervisor's end. multiprocessing's start method must be "spawn" before one is made."""

    def __init__(self, process: str, sink: Sink) -> None:
        self._handler = _Receiver(f"log of {process}", _Forward(process, sink))
        self._process = process

    def worker_end(self) -> WorkerLog:
        """To be pickled into the worker's process, as an argument of its start."""
        return WorkerLog(self._handler.queue, self._process, os.getpid())

    def let_go(self) -> None:
        """After the start: with the supervisor's copy closed, only the worker holds the write end."""
        self._handler.queue._writer.close()


class LineChannel:
    """The log of a process that is no multiprocessing child (writer, gateway): what it writes to its stderr, line by line.

    A full pipe makes its writes fail instead of waiting: a supervisor that hangs must not stop the writer.
    """

    def __init__(self, process: str, sink: Sink) -> None:
        self.pid: int | None = None  # said with lines that do not say it themselves
        self._process = process
        self._sink = sink
        read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETFL, os.O_NONBLOCK)
        threading.Thread(target=self._forward, args=(read_end,), name=f"log of {process}", daemon=True).start()

    def let_go(self) -> None:
        os.close(self.write_end)

    def _forward(self, read_end: int) -> None:
        lines = Lines()
        with open(read_end, "rb", buffering=0) as pipe:
            while data := pipe.read(64 * 1024):
                self._say(lines.feed(data))
        self._say(lines.end())

    def _say(self, texts: list[str]) -> None:
        for text in texts:
            level, entry = entry_from(text, self._process, self.pid)
            self._sink.entry(self._process, level, entry)


class Lines:
    """Bytes of a pipe as texts: a line each, but a traceback whole."""

    def __init__(self) -> None:
        self._begun = b""
        self._traceback: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        """The texts that are complete now."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > TEXT_MAX:  # a progress bar has no end of line
            lines.append(self._begun)
            self._begun = b""
        return [text for line in lines for text in self._texts(line)]

    def end(self) -> list[str]:
        """What is left at the end of the file."""
        begun, self._begun = self._begun, b""
        return [*self._texts(begun), *self._end_of_traceback()]

    def _texts(self, line: bytes) -> list[str]:
        text = line.decode(errors="backslashreplace").rstrip("\r")
        if self._traceback or text == _TRACEBACK:
            self._traceback.append(text)
            # Between its first line and the one that names the exception, every line is set in.
            is_over = len(self._traceback) > 1 and not text.startswith(" ")
            return self._end_of_traceback() if is_over or len(self._traceback) >= _TRACEBACK_LINES else []
        return [text] if text else []

    def _end_of_traceback(self) -> list[str]:
        whole, self._traceback = self._traceback, []
        return ["\n".join(whole)] if whole else []


class WorkerLog(logging.Handler):
    """The worker's end. Never waits and never raises: a log that is not read must not stop a strategy.

    What comes faster than the supervisor shall take is dropped and counted; errors have a budget of their own, so that a flood of small
    talk does not hide the sentence that says why.
    Once the supervisor is gone it goes to stderr, with what the supervisor had not taken yet. A fork of the worker goes to stderr too: it
    could die with the queue's lock in its hands.
    """

    def __init__(self, queue: Queue[logging.LogRecord], worker: str, supervisor_pid: int) -> None:
        super().__init__()
        self.dropped = 0  # records since the start
        self.last_error = ""  # the newest sentence of a warning or worse
        self.stderr_fd = 2  # where it goes when the supervisor is gone
        self._queue = queue
        self._worker = worker
        self._supervisor_pid = supervisor_pid
        self._run_id = ""
        self._pid = os.getpid()
        self._sent: deque[logging.LogRecord] = deque(maxlen=WAITING_MAX)
        self._unsaid = 0  # dropped, and not yet said in the log
        self._small_talk = Rate(LINES_PER_S, BURST)
        self._errors = Rate(LINES_PER_S, BURST)
        self._left = False
        # At exit the interpreter must not wait for a queue that nobody reads; `close` waits, and not for ever.
        queue.cancel_join_thread()

    def __reduce__(self) -> tuple[type[WorkerLog], tuple[Queue[logging.LogRecord], str, int]]:
        return WorkerLog, (self._queue, self._worker, self._supervisor_pid)

    def set_run(self, run_id: str) -> None:
        """Every record from now on belongs to this run."""
        self._run_id = run_id

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.last_error = redacted_text(_message(record))
        if self._left or not self._is_heard():
            self._say_what_was_not_taken()
            self._say_on_stderr(_plain(record))
        elif self._is_too_much(record):
            self.dropped += 1
            self._unsaid += 1
        else:
            self._say_what_was_dropped()
            self._send(_plain(record))

    def close(self) -> None:
        """Wait until all is delivered, within reason. What is logged later goes to stderr."""
        if not self._left and self._is_heard():
            self._say_what_was_dropped()
        deadline = time.monotonic() + LEAVE_WITHIN_S
        while not self._left and self._is_heard() and self._queue.qsize() and time.monotonic() < deadline:
            time.sleep(0.002)
        if not self._is_heard():
            self._say_what_was_not_taken()
        self._left = True
        super().close()

    def _is_too_much(self, record: logging.LogRecord) -> bool:
        rate = self._errors if record.levelno >= logging.ERROR else self._small_talk
        return self._queue.qsize() >= WAITING_MAX or not rate.allows(time.monotonic())

    def _say_what_was_dropped(self) -> None:
        if self._unsaid:
            sentence = f"{self._unsaid} log records were dropped here: more came than the supervisor takes"
            self._unsaid = 0
            self._send(logging.LogRecord(__name__, logging.WARNING, __file__, 0, sentence, None, None))

    def _send(self, record: logging.LogRecord) -> None:
        record.__dict__.setdefault("run_id", self._run_id)
        self._sent.append(record)
        self._queue.put_nowait(record)

    def _is_heard(self) -> bool:
        # One system call, about 0.1 us. In a fork the parent is the worker, not the supervisor.
        return os.getppid() == self._supervisor_pid

    def _say_what_was_not_taken(self) -> None:
        if self._sent and os.getpid() == self._pid and not self._is_heard():
            taken = len(self._sent) - self._queue.qsize()
            for record in list(self._sent)[max(0, taken) :]:
                self._say_on_stderr(record)
            self._sent.clear()

    def _say_on_stderr(self, record: logging.LogRecord) -> None:
        # Not sys.stderr: the worker turns that into log records. A fork knows only the one that its parent gave it.
        record.name = f"{self._worker} {record.name}"
        text = f"{TextFormatter().format(record)}\n".encode(errors="backslashreplace")
        if not _write_without_waiting(self.stderr_fd if os.getpid() == self._pid else 2, text):
            self.dropped += 1


class _Receiver(MultiProcessingHandler):  # type: ignore[misc]
    """Reads a worker's queue in a thread of its own, which ends with the worker."""

    def _receive(self) -> None:
        """Not what the package does: that wakes up five times a second to see whether it was closed, and fifty of them keep a core busy."""
        with suppress(EOFError, OSError):  # the worker has ended
            while True:
                self.sub_handler.emit(self.queue.get())
        self.queue.close()
        self.queue.join_thread()

    def close(self) -> None:
        """Not what the package does: `logging` calls this at the end of the program, and would wait five seconds for each."""


class _Forward(logging.Handler):
    """What the receiver thread hands each record to. The package calls `emit` without taking a lock; the sink has its own."""

    def __init__(self, process: str, sink: Sink) -> None:
        super().__init__()
        self._process = process
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.record(self._process, record)


def _write_without_waiting(fd: int, data: bytes) -> bool:
    """Write to a terminal, pipe, file or journald that may be stopped or full. False when not all of it was taken.

    The descriptor is shared with whoever started the supervisor: it stays as it is, and the writing is done through one of our own.
    """
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            with closing(socket.socket(fileno=os.dup(fd))) as stream:
                return stream.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(data)
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # a terminal of another user
            ready = select.select([], [fd], [], 0)[1]
            return bool(ready) and os.write(fd, data[: select.PIPE_BUF]) == len(data)
        try:
            return os.write(own, data) == len(data)
        finally:
            os.close(own)
    except (OSError, ValueError):
        return False


_TRACEBACKS = logging.Formatter()


def _plain(record: logging.LogRecord) -> logging.LogRecord:
    """A copy that any interpreter can unpickle: every attribute a text, a number or None, and the traceback as text.

    One instance of a class that the supervisor cannot import would kill the receiver, and with it this worker's log.
    """
    # Not makeLogRecord: that calls the factory that a strategy may have set to a class of its own.
    plain = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, _message(record), None, None)
    for name, value in record.__dict__.items():
        if name not in ("msg", "args", "exc_info", "exc_text"):
            plain.__dict__[name] = value if type(value) in (int, float, bool, type(None)) else _cut(value)
    if record.exc_info and record.exc_info[0] is not None:
        plain.exc_text = _cut(record.exc_text or _TRACEBACKS.formatException(record.exc_info))
    return plain


def _message(record: logging.LogRecord) -> str:
    try:
        return _cut(record.getMessage())
    except Exception as error:
        return _cut(f"{record.msg!s} (its arguments do not fit: {error})")


def _cut(value: object) -> str:
    try:
        # A subclass of str is a foreign class too; str(...) of it may be one again.
        text = "".join(str(value))
    except Exception as error:
        text = f"(no text: {type(error).__name__})"
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]} …[{len(text) - TEXT_MAX} characters cut]"
