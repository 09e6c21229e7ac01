"""What people ask the writer for, done between two batches: one short transaction each, and an answer that says what was done."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from horizon import wire
from horizon.errors import CommandRefused
from horizon.store.append import Store

log = logging.getLogger(__name__)


def obey(command: wire.Command, command_id: str, store: Store, runs: Mapping[str, str]) -> wire.Done | wire.NotDone:
    """Do one command and answer it.

    `runs` are the runs that live or are not drained yet, with their strategies. Raises: StoreStalled, StoreError; the command may then
    be given again.
    """
    if command.protocol != wire.PROTOCOL:
        return wire.NotDone(
            f"the writer (pid {os.getpid()}) speaks protocol {wire.PROTOCOL} and the command {command.protocol}: "
            "run all programs of this database with one version of Horizon"
        )
    try:
        text = store.operate(command_id, command, runs)
    except CommandRefused as refused:
        log.warning("refused %s of %s: %s", command.action, command.who, refused, extra={"action": "operator_refused"})
        return wire.NotDone(str(refused))
    log.warning("%s (%s: %s)", text, command.who, command.reason, extra={"action": f"operator_{command.action}"})
    return wire.Done(text)
