"""The compact form of a signed token: strict taking apart, before anything in it is trusted.

Owns RFC 7515 sections 3.1, 4.1 and 5.2 up to (not including) the signature, and RFC 7519 section 7.2 up to
the claims. Keys and policy are not known here. Parsing is stricter than common libraries where leniency
lets two readers see two different tokens: canonical base64url only, no duplicate members, UTF-8 only.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cbk_gateway.identity.reasons import Reason, refused

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_TO_STANDARD: Final = str.maketrans("-_", "+/")

# RFC 4648 section 3.5: the unused low bits of the last character must be zero, or one signature has
# several spellings and a token several digests.
_LAST_OF_TWO: Final = frozenset("AQgw")
_LAST_OF_THREE: Final = frozenset("AEIMQUYcgkosw048")

# Members that make a verifier use keys or rules chosen by the sender (RFC 7515 sections 4.1.2 to 4.1.6 and
# 4.1.11, RFC 7797, RFC 8725 sections 2.1 and 3.10), or announce a form that is not spoken here.
REFUSED_MEMBERS: Final = ("crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty")

MAX_KID_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Compact:
    """A token taken apart and not trusted.

    Attributes:
        alg: The header's algorithm.
        kid: The header's key id, a lookup key and nothing else.
        typ: The header's type in lower case without `application/`, or None.
        claims: The payload.
        signing_input: The bytes the signature is over.
        signature: The signature's bytes.
    """

    header: Mapping[str, Any]
    alg: str
    kid: str | None
    typ: str | None
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


def take_apart(token: str) -> Compact:
    """Split and decode a token in compact form.

    Raises:
        NotAuthenticated: For anything that is not exactly one signed JWT with an acceptable header.
    """
    found = _COMPACT.fullmatch(token)
    if found is None:
        raise refused(Reason.MALFORMED, _shape_fault(token))
    first, second, third = found.groups()
    header = _json_object(first, "header")
    alg, kid, typ = _header_members(header)
    claims = _json_object(second, "payload")
    return Compact(
        header=header,
        alg=alg,
        kid=kid,
        typ=typ,
        claims=claims,
        signing_input=token[: len(first) + 1 + len(second)].encode("ascii"),
        signature=_decode(third),
    )


def readable_parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload of a token that was refused, as far as they can be read; for showing only."""
    segments = token.split(".")
    return _readable(segments[0]), _readable(segments[1] if len(segments) > 1 else "")


def _readable(segment: str) -> dict[str, Any]:
    try:
        document = json.loads(
            binascii.a2b_base64(segment.translate(_TO_STANDARD) + "=" * (-len(segment) & 3))
        )
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _shape_fault(token: str) -> str:
    if token.count(".") == 4:
        return "The token is encrypted, which is not accepted."
    return "The token is not a signed JWT in compact form."


def _decode(segment: str) -> bytes:
    tail = len(segment) & 3
    if (
        tail == 1
        or (tail == 2 and segment[-1] not in _LAST_OF_TWO)
        or (tail == 3 and segment[-1] not in _LAST_OF_THREE)
    ):
        raise refused(Reason.MALFORMED, "The token is not canonical base64url.")
    return binascii.a2b_base64(segment.translate(_TO_STANDARD) + "=" * (-tail & 3))


def _json_object(segment: str, part: str) -> dict[str, Any]:
    try:
        document = parse_json(_decode(segment).decode("utf-8"))
    except (ValueError, RecursionError):
        # The cause may quote the token, and nobody reads it: it must not travel in a traceback.
        raise refused(Reason.MALFORMED, f"The token's {part} is not acceptable JSON.") from None
    if not isinstance(document, dict):
        raise refused(Reason.MALFORMED, f"The token's {part} is not a JSON object.")
    return document


def _header_members(header: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    for name in REFUSED_MEMBERS:
        if name in header:
            raise refused(Reason.HEADER, f"The token's header has a member that is not accepted: {name}.")
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str):
        raise refused(Reason.ALGORITHM, "The token's header names no algorithm.")
    if alg.lower() == "none":
        raise refused(Reason.ALGORITHM, "The token is not signed.")
    if "kid" in header and not (isinstance(kid, str) and len(kid) <= MAX_KID_CHARS):
        raise refused(Reason.HEADER, "The token's key id is not a short text.")
    if "typ" in header and not isinstance(typ, str):
        raise refused(Reason.HEADER, "The token's type is not a text.")
    return alg, kid, typ.lower().removeprefix("application/") if typ is not None else None


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 7515 section 4 and RFC 8725 section 2.4: two parsers may pick different ones of two equal names.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(_name: str) -> NoReturn:
    # NaN and Infinity are no JSON, though Python reads them.
    raise ValueError("not a JSON number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_no_constant)


def parse_json(text: str) -> Any:  # noqa: ANN401 - JSON is any of its values; callers check
    """Parse JSON text as RFC 8259 defines it, refusing duplicate members.

    Raises:
        ValueError: Not JSON, or a member occurs twice in one object.
        RecursionError: Nested too deeply.
    """
    return _DECODER.decode(text)
