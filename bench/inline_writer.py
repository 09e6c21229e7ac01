"""The product's writer, made to take its checkpoints between two commits, as with a SQLite older than 3.51.3. To compare with.

python -m bench.inline_writer DATABASE DURABILITY
"""

from __future__ import annotations

import sys
from pathlib import Path

from horizon.store import checkpoints
from horizon.writer.start import start

if __name__ == "__main__":
    checkpoints.may_run_beside = lambda: False
    sys.exit(start(Path(sys.argv[1]), sys.argv[2], private=True, channel_fd=None, dump_fd=None))
