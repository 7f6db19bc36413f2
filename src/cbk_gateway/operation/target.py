"""The request target made unambiguous: one spelling per path, before anything decides on it.

The path that leaves here is the one that is matched, and the one that is forwarded byte for byte. Rules
from RFC 3986 section 6.2.2 (percent-encoding and dot-segment normalisation) and RFC 9112 section 3.2
(forms of the target). Whatever could be read in two ways by two servers is refused, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from cbk_gateway.errors import BadRequest, NotFound

MAX_TARGET_CHARS: Final = 8000
MAX_SEGMENTS: Final = 40

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
# A query may hold what browsers leave raw there (RFC 3986 would have it encoded, servers take it).
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]{}|\"^`<>\\]|%[0-9A-Fa-f]{2})*")
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_\-~]+)+")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_TWICE_ENCODED: Final = re.compile(r"%25[0-9A-Fa-f]{2}")
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def split(target: str) -> tuple[str, str]:
    """Split a request target into its raw path and raw query.

    The absolute form is accepted (RFC 9112 section 3.2.2) and its authority dropped: this server serves
    one API under every name.

    Raises:
        BadRequest: It is too long, has a fragment, or holds bytes no target may hold.
    """
    if len(target) > MAX_TARGET_CHARS:
        raise BadRequest("The request target is too long.", reason="target_too_long")
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise BadRequest("The request target must be a path.")
        target = target[absolute.end() :] or "/"
        if target.startswith("?"):
            target = "/" + target
    path, _, query = target.partition("?")
    if _PATH.fullmatch(path) is None:
        raise BadRequest("The path holds a character or an escape that no URL path may hold.")
    if _QUERY.fullmatch(query) is None:
        raise BadRequest("The query holds a character or an escape that no URL query may hold.")
    return path, query


def _nowhere(_: Sequence[str]) -> bool:
    return False


def normalise(path: str, is_name: Callable[[Sequence[str]], bool] = _nowhere) -> tuple[str, ...]:
    """The path's segments in their one spelling: no dots, no empty ones, needless escapes decoded.

    Args:
        path: As received.
        is_name: Whether what follows these segments is a free name: a part of it is kept as it was sent,
            and may hold a literal percent sign or a backslash.

    Raises:
        BadRequest: A segment hides a slash, a control character or a second layer of encoding, or is
            not UTF-8.
        NotFound: The dot segments lead above the root.
    """
    if _PLAIN.fullmatch(path) is not None:
        return _bounded(path[1:].split("/"))
    segments: list[str] = []
    for raw in path.split("/"):
        segment = _name(raw) if "%" in raw and is_name(segments) else _one_spelling(raw)
        if segment in {"", "."}:
            continue
        if segment == "..":
            if not segments:
                raise NotFound("There is no such path in this API.")
            segments.pop()
            continue
        segments.append(segment)
    return _bounded(segments)


def decode(segment: str) -> str:
    """A normalised segment as the text it stands for."""
    return unquote_to_bytes(segment).decode() if "%" in segment else segment


def query_keys(query: str) -> list[str]:
    """The decoded names in a query, in order, repeated ones included."""
    if not query:
        return []
    return [_query_text(pair.partition("=")[0]) for pair in query.split("&") if pair]


def canonical_query(query: str) -> str:
    """One spelling for queries that the API reads alike: for cache keys, never for forwarding.

    Pairs are sorted by name; values under one name keep their order, because the first one wins there.
    """
    if not query:
        return ""
    pairs = []
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((_query_text(name), _query_text(value)))
    pairs.sort(key=lambda pair: pair[0])
    # Lengths in front, so that no value can spell the border to the next pair.
    return "".join(f"{len(name)}:{name}{len(value)}:{value}" for name, value in pairs)


def _bounded(segments: list[str]) -> tuple[str, ...]:
    if len(segments) > MAX_SEGMENTS:
        raise NotFound("There is no such path in this API.")
    return tuple(segments)


def _one_spelling(segment: str) -> str:
    if "%" not in segment:
        return segment
    if _TWICE_ENCODED.search(segment) is not None:
        raise BadRequest("The path is percent-encoded twice.", reason="double_encoding")
    octets = unquote_to_bytes(segment)
    if b"/" in octets or b"\\" in octets:
        raise BadRequest("The path holds an encoded slash.", reason="encoded_slash")
    if any(octet < 0x20 or octet == 0x7F for octet in octets):
        raise BadRequest("The path holds an encoded control character.", reason="control_character")
    try:
        octets.decode()
    except UnicodeDecodeError:
        raise BadRequest("The path is not UTF-8.", reason="not_utf8") from None
    return _ESCAPE.sub(_unescape_unreserved, segment)


def _name(segment: str) -> str:
    """A part of a free name, byte for byte, unless it climbs or hides a border.

    `a%2520b` is the name `a%20b`, which some server behind may decode once more. What would be another
    path then is refused, so that one reading too many still ends at a name.
    """
    octets = unquote_to_bytes(segment)
    if octets in {b".", b".."}:
        return octets.decode()
    if b"/" in octets:
        raise BadRequest("The path holds an encoded slash.", reason="encoded_slash")
    try:
        octets.decode()
    except UnicodeDecodeError:
        raise BadRequest("The path is not UTF-8.", reason="not_utf8") from None
    read = octets
    while True:
        if any(octet < 0x20 or octet == 0x7F for octet in read):
            raise BadRequest("The path holds an encoded control character.", reason="control_character")
        if b"/" in read or any(part in {b".", b".."} for part in read.split(b"\\")):
            raise BadRequest("The path hides another path.", reason="double_encoding")
        deeper = unquote_to_bytes(read)
        if deeper == read:
            return segment
        read = deeper


def _unescape_unreserved(escape: re.Match[str]) -> str:
    octet = int(escape[1], 16)
    return chr(octet) if octet in _UNRESERVED else escape[0].upper()


def _query_text(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode(errors="surrogateescape")
