"""Test vectors for signatures in compact JWS form: our own, in the manner of Project Wycheproof.

Each is one token, and whether it has to be accepted. All say the same good things; what differs is how the
signature is made or how the token is spelt. The mathematics of edge cases (a nonce of our choice, a
padding of our choice) is written out, because no library signs wrongly on request. RFC 7515, 7518, 8017, 8032
and FIPS 186-5; those of RSA are in `vectors_rsa.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from unit.identity.forge import b64

HMAC_KEY: Final = "a shared secret for vectors, of more than thirty-two bytes"
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_FIELD: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
P521_ORDER: Final = (2**257 - 1) << 264 | int(
    "FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16
)
ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493

P256: Final = ec.derive_private_key(0x1B5E55 << 200 | 0x7E57, ec.SECP256R1())
P384: Final = ec.derive_private_key(0x1B5E55 << 300 | 0x7E57, ec.SECP384R1())
P521: Final = ec.derive_private_key(0x1B5E55 << 400 | 0x7E57, ec.SECP521R1())
STRANGER: Final = ec.derive_private_key(0x57A26E << 200 | 0x7E57, ec.SECP256R1())
ED25519: Final = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@dataclass(frozen=True, slots=True)
class Vector:
    """One token; `name` begins with the key id, which begins with the algorithm the key is bound to."""

    name: str
    token: str
    is_valid: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """What is signed: the same claims at one moment (epoch seconds), under one key id."""

    kid: str
    now: float

    @property
    def alg(self) -> str:
        return self.kid.partition("-")[0]

    @property
    def parts(self) -> tuple[bytes, bytes]:
        """Header and payload, not yet spelt."""
        claims = {
            "iss": "vectors-shared" if self.alg.startswith("HS") else "vectors",
            "sub": "ada",
            "tenant": "acme",
            "scope": "*",
            "iat": int(self.now) - 10,
            "exp": int(self.now) + 3000,
        }
        return json.dumps({"alg": self.alg, "kid": self.kid}).encode(), json.dumps(claims).encode()

    @property
    def octets(self) -> bytes:
        """What a signature is over."""
        return ".".join(b64(part) for part in self.parts).encode()

    def digest(self) -> int:
        return int.from_bytes(hashlib.sha256(self.octets).digest(), "big")

    def vector(self, name: str, signature: bytes, *, is_valid: bool = False) -> Vector:
        return Vector(f"{self.kid}: {name}", f"{self.octets.decode()}.{b64(signature)}", is_valid)


def vectors(now: float) -> list[Vector]:
    """All but those of RSA, whose tokens are good around `now` (epoch seconds)."""
    return [*es256(Subject("ES256-a", now)), *wider_curves(now), *hs256(Subject("HS256-a", now)),
            *eddsa(Subject("EdDSA-a", now)), *spellings(Subject("HS256-a", now))]  # fmt: skip


def ecdsa(digest: int, nonce: int, key: int = P256.private_numbers().private_value) -> tuple[int, int]:
    """An ECDSA signature on P-256 with a nonce of our choice (FIPS 186-5 section 6.4.1)."""
    point = ec.derive_private_key(nonce, ec.SECP256R1()).public_key().public_numbers()
    r = point.x % P256_ORDER
    return r, pow(nonce, -1, P256_ORDER) * (digest + r * key) % P256_ORDER


def pair(r: int, s: int, size: int = 32) -> bytes:
    """RFC 7518 section 3.4: both numbers, big-endian, each as wide as the order."""
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def es256(subject: Subject) -> Iterator[Vector]:
    """ES256: the ranges of r and s, and how two numbers may and may not be put together."""
    digest, n, p = subject.digest(), P256_ORDER, P256_FIELD
    r, s = ecdsa(digest, 0xC0FFEE)
    for name, numbers in {
        "as made": (r, s),
        # RFC 7518 asks for no low s, and issuers make both: neither may be refused.
        "s in the lower half": (r, min(s, n - s)),
        "s in the upper half": (r, max(s, n - s)),
        "nonce 1": ecdsa(digest, 1),
        "nonce n - 1": ecdsa(digest, n - 1),
    }.items():
        yield subject.vector(name, pair(*numbers), is_valid=True)
    for name, numbers in {
        "r and s zero": (0, 0),
        "r zero": (0, s),
        "s zero": (r, 0),
        "r is n": (n, s),
        "s is n": (r, n),
        "both n": (n, n),
        "r zero, s is n": (0, n),
        "r is n + 1": (n + 1, s),
        "s is n - 1": (r, n - 1),
        "s is n + 1": (r, n + 1),
        "both 1": (1, 1),
        "both n - 1": (n - 1, n - 1),
        "both the field's prime": (p, p),
        "both of all ones": (2**256 - 1, 2**256 - 1),
        "s as a two's complement": (r, 2**256 - s),
        "r negated": (n - r, s),
        "swapped": (s, r),
        "s inverted": (r, pow(s, -1, n)),
        "r off by one": (r + 1, s),
        "s off by one": (r, s + 1),
        "by a stranger": ecdsa(digest, 0xC0FFEE, STRANGER.private_numbers().private_value),
        "of a digest of zero": ecdsa(0, 0xC0FFEE),
        "of the digest's digest": ecdsa(of(hashlib.sha256(subject.digest().to_bytes(32, "big"))), 7),
        "of SHA-384, cut": ecdsa(of(hashlib.sha384(subject.octets)) >> 128, 7),
        "of SHA-1": ecdsa(of(hashlib.sha1(subject.octets, usedforsecurity=False)), 7),
        "of the payload alone": ecdsa(of(hashlib.sha256(subject.octets.partition(b".")[2])), 7),
        "of the parts unspelt": ecdsa(of(hashlib.sha256(b".".join(subject.parts))), 7),
    }.items():
        yield subject.vector(name, pair(*numbers))
    good, der = pair(r, s), encode_dss_signature(r, s)
    for name, octets in {
        "in DER": der,
        "in DER, cut to 64 bytes": der[:64],
        "in DER, of zeros": encode_dss_signature(0, 0),
        "each with a byte of zero more": pair(r, s, 33),
        "as wide as ES384": pair(r, s, 48),
        "a byte of zero before": b"\0" + good,
        "a byte of zero behind": good + b"\0",
        "twice": good * 2,
        "cut by a byte": good[:-1],
        "r alone": good[:32],
        "empty": b"",
        "one byte": b"\0",
        "little-endian": r.to_bytes(32, "little") + s.to_bytes(32, "little"),
        "in hexadecimal": good.hex().encode(),
    }.items():
        yield subject.vector(name, octets)
    yield from _leading_zeros(subject)


def _leading_zeros(subject: Subject) -> Iterator[Vector]:
    """A number that begins with a byte of zero keeps it; one that lost it makes the whole too short."""
    for place, which in enumerate("rs"):
        numbers = next(
            found for nonce in count(1000) if (found := ecdsa(subject.digest(), nonce))[place] < 2**248
        )
        octets = pair(*numbers)
        yield subject.vector(f"{which} begins with zero", octets, is_valid=True)
        yield subject.vector(f"{which} lost its zero", octets[: 32 * place] + octets[32 * place + 1 :])


def of(digest: object) -> int:
    """A digest as a number."""
    return int.from_bytes(digest.digest(), "big")  # type: ignore[attr-defined]  # hashlib's type has no public name


def wider_curves(now: float) -> Iterator[Vector]:
    """ES384 and ES512: their widths, and numbers that only wrap because the last byte has room for them."""
    for kid, key, algorithm, size in (
        ("ES384-a", P384, hashes.SHA384(), 48),
        ("ES512-a", P521, hashes.SHA512(), 66),
    ):
        subject = Subject(kid, now)
        r, s = numbers_of(key.sign(subject.octets, ec.ECDSA(algorithm)))
        yield subject.vector("as made", pair(r, s, size), is_valid=True)
        yield subject.vector("each with a byte more", pair(r, s, size + 1))
        yield subject.vector("r and s zero", bytes(2 * size))
        yield subject.vector(
            "of SHA-256", pair(*numbers_of(key.sign(subject.octets, ec.ECDSA(hashes.SHA256()))), size)
        )
        if size == 66:
            yield subject.vector("r + n", pair(r + P521_ORDER, s, size))
            yield subject.vector("s + n", pair(r, s + P521_ORDER, size))
            yield subject.vector("as wide as 512 bits", pair(r % 2**512, s % 2**512, 64))


def numbers_of(der: bytes) -> tuple[int, int]:
    """The numbers of a signature as the library makes it."""
    r_end = 4 + der[3] if der[1] < 128 else 5 + der[4]
    start = 4 if der[1] < 128 else 5
    r = int.from_bytes(der[start:r_end], "big")
    return r, int.from_bytes(der[r_end + 2 :], "big")


def hs256(subject: Subject) -> Iterator[Vector]:
    """HS256: a tag is whole, or it is none (RFC 2104 section 5 lets others cut it; RFC 7518 does not)."""
    key = HMAC_KEY.encode()
    tag = hmac.digest(key, subject.octets, "sha256")
    yield subject.vector("as made", tag, is_valid=True)
    for length in (0, 1, 8, 10, 16, 20, 24, 31):
        yield subject.vector(f"cut to {length} bytes", tag[:length])
    for bit in (0, 7, 8, 127, 128, 255):
        flipped = int.from_bytes(tag, "big") ^ (1 << (255 - bit))
        yield subject.vector(f"bit {bit} flipped", flipped.to_bytes(32, "big"))
    for name, octets in {
        "a byte more": tag + b"\0",
        "twice": tag * 2,
        "of zeros": bytes(32),
        "of ones": b"\xff" * 32,
        "reversed": tag[::-1],
        "in hexadecimal": tag.hex().encode(),
        "spelt twice": b64(tag).encode(),
        "of SHA-384": hmac.digest(key, subject.octets, "sha384"),
        "of SHA-512": hmac.digest(key, subject.octets, "sha512"),
        "of SHA-512, cut": hmac.digest(key, subject.octets, "sha512")[:32],
        "of SHA-1": hmac.digest(key, subject.octets, "sha1"),
        "without a key": hashlib.sha256(subject.octets).digest(),
        "under an empty key": hmac.digest(b"", subject.octets, "sha256"),
        "under the key in other case": hmac.digest(key.upper(), subject.octets, "sha256"),
        "under the key's digest": hmac.digest(hashlib.sha256(key).digest(), subject.octets, "sha256"),
        "key and text joined": hashlib.sha256(key + subject.octets).digest(),
        "of the payload alone": hmac.digest(key, subject.octets.partition(b".")[2], "sha256"),
        "of the parts unspelt": hmac.digest(key, b".".join(subject.parts), "sha256"),
        "with a line break behind": hmac.digest(key, subject.octets + b"\n", "sha256"),
    }.items():
        yield subject.vector(name, octets)


def eddsa(subject: Subject) -> Iterator[Vector]:
    """EdDSA: one signature, one spelling (RFC 8032 section 5.1.7: S is below the order)."""
    good = ED25519.sign(subject.octets)
    point, s = good[:32], int.from_bytes(good[32:], "little")
    yield subject.vector("as made", good, is_valid=True)
    for name, octets in {
        "S + order": point + (s + ED25519_ORDER).to_bytes(32, "little"),
        "S + 2 * order": point + (s + 2 * ED25519_ORDER).to_bytes(32, "little"),
        "S negated": point + (ED25519_ORDER - s).to_bytes(32, "little"),
        "S zero": point + bytes(32),
        "S is the order": point + ED25519_ORDER.to_bytes(32, "little"),
        "S big-endian": point + s.to_bytes(32, "big"),
        "R of zeros": bytes(32) + good[32:],
        "R is the neutral point": (1).to_bytes(32, "little") + good[32:],
        "R's sign flipped": point[:31] + bytes((point[31] ^ 128,)) + good[32:],
        "R is no point": b"\x02" + bytes(31) + good[32:],
        "all zeros": bytes(64),
        "halves swapped": good[32:] + point,
        "cut by a byte": good[:-1],
        "a byte more": good + b"\0",
        "R alone": point,
        "empty": b"",
        "of the digest": ED25519.sign(hashlib.sha512(subject.octets).digest()),
        "of the payload alone": ED25519.sign(subject.octets.partition(b".")[2]),
    }.items():
        yield subject.vector(name, octets)


def spellings(subject: Subject) -> Iterator[Vector]:
    """One token, one text (RFC 7515 section 2, RFC 4648 section 3.5), even if another is signed."""
    header, payload = (b64(part) for part in subject.parts)

    def signed(first: str, second: str) -> str:
        return b64(hmac.digest(HMAC_KEY.encode(), f"{first}.{second}".encode(), "sha256"))

    tag = signed(header, payload)
    good = f"{header}.{payload}.{tag}"
    padded = [part + "=" * (-len(part) % 4 or 4) for part in (header, payload)]
    respelt = {
        "header padded and signed so": (padded[0], payload),
        "payload padded and signed so": (header, padded[1]),
        "header with loose bits": (_loose(b64(subject.parts[0] + b" ")), payload),
        "payload with loose bits": (header, _loose(b64(_to_two(subject.parts[1])))),
        "blank in the header": (header[:5] + " " + header[5:], payload),
        "tab in the payload": (header, payload[:5] + "\t" + payload[5:]),
        "payload in the standard alphabet": (
            header,
            b64(b'{"a":"\xc3\xbf\xc3\xbe?"}').replace("_", "/").replace("-", "+"),
        ),
        "header escaped as in a URL": ("%65" + header[1:], payload),
        "header one letter too long": (header + "A", payload),
        "payload empty": (header, ""),
        "header empty": ("", payload),
    }
    for name, parts in respelt.items():
        yield Vector(f"spelt: {name}", f"{parts[0]}.{parts[1]}.{signed(*parts)}", is_valid=False)
    for name, token in {
        "tag padded": good + "=",
        "tag padded twice": good + "==",
        "tag with loose bits": f"{header}.{payload}.{_loose(tag)}",
        "blank behind": good + " x",
        "blank in the tag": good[:-5] + " " + good[-5:],
        "two letters more": good + "AA",
        "four letters more": good + "AAAA",
        "a dot behind": good + ".",
        "a dot before": "." + good,
        "dots doubled": good.replace(".", ".."),
        "tag in the middle": f"{header}.{tag}.{payload}",
        "quoted": f'"{good}"',
        "comma behind": good + ",",
        "detached": f"{header}..{tag}",
    }.items():
        yield Vector(f"spelt: {name}", token, is_valid=False)
    yield Vector("spelt: as it should be", good, is_valid=True)


def _to_two(part: bytes) -> bytes:
    """The same JSON with blanks behind, so long that its spelling ends in bits that mean nothing."""
    return part + b" " * ((1 - len(part)) % 3)


def _loose(text: str) -> str:
    """The same bytes with another last letter, or the text as it is where every bit has a meaning."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4 != 0, "this spelling has no loose bits"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
