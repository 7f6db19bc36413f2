"""The key that signs checkpoints, and the anchors it keeps outside the journal.

The private key never enters the journal's directory: whoever can write there cannot sign. The `mac` key
of the chain is derived from it. An anchor is the last signed head of one worker, in a folder beside the
key, so that cutting the end off a journal, or removing it whole, shows.
"""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cbk_gateway.audit.chain import Head
from cbk_gateway.audit.options import JournalFault

_ANCHOR_DOMAIN: Final = b"cbk-gateway audit anchor\0"


class SigningKey:
    """An Ed25519 private key and what follows from it."""

    __slots__ = ("_private", "key_id", "mac_key", "path")

    def __init__(self, private: Ed25519PrivateKey, path: Path) -> None:
        raw = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self._private = private
        self.path = path
        self.mac_key = hmac.digest(raw, b"cbk-gateway audit mac", "sha256")
        self.key_id = key_id_of(private.public_key())

    def __repr__(self) -> str:
        return f"<SigningKey {self.key_id}>"

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of a message (RFC 8032)."""
        return self._private.sign(message)

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key others verify with."""
        return self._private.public_key()


def key_id_of(key: Ed25519PublicKey) -> str:
    """Sixteen hex digits that name a public key in records."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hmac.digest(b"cbk-gateway audit key id", raw, "sha256").hex()[:16]


def load_or_make(path: Path) -> SigningKey:
    """Read the private key, or make one on the first start; its public half is put beside it.

    Several workers may start at once: the first to link its file wins, the others read it.

    Raises:
        JournalFault: The file cannot be read or made, or holds no Ed25519 key.
    """
    try:
        if not path.exists():
            _make(path)
        pem = path.read_bytes()
    except OSError as exc:
        message = f"cannot read or make the audit signing key {path}: {exc.strerror}"
        raise JournalFault(message) from exc
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as exc:
        message = f"the audit signing key {path} is not a PEM private key without password"
        raise JournalFault(message) from exc
    if not isinstance(private, Ed25519PrivateKey):
        message = f"the audit signing key {path} must be an Ed25519 key"
        raise JournalFault(message)
    return SigningKey(private, path)


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key (PEM, SubjectPublicKeyInfo).

    Raises:
        JournalFault: The file cannot be read or holds no Ed25519 public key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, TypeError) as exc:
        message = f"cannot read the audit public key {path}"
        raise JournalFault(message) from exc
    if not isinstance(key, Ed25519PublicKey):
        message = f"the audit public key {path} must be an Ed25519 key"
        raise JournalFault(message)
    return key


def is_signed(key: Ed25519PublicKey, message: bytes, signature_hex: str) -> bool:
    """Whether the signature is this key's over this message."""
    try:
        key.verify(bytes.fromhex(signature_hex), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_path(path: Path) -> Path:
    """Where the public half of a private key file is."""
    return path.with_name(path.name + ".pub")


def _make(path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    if put_once(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())):
        shown = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write_durably(public_path(path), shown, mode=0o644)


def put_once(path: Path, content: bytes) -> bool:
    """Put a key into a file that only its owner may read, unless there is one.

    Of several processes that start at once one wins, and none finds the file half written: it is made whole,
    synced, and only then given its name.

    Returns:
        Whether this call made the file.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    _write_durably(draft, content, mode=0o600)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _write_durably(path: Path, content: bytes, *, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last signed head of one worker's chain, kept beside the key."""

    worker: str
    segment: int
    head: Head
    time: str

    def signed_text(self) -> bytes:
        """What the anchor's signature covers."""
        fields = (self.worker, str(self.segment), str(self.head.seq), self.head.digest, self.time)
        return _ANCHOR_DOMAIN + "\0".join(fields).encode()


def anchors_directory(key_path: Path) -> Path:
    """The folder of anchors that belongs to a key file."""
    return key_path.with_name(key_path.name + ".anchors")


def write_anchor(key: SigningKey, anchor: Anchor) -> None:
    """Replace a worker's anchor atomically. Raises OSError when the folder cannot be written."""
    folder = anchors_directory(key.path)
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "worker": anchor.worker,
        "segment": anchor.segment,
        "seq": anchor.head.seq,
        "hash": anchor.head.digest,
        "time": anchor.time,
        "sig": key.sign(anchor.signed_text()).hex(),
    }
    draft = folder / f".{anchor.worker}.draft"
    _write_durably(draft, orjson.dumps(document), mode=0o644)
    draft.replace(folder / f"{anchor.worker}.json")


def read_anchors(folder: Path, key: Ed25519PublicKey) -> tuple[list[Anchor], list[Path]]:
    """All anchors of a folder: those with a good signature, and the files that have none."""
    good: list[Anchor] = []
    bad: list[Path] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = orjson.loads(path.read_bytes())
            head = Head(int(found["seq"]), str(found["hash"]))
            anchor = Anchor(str(found["worker"]), int(found["segment"]), head, str(found["time"]))
            signed = is_signed(key, anchor.signed_text(), str(found["sig"]))
        except (OSError, ValueError, KeyError, TypeError):
            signed = False
        if signed:
            good.append(anchor)
        else:
            bad.append(path)
    return good, bad
