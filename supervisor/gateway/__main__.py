"""`python -m supervisor.gateway`: started by the supervisor, which is asked and told over one end of a socketpair."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from horizon import config, logs
from horizon.channel import Channel
from horizon.errors import ConfigError, ExitCode
from horizon.lifeline import Lifeline, name_process
from supervisor.gateway.loop import Gateway

log = logging.getLogger(__name__)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m supervisor.gateway", description="Metrics and health over HTTP.")
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--channel-fd", required=True, type=int, help="one end of a socketpair to the supervisor")
    parser.add_argument("--dump-fd", type=int, help="where it writes what its threads do, when SIGUSR2 asks for it")
    arguments = parser.parse_args()
    if arguments.dump_fd is not None:
        faulthandler.enable(arguments.dump_fd)
        faulthandler.register(signal.SIGUSR2, arguments.dump_fd, all_threads=True)
    os.umask(0o077)
    logs.log_to(sys.stderr, as_json=True)  # the supervisor reads it line by line
    # A service manager's SIGTERM reaches all processes at once, and this one leaves last: when it is told to, or when its channel ends.
    lifeline = Lifeline(os.getppid(), patience_s=2.0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lifeline.outlive()
    name_process("hz:gateway")
    end = socket.socket(fileno=arguments.channel_fd)
    end.setblocking(False)
    try:
        gateway = Gateway(config.load(arguments.config), Channel(end))
    except ConfigError as error:
        log.error("%s", error, extra={"action": "misconfigured"})
        return error.exit_code
    asyncio.run(gateway.run())
    return ExitCode.DONE


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Not sys.exit: a question to a supervisor that does not answer waits in a thread, and the interpreter would wait for it.
    os._exit(code)
