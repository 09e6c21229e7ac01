"""What the workers of the log tests do in their own processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from itertools import count

from horizon.config import Logs
from horizon.paths import DatabasePaths
from supervisor.log_channels import LogChannel
from supervisor.log_files import Sink


class Foreign:
    """A class that the supervisor's process may not be able to import, and that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class ForeignRecord(logging.LogRecord):
    pass


def say(handler: logging.Handler, *sentences: str) -> None:
    log = _log(handler)
    for sentence in sentences:
        log.info(sentence)
    handler.close()


def flood(handler: logging.Handler) -> None:
    log = _log(handler)
    for number in count():
        log.info("flood %d %s", number, "x" * 200)


def say_slowly(handler: logging.Handler) -> None:
    log = _log(handler)
    for number in count():
        log.info("line %d", number)
        time.sleep(0.005)


def flood_with_errors_in_it(handler: logging.Handler) -> None:
    log = _log(handler)
    handler.set_run("run-1")  # type: ignore[attr-defined]
    for number in count():
        log.info("flood %d", number)
        if number % 20_000 == 0:
            log.error("error %d, %d dropped", number, handler.dropped)  # type: ignore[attr-defined]


def trade(handler: logging.Handler, folder: str) -> None:
    """A strategy that logs in every cycle, and counts its cycles in a file."""
    import horizon as hz

    os.chdir(folder)
    log = _log(handler)
    logging.root.addHandler(handler)

    def quote(ctx: hz.Context) -> list[hz.Quote]:
        log.info("cycle")
        with open("cycles", "a") as file:
            file.write(".")
        with open("fills", "a") as file:
            file.write("." * len(ctx.params["fills_this_cycle"]))
        return [hz.Quote(0.49, 0.51, 1.0)]

    feeds = {"coin": hz.Simulated("probability", seed=7, interval_s=0.01)}
    hz.run("trader", markets=["coin"], feeds=feeds, pipeline=[quote], interval=0.02, db_path="trader.db")


def say_strange_things(handler: logging.Handler) -> None:
    sys.modules["of_this_worker_only"] = sys.modules[__name__]
    Foreign.__module__ = ForeignRecord.__module__ = "of_this_worker_only"
    logging.setLogRecordFactory(ForeignRecord)
    log = _log(handler)
    log.info("with an extra", extra={"order": Foreign()})
    log.info("with an argument %s", Foreign())
    log.info("with too few arguments %d %d", 1)
    log.info("of %s", "x" * 100_000)
    try:
        raise ValueError("the traceback's own sentence")
    except ValueError:
        log.exception("failed")
    log.info("the last line")
    handler.close()


def say_in_a_fork(handler: logging.Handler) -> None:
    log = _log(handler)
    child = os.fork()
    log.info("said by the %s", "parent" if child else "fork")
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    handler.close()


def say_much(handler: logging.Handler, lines: int, done_file: str) -> None:
    """More than the bound lets through while nobody takes it; then once more when there is room again."""
    log = _log(handler)
    for number in range(lines):
        log.info("line %d", number)
    with open(done_file, "w") as done:
        done.write("written")
    while os.path.exists(done_file):
        time.sleep(0.005)
    log.info("the last line")
    handler.close()


def _log(handler: logging.Handler) -> logging.Logger:
    log = logging.getLogger("talker")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    return log


def supervise_and_die(lines_file: str) -> None:
    """A supervisor that takes no log, and is killed when its worker has said its lines."""
    taken = threading.Event()

    class TakesNothing:
        def record(self, process: str, record: logging.LogRecord) -> None:
            taken.wait(600)

    channel = LogChannel("left", TakesNothing())  # type: ignore[arg-type]
    worker = multiprocessing.get_context("spawn").Process(
        target=say_until_alone, args=(channel.worker_end(), os.getpid(), lines_file)
    )
    worker.start()
    channel.let_go()
    while not os.path.exists(lines_file):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


def say_until_alone(handler: logging.Handler, supervisor_pid: int, lines_file: str) -> None:
    log = _log(handler)
    for number in range(50):
        log.info("line %d", number)
    with open(f"{lines_file}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{lines_file}.new", lines_file)
    while os.getppid() == supervisor_pid:
        time.sleep(0.005)
    log.info("the last line")
    handler.close()


class Nowhere:
    """A terminal that shows nothing."""

    as_json = False

    def say(self, entry: str) -> None:
        pass


def fill_log_files(database: str, incarnation: str) -> None:
    """A supervisor that writes what two receivers take, until it is killed."""
    sink = Sink(Logs(max_bytes=100_000, keep=1000), DatabasePaths.of(database), Nowhere())
    sink.start()

    def receive(receiver: str) -> None:
        for number in count():
            line = f"{incarnation} {receiver} {number} {'x' * 5000}"
            sink.record("mm", logging.LogRecord("talker", logging.INFO, "", 0, line, None, None))

    threading.Thread(target=receive, args=("old",)).start()
    threading.Thread(target=receive, args=("new",)).start()


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    if sys.argv[1] == "fill":
        fill_log_files(*sys.argv[2:])
    else:
        supervise_and_die(sys.argv[1])
