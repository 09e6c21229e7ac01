"""The engine's lock: who wants it is heard by whoever sleeps in it."""

from __future__ import annotations

import select
import threading

from eventually import eventually

from horizon.turns import TurnLock


def is_wanted(lock: TurnLock) -> bool:
    """What the next sleep in it would find."""
    return bool(select.select([lock], [], [], 0)[0])


def test_a_thread_that_wants_it_wakes_the_sleeper() -> None:
    lock = TurnLock()
    waiter = threading.Thread(target=lock.__enter__)
    with lock:
        assert not is_wanted(lock)
        waiter.start()
        eventually(lambda: is_wanted(lock))
    waiter.join()


def test_who_could_not_take_his_turn_in_time_wakes_the_next_sleep_too() -> None:
    """On a busy machine a thread may need longer to wake up than the sleeper lets it pass."""
    lock = TurnLock()
    waiter = threading.Thread(target=lock.__enter__)
    with lock:
        waiter.start()
        eventually(lambda: is_wanted(lock))
        lock.hand_over()
        assert is_wanted(lock)
    waiter.join()
    lock.hand_over()
    assert not is_wanted(lock)
