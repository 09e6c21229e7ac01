"""The rows of a recorded CSV file, read as a stream from plain, gzip or zip files.

The content decides what the file is, not its name. Everything that can be wrong with the file becomes one ConfigError.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from horizon.errors import ConfigError

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"


def read_rows(path: Path, delimiter: str) -> Generator[tuple[int, list[str]], None, None]:
    """Every row that is not blank, with the number of its line. Closing the generator closes the file.

    Raises: ConfigError with file and line when it cannot be opened, unpacked, decoded as UTF-8 or split into columns.
    """
    line = 0
    try:
        with ExitStack() as stack:
            binary = _unpacked(path, stack)
            # utf-8-sig: a byte order mark would else become part of the first column's name.
            rows = csv.reader(io.TextIOWrapper(binary, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True)
            for row in rows:
                line = rows.line_num
                if row:
                    yield line, row
    except OSError as error:
        raise ConfigError(f"replay feed: {path} cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"replay feed: {path} is damaged after line {line}: {error}") from error


def _unpacked(path: Path, stack: ExitStack) -> IO[bytes] | gzip.GzipFile:
    raw = stack.enter_context(path.open("rb"))
    magic = raw.peek(4)[:4]
    if magic.startswith(GZIP_MAGIC):
        return stack.enter_context(gzip.open(raw))
    if magic.startswith(ZIP_MAGIC):
        archive = stack.enter_context(zipfile.ZipFile(raw))
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            names = ", ".join(member.filename for member in members[:5])
            raise ConfigError(f"replay feed: {path} must hold exactly one file, it holds {len(members)}: {names}")
        try:
            return stack.enter_context(archive.open(members[0]))
        except RuntimeError as error:  # encrypted, or packed in a way that Python cannot unpack
            raise ConfigError(f"replay feed: {path} cannot be unpacked: {error}") from error
    return raw
