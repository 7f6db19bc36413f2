"""The tag of a create: a reserved key in the `meta` that it sends, by which the object can be found again.

Where an operator has it so (`audit.tag_creates`), the body that goes upstream differs from the client's by
this one key and by nothing else: it is spliced in, not written anew. A lost answer is then no loss: the
type's list, filtered by the tag, shows what was made. Pure functions; who asks the list is elsewhere.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

import orjson

from cbk_gateway.operation import Operation

KEY: Final = "cbkGatewayWrite"
"""The reserved key. The API refuses keys of `meta` that begin with an underscore."""

_TYPES: Final = """
    bot dataset dataset/record skillset skillset/ability ability conversation conversation/message contact
    file secret space space/site task memory blueprint blueprint/bulletin portal policy rating
    integration/widget integration/slack integration/discord integration/telegram integration/whatsapp
    integration/messenger integration/instagram integration/twilio integration/email integration/teams
    integration/googlechat integration/notion integration/sitemap integration/support integration/extract
    integration/trigger integration/mcpserver integration/skillserver integration/anam integration/github
    integration/recall
"""
TAGGED_TYPES: Final = frozenset(_TYPES.split())
"""Types whose creates take a `meta` and whose lists are filtered by it. Elsewhere a further field could
make the API refuse the create, so nothing is added there."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_MOST_ITEMS: Final = 10


def fresh() -> str:
    """A tag that nobody can guess and nobody else has."""
    return secrets.token_hex(16)


def is_taggable(operation: Operation) -> bool:
    """Whether the grammar allows it: a create of a type with metadata."""
    route = operation.route
    return route.known and route.action == "create" and route.resource in TAGGED_TYPES


def tagged(body: bytes, tag: str) -> bytes | None:
    """The body with the tag in its `meta`, every other byte as it was.

    Returns:
        None where it cannot be put in without a doubt: no JSON object, a `meta` that is no object, is given
        twice or bears a tag already (a copied object), bytes that only lenient parsers read.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    pair = f'"{KEY}":"{tag}"'
    text = body.decode()
    if "meta" not in document:
        start = text.index("{") + 1
        return _spliced(text, start, f'"meta":{{{pair}}}', is_only=not document)
    meta = document["meta"]
    if not isinstance(meta, dict) or KEY in meta:
        return None
    brace = _start_of_meta(text)
    return _spliced(text, brace + 1, pair, is_only=not meta) if brace is not None else None


def query_for(tag: str) -> str:
    """The query of a list that shows what bears this tag, the oldest first."""
    return f"meta.{KEY}={tag}&order=asc&take={_MOST_ITEMS}"


def bearers(items: Iterable[object], tag: str) -> list[str]:
    """Ids of the items that bear the tag, in their order."""
    found: list[str] = []
    for item in items:
        if not isinstance(item, Mapping):
            continue
        identifier, meta = item.get("id"), item.get("meta")
        if isinstance(identifier, str) and isinstance(meta, Mapping) and meta.get(KEY) == tag:
            found.append(identifier)
    return found


def without(meta: Mapping[str, object]) -> dict[str, object]:
    """Metadata as the client gave it."""
    return {name: value for name, value in meta.items() if name != KEY}


def _spliced(text: str, at: int, member: str, *, is_only: bool) -> bytes:
    return f"{text[:at]}{member}{'' if is_only else ','}{text[at:]}".encode()


def _start_of_meta(text: str) -> int | None:
    """Where the value of the top-level `meta` begins, None when there are several of the name.

    The text is known to be a JSON object.
    """
    scan = json.JSONDecoder().raw_decode
    found: list[int] = []
    at = _past_space(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = scan(text, at)
        at = _past_space(text, _past_space(text, at) + 1)  # the colon
        if name == "meta":
            found.append(at)
        _, at = scan(text, at)
        at = _past_space(text, at)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return found[0] if len(found) == 1 else None


def _past_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space is not None else at
