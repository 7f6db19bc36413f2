"""HTTP/1.1 framing read in the strictest way that RFC 9112 allows: the judge of what others make of bytes.

Small and slow on purpose. It knows nothing of what a request asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Several blanks may stand for one (RFC 9112 section 3): no reader can take them for anything else.
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) +([\x21-\x7e]+) +HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e\x80-\xff \t]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})([ \t]*;[\x20-\x7e\t\x80-\xff]*)?")


@dataclass(frozen=True, slots=True)
class Framed:
    """One request as it stands in the bytes; `body` is None when its end is in doubt."""

    method: str
    target: str
    body: bytes | None


class _DoubtError(ValueError):
    """Where the next request ends, or whether there is one, is in doubt."""


def framed(octets: bytes) -> list[Framed]:
    """The requests that the bytes begin with, up to the first doubt, which may be the end of the last one."""
    found: list[Framed] = []
    while True:
        try:
            method, target, version, fields, octets = _head(octets)
        except _DoubtError:
            return found
        try:
            body, octets = _body(version, fields, octets)
        except _DoubtError:
            return [*found, Framed(method, target, None)]
        found.append(Framed(method, target, body))


def _line(octets: bytes) -> tuple[bytes, bytes]:
    line, end, rest = octets.partition(b"\r\n")
    if not end or b"\r" in line or b"\n" in line or b"\0" in line:
        raise _DoubtError
    return line, rest


def _matched(pattern: re.Pattern[bytes], line: bytes) -> re.Match[bytes]:
    match = pattern.fullmatch(line)
    if match is None:
        raise _DoubtError
    return match


def _fields(octets: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    found: list[tuple[bytes, bytes]] = []
    while True:
        line, octets = _line(octets)
        if not line:
            return found, octets
        match = _matched(_FIELD, line)
        found.append((match[1].lower(), match[2].rstrip(b" \t")))


def _head(octets: bytes) -> tuple[str, str, str, list[tuple[bytes, bytes]], bytes]:
    # RFC 9112 section 2.2: empty lines before a request are skipped.
    line, octets = _line(octets.lstrip(b"\r\n"))
    match = _matched(_LINE, line)
    fields, octets = _fields(octets)
    return match[1].decode(), match[2].decode(), match[3].decode(), fields, octets


def _body(version: str, fields: list[tuple[bytes, bytes]], octets: bytes) -> tuple[bytes, bytes]:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1 or (codings and version == "0"):
        raise _DoubtError
    if codings:
        if codings[0].lower() != b"chunked":
            raise _DoubtError
        return _chunks(octets)
    if not lengths:
        return b"", octets
    size = int(_matched(_LENGTH, lengths[0])[0])
    if len(octets) < size:
        raise _DoubtError
    return octets[:size], octets[size:]


def _chunks(octets: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, octets = _line(octets)
        size = int(_matched(_CHUNK, line)[1], 16)
        if size == 0:
            _, octets = _fields(octets)
            return body, octets
        if octets[size : size + 2] != b"\r\n":
            raise _DoubtError
        body, octets = body + octets[:size], octets[size + 2 :]
