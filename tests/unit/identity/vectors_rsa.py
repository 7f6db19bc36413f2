"""Test vectors for RSA signatures in compact JWS form; see `vectors.py`.

RS256 is RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2): a reader that parses the padding, instead of comparing it
whole, can be deceived. PS256 is RSASSA-PSS with a salt as long as the digest (RFC 7518 section 3.5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from unit.identity.vectors import Subject, Vector

SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
SHA256_NO_NULL: Final = bytes.fromhex("302f300b0609608648016503040201") + bytes.fromhex("0420")
SHA256_LONG_FORM: Final = bytes.fromhex("308131300d060960864801650304020105000420")
SHA1_INFO: Final = bytes.fromhex("3021300906052b0e03021a05000414")
SHA512_INFO: Final = bytes.fromhex("3051300d060960864801650304020305000440")
SIZE: Final = 256


def rsa_vectors(key: rsa.RSAPrivateKey, low: rsa.RSAPrivateKey, now: float) -> list[Vector]:
    """All of RSA, under a usual key and under one whose exponent is 3; both of 2048 bits."""
    return [
        *rs256(Subject("RS256-a", now), key),
        *low_exponent(Subject("RS256-e3", now), low),
        *ps256(Subject("PS256-a", now), key),
    ]


def raw(key: rsa.RSAPrivateKey, block: bytes) -> bytes:
    """The signature that opens to this block, whatever it holds."""
    numbers = key.private_numbers()
    return pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n).to_bytes(SIZE, "big")


def padded(tail: bytes, *, kind: bytes = b"\0\1", fill: bytes = b"\xff") -> bytes:
    """A block of the right length: kind, filling, a zero, the tail."""
    return kind + fill * (SIZE - len(kind) - 1 - len(tail)) + b"\0" + tail


def rs256(subject: Subject, key: rsa.RSAPrivateKey) -> Iterator[Vector]:
    """RS256: paddings, digest infos, and numbers out of range."""
    n = key.private_numbers().public_numbers.n
    digest = hashlib.sha256(subject.octets).digest()
    info = SHA256_INFO + digest
    good = key.sign(subject.octets, padding.PKCS1v15(), hashes.SHA256())
    assert good == raw(key, padded(info))
    number = int.from_bytes(good, "big")
    yield subject.vector("as made", good, is_valid=True)
    short = b"\0\1" + b"\xff" * 8 + b"\0" + info
    blocks = {
        "block of kind 2": padded(info, kind=b"\0\2"),
        "block of kind 0": padded(info, kind=b"\0\0", fill=b"\0"),
        "first byte not zero": padded(info, kind=b"\1\1"),
        "filled with zeros": padded(info, fill=b"\0"),
        "filled with something": padded(info, fill=b"\xfe"),
        "last filling wrong": padded(info).replace(b"\xff\0" + info, b"\xfe\0" + info),
        "no zero before the digest": b"\0\1" + b"\xff" * (SIZE - 2 - len(info)) + info,
        "two zeros before the digest": padded(b"\0" + info),
        "filled with 8, garbage behind": short + b"\0" * (SIZE - len(short)),
        "filled with 8, digest at the end": short[:11] + b"\0" * (SIZE - 11 - len(info)) + info,
        "filled with none, garbage behind": (b"\0\1\0" + info).ljust(SIZE, b"\0"),
        "a byte behind the digest": padded(info + b"\0"),
        "a byte less of the digest": padded(info[:-1]),
        "digest info without NULL": padded(SHA256_NO_NULL + digest),
        "digest info with a long length": padded(SHA256_LONG_FORM + digest),
        "digest info of SHA-1": padded(
            SHA1_INFO + hashlib.sha1(subject.octets, usedforsecurity=False).digest()
        ),
        "digest info of SHA-1 around SHA-256": padded(SHA1_INFO + digest),
        "digest info of SHA-512": padded(SHA512_INFO + hashlib.sha512(subject.octets).digest()),
        "digest alone": padded(digest),
        "digest of another text": padded(SHA256_INFO + hashlib.sha256(b"another").digest()),
        "digest of the payload alone": padded(
            SHA256_INFO + hashlib.sha256(subject.octets.partition(b".")[2]).digest()
        ),
        "digest of the digest": padded(SHA256_INFO + hashlib.sha256(digest).digest()),
        "digest in hexadecimal": padded(SHA256_INFO + digest.hex().encode()),
        "empty": padded(b""),
    }
    for name, block in blocks.items():
        assert len(block) == SIZE, name
        yield subject.vector(name, raw(key, block))
    for name, octets in {
        "zero": bytes(SIZE),
        "one": (1).to_bytes(SIZE, "big"),
        "n - 1": (n - 1).to_bytes(SIZE, "big"),
        "n": n.to_bytes(SIZE, "big"),
        "s + n": (number + n).to_bytes(SIZE + 1, "big"),
        "n - s": (n - number).to_bytes(SIZE, "big"),
        "of all ones": b"\xff" * SIZE,
        "a byte of zero before": b"\0" + good,
        "a byte of zero behind": good + b"\0",
        "cut by a byte": good[:-1],
        "reversed": good[::-1],
        "the block itself": padded(info),
        "empty": b"",
        "by PSS": key.sign(subject.octets, pss(hashes.SHA256(), 32), hashes.SHA256()),
    }.items():
        yield subject.vector(f"number: {name}", octets)


def low_exponent(subject: Subject, key: rsa.RSAPrivateKey) -> Iterator[Vector]:
    """A cube root whose cube begins like a good block: made without the key (as in CVE-2006-4339)."""
    yield subject.vector(
        "as made", key.sign(subject.octets, padding.PKCS1v15(), hashes.SHA256()), is_valid=True
    )
    info = SHA256_INFO + hashlib.sha256(subject.octets).digest()
    for filled in (0, 1, 8, 24):
        start = b"\0\1" + b"\xff" * filled + b"\0" + info
        root = cube_root(int.from_bytes(start.ljust(SIZE, b"\xff"), "big"))
        assert (root**3).to_bytes(SIZE, "big").startswith(start)
        yield subject.vector(f"forged, filled with {filled}", root.to_bytes(SIZE, "big"))


def cube_root(number: int) -> int:
    """The largest whole number whose cube is no larger."""
    low, high = 0, 1 << (number.bit_length() // 3 + 2)
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle)
    return low


def ps256(subject: Subject, key: rsa.RSAPrivateKey) -> Iterator[Vector]:
    """PS256: one length of salt, one digest in both places, one last byte."""
    good = key.sign(subject.octets, pss(hashes.SHA256(), 32), hashes.SHA256())
    numbers = key.private_numbers().public_numbers
    block = pow(int.from_bytes(good, "big"), numbers.e, numbers.n).to_bytes(SIZE, "big")
    yield subject.vector("as made", good, is_valid=True)
    for salt in (0, 1, 20, 31, 33, SIZE - 2 - 32):
        name = f"salt of {salt} bytes"
        yield subject.vector(name, key.sign(subject.octets, pss(hashes.SHA256(), salt), hashes.SHA256()))
    for name, octets in {
        "mask of SHA-1": key.sign(subject.octets, pss(hashes.SHA1(), 32), hashes.SHA256()),
        "mask of SHA-512": key.sign(subject.octets, pss(hashes.SHA512(), 32), hashes.SHA256()),
        "digest of SHA-384": key.sign(subject.octets, pss(hashes.SHA384(), 48), hashes.SHA384()),
        "by PKCS 1": key.sign(subject.octets, padding.PKCS1v15(), hashes.SHA256()),
        "last byte another": raw(key, block[:-1] + b"\xcc"),
        "first bit set": raw(key, bytes((block[0] | 64,)) + block[1:-1] + b"\xbd"),
        "masked part altered": raw(key, block[:50] + bytes((block[50] ^ 1,)) + block[51:]),
        "digest altered": raw(key, block[:-2] + bytes((block[-2] ^ 1,)) + block[-1:]),
        "cut by a byte": good[:-1],
        "a byte of zero before": b"\0" + good,
        "zero": bytes(SIZE),
        "empty": b"",
    }.items():
        yield subject.vector(name, octets)


def pss(mask: hashes.HashAlgorithm, salt: int) -> padding.PSS:
    return padding.PSS(padding.MGF1(mask), salt)
