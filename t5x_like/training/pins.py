"""Locks between who reads a checkpoint and who would prune it: the operating system's, on the record's file, so that
a process that dies holds none. Where there are none of them (Windows, some network file systems) nothing is held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def pin(record: Path) -> IO[bytes]:
    """Keeps a checkpoint from being pruned until the returned file is closed.

    Raises:
      OSError: the record is not there any more.
    """
    file = record.open("rb")
    if fcntl:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
    return file


@contextlib.contextmanager
def unpinned(record: Path) -> Iterator[bool]:
    """Whether nobody reads the checkpoint; nobody begins to meanwhile."""
    with record.open("rb") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass
        yield True
