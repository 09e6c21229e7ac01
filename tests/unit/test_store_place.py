from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from store_case import original_database

from horizon.errors import ConfigError, StoreError, StoreStalled
from horizon.paths import DatabasePaths
from horizon.store import place
from horizon.store.append import Store
from horizon.store.connection import open_reader, open_writer
from horizon.store.place import file_system_of

MOUNTS = r"""24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 24 0:5 / /mnt rw - tmpfs tmpfs rw
26 25 0:6 / /mnt/shared rw - nfs4 server:/shared rw
27 25 0:7 / /mnt/shared\040too rw shared:3 - ext4 /dev/vdb rw
28 26 0:8 / /mnt/shared rw - fuse.sshfs host: rw
"""

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@pytest.fixture
def without_privileges(open_folder: Path) -> Iterator[None]:
    """root may write everything: be somebody who may not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield
    if user == 0:
        os.seteuid(user)
    open_folder.chmod(0o777)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is a folder: name a file in it, such as .*/horizon\.db"):
        open_writer(tmp_path, "process")
    with pytest.raises(StoreError, match="is a folder"):
        open_reader(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the folder .*/nowhere does not exist: make it"):
        open_writer(tmp_path / "nowhere" / "x.db", "process")


def test_a_missing_database_is_refused_to_a_reader(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no database at .*x\.db"):
        open_reader(tmp_path / "x.db")
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize("content", [b"hello", b"hello, I am a text file\n" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_not_sqlite_is_refused_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(content)
    for open_it in (lambda: open_writer(path, "process"), lambda: open_reader(path)):
        with pytest.raises(StoreError, match=r"notes\.db is not an SQLite database: name another file"):
            open_it()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_an_sqlite_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    for open_it in (lambda: open_writer(path, "process"), lambda: open_reader(path)):
        with pytest.raises(StoreError, match=r"not one of Horizon \(no table fills\)"):
            open_it()
    connection = apsw.Connection(str(path))
    assert [name for (name,) in connection.execute("SELECT name FROM sqlite_schema")] == ["photos"]
    connection.close()


def test_a_database_without_tables_is_refused_to_a_reader(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    with pytest.raises(StoreError, match="holds no tables yet"):
        open_reader(tmp_path / "x.db")


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    original_database(path)
    with path.open("r+b") as file:  # the root page of the schema, behind the header
        file.seek(100)
        file.write(b"\xff" * 900)
    with pytest.raises(StoreError, match=r"x\.db is damaged .*restore a backup"):
        open_writer(path, "process")


def test_a_read_only_file_is_refused(open_folder: Path, without_privileges: None) -> None:
    path = open_folder / "x.db"
    original_database(path)
    path.chmod(0o444)
    with pytest.raises(StoreError, match=r"x\.db may not be written: give this user write access"):
        open_writer(path, "process")


def test_a_read_only_folder_is_refused(open_folder: Path, without_privileges: None) -> None:
    folder = open_folder / "inner"
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(StoreError, match=r"the folder .*/inner may not be written"):
        open_writer(folder / "x.db", "process")


def test_a_database_with_two_names_is_refused(tmp_path: Path) -> None:
    original_database(tmp_path / "x.db")
    os.link(tmp_path / "x.db", tmp_path / "y.db")
    with pytest.raises(StoreError, match=r"has several names \(hard links\)"):
        open_writer(tmp_path / "x.db", "process")


def test_a_special_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.db")
    with pytest.raises(StoreError, match="is not a regular file"):
        open_writer(tmp_path / "x.db", "process")


def test_a_database_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"24 1 254:0 / / rw - ext4 /dev/vda rw\n26 24 0:6 / {tmp_path} rw - nfs4 server:/data rw\n")
    monkeypatch.setattr(place, "_MOUNTS", mounts)
    with pytest.raises(StoreError, match=r"lies on a network file system \(nfs4\), where SQLite loses data"):
        Store(DatabasePaths.of(tmp_path / "x.db"))
    assert list(tmp_path.iterdir()) == [mounts]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x.db", "ext4"),
        ("/mnt/x.db", "tmpfs"),
        ("/mnt/shared/deep/x.db", "fuse.sshfs"),  # the later of two mounts on one point
        ("/mnt/shared too/x.db", "ext4"),
        ("/mnt/sharedx/x.db", "tmpfs"),  # a name is not a prefix
    ],
)
def test_the_file_system_is_that_of_the_longest_mount_point(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_a_folder_of_the_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db.d").touch()
    with pytest.raises(StoreError, match=r"x\.db\.d cannot be used: File exists"):
        Store(DatabasePaths.of(tmp_path / "x.db"))


def test_a_database_is_not_made_where_journals_are_left(tmp_path: Path) -> None:
    paths = DatabasePaths.of(tmp_path / "x.db")
    paths.folder.mkdir()
    paths.journal("run-1").touch()
    with pytest.raises(StoreError, match=r"x\.db is missing, but .*x\.db\.d holds journals"):
        Store(paths)
    assert not paths.database.exists()


def test_an_unknown_durability_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="durability must be 'process' or 'power', got 'maximum'"):
        Store(DatabasePaths.of(tmp_path / "x.db"), "maximum")
    assert not list(tmp_path.iterdir())


def test_a_database_that_another_program_is_writing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    original_database(path)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("horizon.store.connection.BUSY_TIMEOUT_MS", 1)
    with pytest.raises(StoreStalled, match=r"x\.db cannot be read or written now \(.*locked.*\)"):
        open_writer(path, "process")
    other.execute("COMMIT")
    other.close()
    open_writer(path, "process").close()
