"""One log stream for all processes: every worker incarnation has a queue of its own, and all end in one sink.

Never a queue shared by workers: who is killed while it holds the queue's lock silences everybody for good. A queue per incarnation
dies with it. The supervisor closes its copy of the write end right after the start, so that the death of the worker is the end of the
file and the receiver thread ends by itself; `MultiProcessingHandler.close()` would wait five seconds for it and is never called by us.

Here are both ends: `LogChannel` and `LineChannel` in the supervisor, `WorkerLog` in the worker.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.queues import Queue

from multiprocessing_logging import MultiProcessingHandler

from horizon.logs import TextFormatter

Sink = Callable[[str], None]  # takes one log entry; called by any thread; may wait, so the supervisor's loop never calls it

WAITING_MAX = 2000  # records of one worker on their way to the sink; what comes on top is dropped and counted
TEXT_MAX = 8192  # characters of one text of a record
LEAVE_WITHIN_S = 2.0


class LogChannel:
    """The supervisor's end. multiprocessing's start method must be "spawn" before one is made."""

    def __init__(self, worker: str, sink: Sink) -> None:
        self._handler = MultiProcessingHandler(f"log of {worker}", _Forward(worker, sink))
        self._worker = worker

    def worker_end(self) -> WorkerLog:
        """To be pickled into the worker's process, as an argument of its start."""
        return WorkerLog(self._handler.queue, self._worker, os.getpid())

    def let_go(self) -> None:
        """After the start: with the supervisor's copy closed, only the worker holds the write end."""
        self._handler.queue._writer.close()


class LineChannel:
    """The log of a process that is no multiprocessing child (the writer): what it writes to its stderr, line by line.

    A full pipe makes its writes fail instead of waiting: a supervisor that hangs must not stop the writer.
    """

    def __init__(self, process: str, sink: Sink) -> None:
        read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETFL, os.O_NONBLOCK)
        threading.Thread(target=_forward_lines, args=(read_end, sink), name=f"log of {process}", daemon=True).start()

    def let_go(self) -> None:
        os.close(self.write_end)


class WorkerLog(logging.Handler):
    """The worker's end. Never waits and never raises: a log that is not read must not stop a strategy.

    Once the supervisor is gone it goes to stderr, with what the supervisor had not taken yet. A fork of the worker goes to stderr too: it
    could die with the queue's lock in its hands.
    """

    def __init__(self, queue: Queue[logging.LogRecord], worker: str, supervisor_pid: int) -> None:
        super().__init__()
        self._queue = queue
        self._worker = worker
        self._supervisor_pid = supervisor_pid
        self._pid = os.getpid()
        self._sent: deque[logging.LogRecord] = deque(maxlen=WAITING_MAX)
        self._dropped = 0
        self._left = False
        # At exit the interpreter must not wait for a queue that nobody reads; `close` waits, and not for ever.
        queue.cancel_join_thread()

    def __reduce__(self) -> tuple[type[WorkerLog], tuple[Queue[logging.LogRecord], str, int]]:
        return WorkerLog, (self._queue, self._worker, self._supervisor_pid)

    def emit(self, record: logging.LogRecord) -> None:
        plain = _plain(record)
        if self._left or not self._is_heard():
            self._say_what_was_not_taken()
            self._say_on_stderr(plain)
        elif self._queue.qsize() >= WAITING_MAX:
            self._dropped += 1
        else:
            if self._dropped:
                self._send(_drop_notice(self._dropped))
                self._dropped = 0
            self._send(plain)

    def close(self) -> None:
        """Wait until all is delivered, within reason. What is logged later goes to stderr."""
        deadline = time.monotonic() + LEAVE_WITHIN_S
        while not self._left and self._is_heard() and self._queue.qsize() and time.monotonic() < deadline:
            time.sleep(0.002)
        if not self._is_heard():
            self._say_what_was_not_taken()
        self._left = True
        super().close()

    def _send(self, record: logging.LogRecord) -> None:
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
        # Not sys.stderr: the worker turns that into log records.
        if sys.__stderr__ is not None:
            record.name = f"{self._worker} {record.name}"
            with suppress(OSError, ValueError):
                sys.__stderr__.write(TextFormatter().format(record) + "\n")
                sys.__stderr__.flush()


class _Forward(logging.Handler):
    """What the receiver thread hands each record to. The package calls `emit` without taking a lock; the sink has its own."""

    def __init__(self, worker: str, sink: Sink) -> None:
        super().__init__()
        self._worker = worker
        self._sink = sink
        self.setFormatter(TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        record.name = f"{self._worker} {record.name}"
        self._sink(self.format(record))


def _forward_lines(read_end: int, sink: Sink) -> None:
    with open(read_end, encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            sink(line.rstrip("\n"))


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


def _drop_notice(dropped: int) -> logging.LogRecord:
    sentence = f"{dropped} log records were dropped here: more came than the supervisor could show"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, sentence, None, None)
