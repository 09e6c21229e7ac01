"""Where a database may lie (R12): a file of its own name, on a file system that keeps SQLite's locks."""

from __future__ import annotations

import re
from pathlib import Path

from horizon.errors import StoreError

# fmt: off
_NETWORK_FILE_SYSTEMS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph", "fuse.davfs2", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
})
# fmt: on
_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def refuse_unfit_place(path: Path) -> None:
    """Raises: StoreError for a folder, a special file, a hard-linked file, and a place on a network file system.

    Never opens the file: closing it again would drop the locks of a connection that this process may have (R11).
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it, such as {path / 'horizon.db'}")
    if path.exists():
        if not path.is_file():
            raise StoreError(f"{path} is not a regular file: name another one")
        if path.stat().st_nlink > 1:
            raise StoreError(
                f"{path} has several names (hard links), and two writers could each take it for theirs: copy it to a file of its own"
            )
    kind = file_system_of(path, _MOUNTS.read_text()) if _MOUNTS.exists() else ""
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(f"{path} lies on a network file system ({kind}), where SQLite loses data: put it on a local disk")


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system a path lies on, from the text of /proc/self/mountinfo. Of two mounts on one point the later counts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), mount.split(" ")[4])
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, source.split(" ")[0]
    return kind
