"""The socketpair to a worker: whole messages or none, and nobody ever blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from horizon.channel import MESSAGES_MAX, Channel, Heartbeat, Ready, Stop, pair

Channels = tuple[Channel, Channel]


@pytest.fixture
def channels() -> Iterator[Channels]:
    ours, theirs = pair()
    both = Channel(ours), Channel(theirs)
    yield both
    for channel in both:
        channel.close()


def test_messages_arrive_whole_and_in_order(channels: Channels) -> None:
    supervisor, worker = channels
    worker.send(Ready("run-1"))
    worker.send(Heartbeat(cycles=3, pnl=-1.5))
    assert supervisor.receive() == [Ready("run-1"), Heartbeat(cycles=3, pnl=-1.5)]
    assert supervisor.receive() == []


def test_a_side_that_does_not_read_costs_messages_and_no_time(channels: Channels) -> None:
    supervisor, worker = channels
    sent = 0
    while worker.send(Heartbeat()):
        sent += 1
    assert sent > 10
    assert not worker.closed
    assert len(supervisor.receive()) == sent


def test_the_end_of_one_side_is_seen_by_the_other(channels: Channels) -> None:
    supervisor, worker = channels
    supervisor.send(Stop(5.0))
    supervisor.close()
    assert worker.receive() == [Stop(5.0)]
    assert worker.closed
    assert not worker.send(Heartbeat())


def test_garbage_is_counted_and_skipped(channels: Channels) -> None:
    supervisor, worker = channels
    worker._socket.send(b"\xff garbage")
    worker._socket.send(b"\x80")
    worker.send(Ready("run-1"))
    assert supervisor.receive() == [Ready("run-1")]
    assert supervisor.garbage == 2
    assert not supervisor.closed


def test_who_goes_on_sending_does_not_hold_the_other_side(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, worker = channels
    receive = supervisor._socket.recv
    heard: list[bytes] = []

    class Flooded:
        """As fast as the supervisor reads, the worker writes."""

        def recv(self, size: int) -> bytes:
            worker.send(Heartbeat())
            heard.append(receive(size))
            return heard[-1]

    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "_socket", Flooded())
        assert len(supervisor.receive()) == len(heard) == MESSAGES_MAX
    assert not supervisor.closed


def test_one_call_takes_all_that_the_kernel_keeps(channels: Channels) -> None:
    supervisor, worker = channels
    sent = 0
    with suppress(BlockingIOError):
        while True:
            worker._socket.send(b"x")
            sent += 1
    worker.close()
    supervisor.receive()
    assert supervisor.garbage == sent
    assert supervisor.closed
