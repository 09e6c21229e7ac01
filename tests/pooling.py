"""A strategy that forks a process pool and records from eight threads: `python pooling.py DATABASE`."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from samples import fill

import horizon as hz

THREADS = 8
FILLS = 250  # of each thread
JOBS = 40


def square(number: int) -> int:
    return number * number


def trade(ctx: hz.Context) -> None:
    """In one cycle: eight threads hand fills to the engine while a forked pool computes."""
    engine = ctx.params["engine"]

    def take(thread: int) -> int:
        return sum(
            engine.process_fill(fill(1, fill_id=f"{thread}-{number:04d}", market_id=f"m{thread}")) for number in range(FILLS)
        )

    forks = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=forks) as processes, ThreadPoolExecutor(THREADS) as threads:
        squares = processes.map(square, range(JOBS))
        taken = sum(threads.map(take, range(THREADS)))
        again = sum(threads.map(take, range(THREADS)))
        print(taken, again, sum(squares), flush=True)


if __name__ == "__main__":
    hz.run(
        name="pooling",
        markets=["m"],
        feeds={"m": hz.Simulated("probability", seed=1, paced=False, events=1)},
        pipeline=[trade],
        db_path=sys.argv[1],
    )
