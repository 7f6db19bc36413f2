"""The chain: how a record becomes one sealed line, and how a line is taken apart again.

A line is the record's JSON with its chain fields last:

    {...,"seq":7,"prev":"<64 hex>","mac":"<32 hex>","hash":"<64 hex>"}

`prev` is the `hash` of the record before, across segments (64 zeros before the first). `mac` is a keyed
digest of everything in front of it, so that a line made without the key is told from a real one even
where no signature has come yet. Signed lines carry `"sig":"<128 hex>"` (Ed25519, RFC 8032) after `mac`.
`hash` is SHA-256 of everything in front of it, so that any altered byte shows by itself. The bytes are
what is hashed, never a re-encoding of them.

Pure functions; files and keys at rest are elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

GENESIS: Final = "0" * 64
SIGNATURE_DOMAIN: Final = b"cbk-gateway audit record\0"

_TAIL: Final = re.compile(
    rb',"seq":([1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})","mac":"([0-9a-f]{32})"'
    rb'(?:,"sig":"([0-9a-f]{128})")?,"hash":"([0-9a-f]{64})"\}\n\Z'
)
_BATCH: Final = re.compile(
    rb',"batch":[0-9]{1,19},"seq":[0-9]{1,19},"prev":"[0-9a-f]{64}","mac":"[0-9a-f]{32}","hash":'
)
_TAIL_MAX: Final = 460
_HASH_FIELD: Final = len(',"hash":""}\n') + 64
_SIG_FIELD: Final = len(',"sig":""') + 128
_MAC_FIELD: Final = len(',"mac":""') + 32

Sign = Callable[[bytes], bytes]
"""From the message to sign to its 64-byte signature."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: number and digest of its last record."""

    seq: int = 0
    digest: str = GENESIS


@dataclass(frozen=True, slots=True)
class Link:
    """The chain fields of one line, as they are written there."""

    seq: int
    prev: str
    mac: str
    sig: str | None
    digest: str


def seal(body: bytes, head: Head, mac_key: bytes, sign: Sign | None = None) -> tuple[bytes, Head]:
    """Make the next line of a chain.

    Args:
        body: One JSON object with at least one member and no chain fields.
        head: The chain's present end.
        mac_key: Key of the `mac` field.
        sign: Given for records that carry a signature.

    Returns:
        The line with its newline, and the new end of the chain.
    """
    seq = head.seq + 1
    stem = b'%b,"seq":%d,"prev":"%b"' % (body[:-1], seq, head.digest.encode())
    mac = _mac(mac_key, stem)
    stem = b'%b,"mac":"%b"' % (stem, mac.encode())
    if sign is not None:
        stem = b'%b,"sig":"%b"' % (stem, sign(signed_message(stem)).hex().encode())
    digest = hashlib.sha256(stem).hexdigest()
    return b'%b,"hash":"%b"}\n' % (stem, digest.encode()), Head(seq, digest)


def signed_message(stem: bytes) -> bytes:
    """What a signature covers: the digest of the line up to its `mac`, under a domain of its own."""
    return SIGNATURE_DOMAIN + hashlib.sha256(stem).digest()


def take_apart(line: bytes) -> Link | None:
    """The chain fields of a line, or None when it does not end like one."""
    found = _TAIL.search(line, max(0, len(line) - _TAIL_MAX))
    if found is None:
        return None
    seq, prev, mac, sig, digest = found.groups()
    return Link(int(seq), prev.decode(), mac.decode(), sig.decode() if sig else None, digest.decode())


def proves_sync(line: bytes, link: Link) -> bool:
    """Whether all in front of this line was durable before it was written: it begins a group commit."""
    return link.sig is not None or _BATCH.search(line, max(0, len(line) - _TAIL_MAX - 40)) is not None


def is_intact(line: bytes, link: Link) -> bool:
    """Whether the line's own hash is that of its bytes."""
    return hashlib.sha256(line[:-_HASH_FIELD]).hexdigest() == link.digest


def is_ours(line: bytes, link: Link, mac_key: bytes) -> bool:
    """Whether the line was made by a holder of the key."""
    stem = line[: -_HASH_FIELD - (_SIG_FIELD if link.sig else 0) - _MAC_FIELD]
    return hmac.compare_digest(_mac(mac_key, stem), link.mac)


def _mac(key: bytes, stem: bytes) -> str:
    # Not `hmac.digest`: it gives up the interpreter lock on every call, and beside a busy event loop that
    # makes a record cost three times as much. A copy of a keyed state does not, and is quicker alone too.
    keyed = _keyed(key).copy()
    keyed.update(stem)
    return keyed.hexdigest()[:32]


@functools.lru_cache(maxsize=8)
def _keyed(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


def message_of(line: bytes) -> bytes:
    """The message that the signature of a signed line covers."""
    return signed_message(line[: -_HASH_FIELD - _SIG_FIELD])
