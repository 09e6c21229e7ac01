from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.gateway.look import without_folders


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/var/lib/horizon/horizon.db: disk full", "horizon.db: disk full"),
        ("cannot read '/home/me/a b/prices.csv'", "cannot read 'a b/prices.csv'"),
        ('File "/srv/x/calm.py", line 3', 'File "calm.py", line 3'),
        ("~/keys/a.pem and ../up/b.pem", "a.pem and b.pem"),
        ("path=/srv/x/y", "path=y"),
        ("https://api.venue.com/v1/orders said 3/4, 1 / 2", "https://api.venue.com/v1/orders said 3/4, 1 / 2"),
        ("/opt/my own place/horizon.db.d/writer.lock is gone", "horizon.db.d/writer.lock is gone"),
    ],
)
def test_a_sentence_for_strangers_names_files_and_no_folders(text: str, public: str) -> None:
    assert without_folders(text, Path("/opt/my own place")) == public
