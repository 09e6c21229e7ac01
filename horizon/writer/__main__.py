"""`python -m horizon.writer`: started by the supervisor, or by a lone run that found no writer."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m horizon.writer", description="The process that writes one database.")
    parser.add_argument("--database", required=True, type=Path)
    parser.add_argument("--durability", choices=("process", "power"), default="process")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--private", action="store_true", help="belong to nobody, leave when no strategy needs it")
    kind.add_argument("--supervised", action="store_true", help="leave when the supervisor says so, or after the last strategy")
    parser.add_argument("--channel-fd", type=int, help="one end of a socketpair to the supervisor")
    parser.add_argument("--dump-fd", type=int, help="where it writes what its threads do, when SIGUSR2 asks for it")
    arguments = parser.parse_args()
    if arguments.private and os.fork():
        # Not a child of the run that started it: it must neither become its zombie nor die with its group.
        return 0
    # Imported behind the fork: ZeroMQ has threads.
    from horizon.writer.start import start

    return start(
        arguments.database,
        arguments.durability,
        private=arguments.private,
        channel_fd=arguments.channel_fd,
        dump_fd=arguments.dump_fd,
    )


if __name__ == "__main__":
    sys.exit(main())
