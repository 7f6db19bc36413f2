"""Tombstones: what retention leaves in place of removed segments, so that the chain stays verifiable.

One signed JSON line per removed run of segments, in a file beside the segments. It says which records
went, when and why, and carries the chain from the last record before the gap to the first after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cbk_gateway.audit.chain import Head
from cbk_gateway.audit.signing import SigningKey, is_signed

FILE_NAME: Final = "tombstones"
_DOMAIN: Final = b"cbk-gateway audit tombstone\0"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A run of segments that is gone.

    Attributes:
        worker: Whose chain.
        first_segment: First segment removed.
        last_segment: Last segment removed.
        before: The chain's end before the gap.
        after: The chain's end at the gap's end: the head of the last removed record.
        first_time: Time of the first removed record.
        last_time: Time of the last.
        reason: "age" or "size".
        removed_at: When it happened.
        key: Id of the signing key.
    """

    worker: str
    first_segment: int
    last_segment: int
    before: Head
    after: Head
    first_time: str
    last_time: str
    reason: str
    removed_at: str
    key: str

    def encoded(self) -> bytes:
        """The JSON that is signed."""
        return orjson.dumps(
            {
                "kind": "tombstone",
                "worker": self.worker,
                "first_segment": self.first_segment,
                "last_segment": self.last_segment,
                "before_seq": self.before.seq,
                "before_hash": self.before.digest,
                "after_seq": self.after.seq,
                "after_hash": self.after.digest,
                "first_time": self.first_time,
                "last_time": self.last_time,
                "reason": self.reason,
                "removed_at": self.removed_at,
                "key": self.key,
            }
        )


def append(folder: Path, tombstone: Tombstone, key: SigningKey) -> None:
    """Add a tombstone durably. Raises OSError; then nothing may be removed."""
    body = tombstone.encoded()
    line = b'%b,"sig":"%b"}\n' % (body[:-1], key.sign(_DOMAIN + body).hex().encode())
    fd = os.open(folder / FILE_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.write(fd, line)
        os.fsync(fd)
    finally:
        os.close(fd)


def read(folder: Path, keys: Iterable[Ed25519PublicKey]) -> tuple[dict[int, Tombstone], list[int]]:
    """A worker's tombstones by first segment, and the numbers of the lines no key has signed."""
    path = folder / FILE_NAME
    if not path.exists():
        return {}, []
    known = list(keys)
    good: dict[int, Tombstone] = {}
    bad: list[int] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        stone = _parse(line)
        if stone is not None and any(
            is_signed(key, _DOMAIN + stone.encoded(), _signature(line)) for key in known
        ):
            good[stone.first_segment] = stone
        else:
            bad.append(number)
    return good, bad


def _signature(line: bytes) -> str:
    return line[-130:-2].decode("ascii", "replace")


def _parse(line: bytes) -> Tombstone | None:
    try:
        found = orjson.loads(line)
        return Tombstone(
            worker=str(found["worker"]),
            first_segment=int(found["first_segment"]),
            last_segment=int(found["last_segment"]),
            before=Head(int(found["before_seq"]), str(found["before_hash"])),
            after=Head(int(found["after_seq"]), str(found["after_hash"])),
            first_time=str(found["first_time"]),
            last_time=str(found["last_time"]),
            reason=str(found["reason"]),
            removed_at=str(found["removed_at"]),
            key=str(found["key"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
