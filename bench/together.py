"""Several processes that do the same thing at once, as strategies do, and what each of them found.

None of them outlives the call, however it ends: a Ctrl-C is for the benchmark, which kills them, and its death is theirs too.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any

from horizon.lifeline import die_with_parent

_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.02

Begin = Callable[[], None]  # returns when all are ready


def run_together(
    work: Callable[..., object], each: Sequence[tuple[Any, ...]], meanwhile: Callable[[], object] = lambda: None
) -> list[Any]:
    """Call `work(begin, *arguments)` in a process for each arguments, and return what each returned, in their order.

    `meanwhile` is called here some fifty times a second. Raises: SystemExit when one of them dies.
    """
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(len(each))
    processes: list[BaseProcess] = []
    results: list[Connection] = []
    found: dict[int, object] = {}
    try:
        for arguments in each:
            result, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_do, args=(work, together, theirs, arguments))
            with without_interrupts():
                process.start()
            theirs.close()
            processes.append(process)
            results.append(result)
        while len(found) < len(each):
            for ready in wait([result for number, result in enumerate(results) if number not in found], _LOOK_EVERY_S):
                assert isinstance(ready, Connection)
                try:
                    found[results.index(ready)] = ready.recv()
                except EOFError:
                    raise SystemExit("a process of the load has died; the lines above say why") from None
            meanwhile()
    finally:
        for started in processes:
            if len(found) < len(each):
                started.kill()
            started.join()
        for result in results:
            result.close()
    return [found[number] for number in range(len(each))]


@contextmanager
def without_interrupts() -> Iterator[None]:
    """A process that is started in this block never hears of a Ctrl-C; one that comes meanwhile comes at the block's end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _do(work: Callable[..., object], together: Barrier, result: Connection, arguments: tuple[Any, ...]) -> None:
    die_with_parent(signal.SIGKILL)

    def begin() -> None:
        gc.collect()
        gc.freeze()  # what was prepared is ours, not the strategy's: the collector must not walk through it while the clock runs
        together.wait(_TIMEOUT_S)

    result.send(work(begin, *arguments))
