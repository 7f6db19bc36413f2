"""The contents of files: kept in memory while small, in a file when large, streamed in and out.

It counts, digests and stores bytes. What they belong to, and who may read them, is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

MEMORY_BYTES: Final = 8 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class Blob:
    """Some stored bytes and what is known about them."""

    size_bytes: int
    sha256: str
    content_type: str
    name: str
    contents: IO[bytes]

    @property
    def file_name(self) -> str:
        """Name of the file it is in, inside the folder; empty when it is not in one that stays."""
        name = getattr(self.contents, "name", None)
        return Path(name).name if isinstance(name, str) else ""

    def read(self) -> bytes:
        """All of it."""
        self.contents.seek(0)
        return self.contents.read()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All of it, piece by piece; several readers may be at it at once."""
        position = 0
        while position < self.size_bytes:
            self.contents.seek(position)
            piece = self.contents.read(CHUNK_BYTES)
            if not piece:
                return
            position += len(piece)
            yield piece


class BlobWriter:
    """Takes in bytes one piece at a time.

    Args:
        path: The file to write to; None keeps them in memory, then in a temporary file.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._contents: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed with its blob
                max_size=MEMORY_BYTES
            )
        else:
            self._contents = path.open("w+b")
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._digest.update(piece)
        self._contents.write(piece)
        self.size_bytes += len(piece)

    @property
    def sha256(self) -> str:
        """Digest of everything so far."""
        return self._digest.hexdigest()

    def finish(self, content_type: str, name: str) -> Blob:
        """The blob; nothing may be written after this."""
        self._contents.flush()
        return Blob(self.size_bytes, self.sha256, content_type, name, self._contents)

    def abandon(self) -> None:
        """Drop what was written."""
        self._contents.close()


@dataclass(slots=True)
class Ticket:
    """A URL that stands for one upload or download: what it is for, and where the bytes go."""

    key: str
    content_type: str
    name: str


class Blobs:
    """All stored bytes, by key, and the tickets to them.

    Args:
        folder: Where they are kept across restarts; None keeps them for this run only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._blobs: dict[str, Blob] = {}
        self._tickets: dict[str, Ticket] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def writer(self) -> BlobWriter:
        """A place to write new bytes to, before it is known whether they stay."""
        return BlobWriter(None if self._folder is None else self._folder / secrets.token_hex(8))

    def put(self, key: str, blob: Blob) -> None:
        """Keep a blob under a key, in place of what was there."""
        self.drop(key)
        self._blobs[key] = blob

    def put_bytes(self, key: str, content: bytes, content_type: str, name: str) -> Blob:
        """Keep some bytes under a key."""
        writer = self.writer()
        writer.write(content)
        blob = writer.finish(content_type, name)
        self.put(key, blob)
        return blob

    def reopen(self, key: str, file_name: str, content_type: str, name: str) -> None:
        """Take over bytes that an earlier run kept; nothing happens when they are gone."""
        if self._folder is None or not file_name or not (self._folder / file_name).is_file():
            return
        contents = (self._folder / file_name).open("r+b")
        digest = hashlib.file_digest(contents, "sha256").hexdigest()
        self._blobs[key] = Blob(contents.tell(), digest, content_type, name, contents)

    def get(self, key: str) -> Blob | None:
        """The blob under a key."""
        return self._blobs.get(key)

    def drop(self, key: str) -> None:
        """Forget the blob under a key."""
        blob = self._blobs.pop(key, None)
        if blob is not None:
            self.discard(blob)

    def discard(self, blob: Blob) -> None:
        """Close a blob and remove its file."""
        name = blob.file_name
        blob.contents.close()
        if self._folder is not None and name:
            (self._folder / name).unlink(missing_ok=True)

    def issue(self, key: str, content_type: str = "", name: str = "") -> str:
        """A ticket for a key."""
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = Ticket(key, content_type, name)
        return ticket

    def ticket(self, ticket: str) -> Ticket | None:
        """What a ticket stands for."""
        return self._tickets.get(ticket)

    def close(self) -> None:
        """Let go of all open files; kept ones stay on disk."""
        for blob in self._blobs.values():
            blob.contents.close()
        self._blobs.clear()
        self._tickets.clear()

    def clear(self) -> None:
        """Forget everything, on disk too."""
        self.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
