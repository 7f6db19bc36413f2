"""The few things a journal asks of the operating system, in one place so that they can misbehave in tests.

Every method is one system call, or a short row of them, and raises `OSError`. When to call them, and what
a failure means, is `segment.py`'s business.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """What an unprivileged process may still use; `inodes` is None where the file system counts none."""

    bytes: int
    inodes: int | None


class Disk:
    """A real disk."""

    def create(self, path: Path) -> int:
        """Make a new file for appending and return its descriptor; the file must not exist."""
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, content: bytes) -> None:
        """Append all of it. A short write is followed by another for the rest."""
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int) -> None:
        """Return once everything written is on stable storage."""
        full_sync = getattr(fcntl, "F_FULLFSYNC", None)
        if full_sync is not None:
            # macOS: fsync alone leaves the data in the drive's cache (fsync(2) there says so).
            fcntl.fcntl(fd, full_sync)
        else:
            os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """Make the directory's entries durable; without it a new file may be gone after a power cut."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to this size."""
        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        """Give the descriptor back."""
        os.close(fd)

    def is_same(self, fd: int, path: Path) -> bool:
        """Whether the path still leads to the open file."""
        try:
            there = path.stat()
        except FileNotFoundError:
            return False
        here = os.fstat(fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def free(self, path: Path) -> FreeSpace:
        """What is left on the file system of `path`."""
        found = os.statvfs(path)
        return FreeSpace(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)
