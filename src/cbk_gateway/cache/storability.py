"""Whether an answer may be remembered, and for how long. Pure decisions over status, headers and body.

A 200 of this API can be a failure: a JSON answer that took long is begun with 200 and may end as
`{message, code}`. So bodies are looked into. Everything that is doubtful is not remembered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from cbk_gateway.cache.keys import JSON, JSONL
from cbk_gateway.cache.options import CacheOptions

# What the key covers already; `origin` only ever changes CORS fields, which are never kept.
_COVERED_VARY: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "origin",
        "x-timezone",
        "x-runas-user-id",
        "x-runas-child-user-email",
    }
)
_DIRECTIVE: Final = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:=(?:"([^"]*)"|([^\s,;"]*)))?')
_FORBIDDING: Final = frozenset({"no-store", "private", "no-cache"})
_MAX_S: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to keep an answer.

    Attributes:
        ttl_s: Seconds it may live; 0 when it must not be kept.
        reason: Why not, a bounded token; "" when it may be kept.
        is_shareable: Whether requests that wait for this fetch may be given its answer all the same.
        is_lasting: Whether the next answer to the same request will not be kept either.
        media_type: Lower-case media type of the body.
        initial_age_s: Age that the answer arrived with.
    """

    ttl_s: float
    reason: str = ""
    is_shareable: bool = True
    is_lasting: bool = False
    media_type: str = JSON
    initial_age_s: int = 0

    @property
    def is_storable(self) -> bool:
        """Whether it may be kept."""
        return self.ttl_s > 0


def header(headers: Sequence[tuple[str, str]], name: str) -> str | None:
    """All values of a field, joined (RFC 9110 section 5.3); None without one. `name` is in lower case."""
    values = [value for key, value in headers if key.lower() == name]
    return ", ".join(values) if values else None


def judge(
    status: int,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    *,
    action: str,
    ttl_s: float,
    expected_type: str,
    options: CacheOptions,
) -> Verdict:
    """Decide whether an answer of the upstream may be kept.

    Args:
        status: Its status.
        headers: Its header fields.
        body: Its whole body, with content codings removed.
        action: `list` or `fetch`.
        ttl_s: Seconds that the configuration gives to its type.
        expected_type: The media type that was asked for.
        options: The cache's options.
    """
    media_type = (header(headers, "content-type") or "").partition(";")[0].strip().lower()
    if header(headers, "set-cookie") is not None:
        return Verdict(0, "set-cookie", is_shareable=False, is_lasting=True)
    if header(headers, "content-encoding") not in {None, "", "identity"}:
        return Verdict(0, "encoded", is_shareable=False, is_lasting=True)
    if len(body) > options.max_entry_bytes:
        return Verdict(0, "too-large", is_shareable=False, is_lasting=True)
    is_missing = status == 404 and action == "fetch" and options.negative_ttl_s > 0
    if status != 200 and not is_missing:
        return Verdict(0, f"status-{status // 100}xx", is_shareable=status >= 400)
    if media_type != (JSON if is_missing else expected_type):
        return Verdict(0, "media-type", is_shareable=False, is_lasting=True)
    if _varies_beyond(header(headers, "vary")):
        return Verdict(0, "vary", is_shareable=False, is_lasting=True)
    ttl_s = min(ttl_s, options.negative_ttl_s) if is_missing else ttl_s
    bounded, age_s = _bounded_by_upstream(headers, ttl_s, options)
    if bounded <= 0:
        return Verdict(0, "upstream-forbids", is_shareable=False, is_lasting=True)
    flaw = _flaw(body, media_type, action, is_missing=is_missing)
    if flaw:
        return Verdict(0, flaw)
    return Verdict(bounded, media_type=media_type, initial_age_s=age_s)


def cache_control(value: str | None) -> dict[str, str | None]:
    """Directives in lower case with their arguments (RFC 9111 section 5.2); the first of equals wins."""
    found: dict[str, str | None] = {}
    for name, quoted, plain in _DIRECTIVE.findall(value or ""):
        found.setdefault(name.lower(), quoted or plain or None)
    return found


def _bounded_by_upstream(
    headers: Sequence[tuple[str, str]], ttl_s: float, options: CacheOptions
) -> tuple[float, int]:
    """Seconds left and the age on arrival; 0 seconds when the upstream forbids keeping it."""
    directives = cache_control(header(headers, "cache-control"))
    if not _FORBIDDING.isdisjoint(directives):
        return 0.0, 0
    age_s = _seconds(header(headers, "age")) or 0
    limit = directives.get("s-maxage") or directives.get("max-age")
    if limit is None or not options.obey_upstream_max_age:
        return ttl_s, age_s
    seconds = _seconds(limit)
    # RFC 9111 section 4.2.1: an argument that cannot be read counts as stale.
    return (min(ttl_s, seconds - age_s) if seconds is not None else 0.0), age_s


def _seconds(text: str | None) -> int | None:
    text = (text or "").strip()
    return min(int(text), _MAX_S) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _varies_beyond(vary: str | None) -> bool:
    names = {one.strip().lower() for one in (vary or "").split(",") if one.strip()}
    return not names <= _COVERED_VARY


def _flaw(body: bytes, media_type: str, action: str, *, is_missing: bool) -> str:
    """Why a body is not the success (or the plain 404) that its status says; "" when it is."""
    if media_type == JSONL:
        return _jsonl_flaw(body)
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "malformed"
    if not isinstance(document, dict):
        return "shape"
    if is_missing:
        return "" if document.get("code") == "NOT_FOUND" else "shape"
    if _is_error(document):
        return "error-body"
    if action == "list" and not isinstance(document.get("items"), list):
        return "shape"
    return ""


def _jsonl_flaw(body: bytes) -> str:
    if body and not body.endswith(b"\n"):
        return "truncated"
    for line in body.splitlines():
        try:
            event: Any = orjson.loads(line)
        except orjson.JSONDecodeError:
            return "malformed"
        if not isinstance(event, dict) or event.get("type") not in {"item", "nop", "ping"}:
            return "error-body"
    return ""


def _is_error(document: dict[str, Any]) -> bool:
    """Whether a 200's object is an error: the flat pair, or the nested form of the public description."""
    if isinstance(document.get("message"), str) and isinstance(document.get("code"), str):
        return "items" not in document and "id" not in document
    error = document.get("error")
    return isinstance(error, dict) and "message" in error and "id" not in document
