"""How a writer comes to own its database: first the lock, then the socket, then the database (R16).

Who holds the lock is the writer, whatever else runs. A private writer that finds it taken leaves: the run that started it attaches to
the holder. A supervised one asks a private holder to give it up and waits, saying whose it is (R15).
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import apsw
import zmq

from horizon import logs, wire
from horizon.channel import Channel
from horizon.clock import SYSTEM_CLOCK
from horizon.errors import ExitCode, Halt, HorizonError, StoreError, is_disk_full
from horizon.failpoints import ACTIVE, reach
from horizon.lifeline import Lifeline
from horizon.locks import FileLock
from horizon.metrics import Metrics
from horizon.paths import SOCKET_NAME, DatabasePaths
from horizon.writer.loop import Kind, Writer

log = logging.getLogger(__name__)

_ASK_EVERY_S = 0.5
_SAY_EVERY_S = 5.0
_PATIENCE_S = 60.0  # for one turn of the loop, which may have to commit much on a slow disk


def start(database: Path, durability: str, *, private: bool, channel_fd: int | None, dump_fd: int | None) -> int:
    """Be the writer of a database until nobody needs it. Returns the exit code.

    `channel_fd` is one end of a socketpair to the supervisor, `dump_fd` a file that takes the answer to SIGUSR2.
    """
    os.umask(0o077)
    logs.log_to(sys.stderr, as_json=channel_fd is not None)  # a supervisor reads it line by line
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    paths = DatabasePaths.of(database)
    kind = Kind.PRIVATE if private else Kind.SUPERVISED
    if dump_fd is not None:
        faulthandler.enable(dump_fd)
        faulthandler.register(signal.SIGUSR2, dump_fd, all_threads=True)
    channel = _channel(channel_fd)
    lifeline = Lifeline(os.getppid(), _PATIENCE_S) if channel is not None else None
    if lifeline is not None:
        lifeline.outlive()
    try:
        lock = _own(paths, kind, channel)
        if lock is None:
            return ExitCode.DONE
        if ACTIVE:
            reach("writer.starting")
        log.info("SQLite %s for %s", apsw.sqlite_lib_version(), paths.database, extra={"action": "writer_start"})
        writer = Writer(paths, lock, kind, durability, channel, Metrics(), SYSTEM_CLOCK, lifeline)
        signal.signal(signal.SIGTERM, lambda *_: writer.stop())
        gc.freeze()  # what is there now stays: no collection needs to walk through it while records wait
        writer.run()
    except HorizonError as error:
        log.error("%s", error, extra={"action": "writer_failed"})
        return error.exit_code
    except Halt as halt:
        log.critical("halted: %s", halt.reason, extra={"action": "halt"})
        return halt.exit_code
    log.info("left %s", paths.database, extra={"action": "writer_left"})
    return ExitCode.DONE


def _channel(fd: int | None) -> Channel | None:
    if fd is None:
        return None
    end = socket.socket(fileno=fd)
    end.setblocking(False)
    return Channel(end)


def _own(paths: DatabasePaths, kind: Kind, channel: Channel | None) -> FileLock | None:
    """Take the writer's lock; None when that is not, or no longer, this process's business."""
    lock = FileLock(paths.writer_lock)
    said_at = float("-inf")
    while True:
        try:
            paths.folder.mkdir(mode=0o700, exist_ok=True)
            if lock.take(f"pid={os.getpid()} kind={kind.value} database={paths.database}"):
                return lock
            why = f"another writer owns {paths.database} ({lock.hint()})"
            if kind is Kind.PRIVATE:
                log.info("%s", why, extra={"action": "writer_exists"})
                return None
            _ask_to_give_up(paths)
        except OSError as error:
            if not is_disk_full(error):
                raise StoreError(f"{paths.folder}: the folder beside the database cannot be used: {error.strerror}") from error
            why = f"STALLED, the disk of {paths.folder} is full"
            time.sleep(_ASK_EVERY_S)
        if time.monotonic() - said_at > _SAY_EVERY_S:
            said_at = time.monotonic()
            log.warning("waiting: %s", why, extra={"action": "writer_waits"})
        # Asked only of one that waits: a writer that is told to stop before it is there still has journals to drain.
        if channel is not None and (channel.receive() or channel.closed):
            return None


def _ask_to_give_up(paths: DatabasePaths) -> None:
    """Ask the holder to leave if it is a private writer; another supervisor's writer does not listen to this."""
    folder = os.open(paths.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    context = zmq.Context()
    try:
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"ipc:///proc/self/fd/{folder}/{SOCKET_NAME}")
        dealer.send(wire.encode(wire.GiveUp(f"the supervised writer, pid {os.getpid()}")))
        dealer.poll(int(_ASK_EVERY_S * 1000))
        dealer.close(linger=0)
    finally:
        context.term()
        os.close(folder)
