"""One stored body, several ways to send it: validators, content codings, JSON Lines of a page.

Pure functions and one small value. When a variant is built is `memory.py`'s business, and which one is sent
is decided here by the request's own headers (RFC 9110 sections 12.5.3 and 13.1.2).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import sys
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from cbk_gateway.operation import Operation

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VARY: Final = "Accept, Accept-Encoding, Authorization, X-Timezone, X-RunAs-User-ID, X-RunAs-Child-User-Email"
CODINGS: Final = ("zstd", "gzip")
"""Content codings that variants are made in, the better one first."""
PAGE_SIZE: Final = 100
_TAKE: Final = re.compile(r"[1-9][0-9]?|100")
_QVALUE: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([!\x23-\x7e\x80-\xff]*)"')
# Their JSON form is a view of its own, so a page of it says nothing about the walk.
_OWN_WALK: Final = ("platform/", "dataset/file", "magic", "contact/secret", "space/storage")


def entity_tag(body: bytes, media_type: str) -> str:
    """A strong validator that every worker and every restart computes alike (RFC 9110 section 8.8.3)."""
    state = hashlib.sha256(media_type.encode() + b"\0")
    state.update(body)
    return '"' + base64.urlsafe_b64encode(state.digest()[:16]).rstrip(b"=").decode() + '"'


def coded_tag(tag: str, coding: str) -> str:
    """The validator of a compressed variant: other bytes, so another tag (section 8.8.3.3)."""
    return f'{tag[:-1]}-{coding}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether the client holds the body that `tag` names. Weak comparison (section 13.1.2)."""
    if not if_none_match:
        return False
    if if_none_match.strip() == "*":
        return True
    wanted = tag.strip('"')
    return any(one == wanted for one in _ENTITY_TAG.findall(if_none_match))


@lru_cache(maxsize=256)
def codings(accept_encoding: str | None) -> tuple[str, ...]:
    """The codings that a client takes rather than the plain body, the one it likes best first.

    Without the header there is none (section 12.5.3). What it weighs less than an `identity` that it names
    is left out; of equals the one that packs better comes first.
    """
    if not accept_encoding:
        return ()
    weights = dict(_weight(one) for one in accept_encoding.lower().split(","))
    rest = weights.get("*", 0.0)
    liked = {"zstd": weights.get("zstd", rest), "gzip": weights.get("gzip", weights.get("x-gzip", rest))}
    plain = weights.get("identity", 0.0)
    taken = [one for one in CODINGS if liked[one] > 0 and liked[one] >= plain]
    return tuple(sorted(taken, key=lambda one: -liked[one]))


def compressed(body: bytes, coding: str) -> bytes | None:
    """A variant, or None where it would not be smaller. The same bytes whenever it is built."""
    if coding == "zstd":
        # Level 3 looks back 2 MiB at most: clients need not hold more than 8 (RFC 9659 section 3).
        packed = zstd.compress(body, level=3)
    else:
        packed = gzip.compress(body, compresslevel=6, mtime=0)
    return packed if len(packed) < len(body) else None


def take_of(query: str) -> int | None:
    """The page size that a list's query names; None when it names none that the API would obey."""
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        if name == "take":
            return int(value) if _TAKE.fullmatch(value) else None
    return None


def can_walk_in_one_page(operation: Operation) -> bool:
    """Whether the JSON Lines form of this list is, for some collections, exactly one JSON page."""
    return operation.action == "list" and not operation.resource.startswith(_OWN_WALK)


def as_jsonl(page: bytes, take: int | None) -> bytes | None:
    """A JSON page as the JSON Lines answer to the same query, or None where they are not the same.

    A walk ends when `take` items were sent or the collection is through. A page is all of it when the query
    named its size, or when fewer items came than a page holds; what is left out then is nothing.
    """
    try:
        document: Any = orjson.loads(page)
    except orjson.JSONDecodeError:
        return None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list) or (take is None and len(items) >= PAGE_SIZE):
        return None
    return b"".join(orjson.dumps({"type": "item", "data": item}) + b"\n" for item in items[:take])


def _weight(one: str) -> tuple[str, float]:
    coding, _, parameters = one.partition(";")
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return coding.strip(), 1.0
    # What is no weight asks for nothing.
    return coding.strip(), float(value) if _QVALUE.fullmatch(value.strip()) else 0.0
