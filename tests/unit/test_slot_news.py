"""What a slot has to tell of its process, each thing once."""

from __future__ import annotations

from horizon.channel import WriterBeat
from supervisor.slot import Slot
from supervisor.worker_states import Life


def test_a_database_that_cannot_be_written_is_news_once_and_so_is_its_end() -> None:
    writer = Slot("writer", "writer", Life())
    told = []
    for stalled in ("", "no room", "no room", "no room on the disk", "", ""):
        writer.writer_beat = WriterBeat(stalled=stalled)
        told.append(writer.news_of_the_database())
    assert told == [None, "no room", None, None, "", None]


def test_a_writer_that_has_said_nothing_yet_is_no_news() -> None:
    assert Slot("writer", "writer", Life()).news_of_the_database() is None
