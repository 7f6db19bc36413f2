"""What of a body may be kept: allow-lists by type, keyed digests for secrets, and bounds for the rest.

Three fates for a value. *Shown*: its field is on the allow-list of its type and it is short. *Digested*:
its field can hold a credential or a person's contact, so equal values can be found and none can be read.
*Described*: anything else becomes its kind and size. Names of fields are kept when they look like names.
Pure functions of bytes; nothing here is ever fed back into a request.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Final

import orjson

MAX_DEPTH: Final = 6
MAX_MEMBERS: Final = 48
MAX_ITEMS: Final = 12
MAX_SHOWN_CHARS: Final = 200
MAX_BODY_BYTES: Final = 256 * 1024


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}")

SECRET_FIELDS: Final = _words(
    # Lower case, without separators: every spelling of a name has the same fate.
    """accesstoken accountsid apikey appsecret authorization authtoken botframeworkappsecret bottoken
    clientsecret credential credentials email fingerprint password phone pin privatekey refreshtoken secret
    secretkey serviceaccountkey signingsecret token url usertoken value verifytoken webhooksecret websocket
    headers config"""
)
"""Fields that may hold a credential, a presigned address, or a way to reach a person."""

COMMON_FIELDS: Final = _words(
    """alias blueprintid botid channelid contactid conversationid createdat cursor datasetid default
    enabled expiresat fileid id integrationid kind language limit linkedbotid linkeddatasetid linkedfileid
    linkedsecretid linkedskillsetid linkedspaceid memoryid messageid model name order privacy
    moderation operationname role schedule secretid skillsetid spaceid state status take taskid timezone type
    userid visibility updatedat count deleteresources deleterecords contenttype size"""
)
"""Fields whose values are references, settings and counts for every type."""

FIELDS_BY_TYPE: Final[dict[str, frozenset[str]]] = {
    "bot": frozenset({"temperature", "maxtokens", "interactionmaxmessages"}),
    "dataset": frozenset({"store", "reranker", "recordmaxtokens", "searchminscore", "searchmaxrecords"}),
    "skillset/ability": frozenset({"instructiontype"}),
    "ability": frozenset({"instructiontype"}),
    "space/storage": frozenset({"path", "destination", "source"}),
    "task": frozenset({"scheduledat", "outcome", "maxiterations"}),
    "conversation/message": frozenset({"upvote", "downvote"}),
    "rating": frozenset({"rating"}),
    "integration/widget": frozenset({"layout", "theme", "position"}),
    # A contact's name is a person's name.
    "contact": frozenset(),
}

HIDDEN_BY_TYPE: Final[dict[str, frozenset[str]]] = {
    "contact": frozenset({"name", "alias"}),
    "partner/user": frozenset({"name", "alias"}),
    "user": frozenset({"name", "alias"}),
}
"""Common fields that are personal in these types: they are digested."""

FREE_TEXT: Final = frozenset({"text", "backstory", "instruction", "instructions", "description", "content"})


def tenant_key(master: bytes, tenant: str) -> bytes:
    """The digest key of one tenant, so that equal values of two tenants do not look equal."""
    return hmac.digest(master, b"cbk-gateway audit tenant\0" + tenant.encode(), "sha256")


def digest_of(key: bytes, value: str | bytes) -> str:
    """The text that stands for a value in records: `digest:` and 32 hex digits."""
    octets = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return "digest:" + hmac.digest(key, octets, "sha256").hex()[:32]


def digest_for(master: bytes, tenant: str, value: str) -> str:
    """What stands for a known value in a tenant's records: for searching them."""
    return digest_of(tenant_key(master, tenant), value)


class Redactor:
    """Redacts bodies by the type they belong to.

    Args:
        master: Master of the per-tenant digest keys.
        secret_paths: Dotted paths of further fields to digest; the last part alone matches at any depth
            when it has no dot.
        shown_fields: Further fields that may be shown, for every type.
        free_text: Whether conversation texts are kept, cut to a bound.
    """

    __slots__ = ("_free_text", "_keys", "_master", "_secret_names", "_secret_paths", "_shown")

    def __init__(
        self,
        master: bytes,
        *,
        secret_paths: Iterable[str] = (),
        shown_fields: Iterable[str] = (),
        free_text: bool = False,
    ) -> None:
        paths = {".".join(_plain(part) for part in path.split(".")) for path in secret_paths}
        self._master = master
        self._keys: dict[str, bytes] = {}
        self._secret_paths = frozenset(path for path in paths if "." in path)
        self._secret_names = SECRET_FIELDS | {path for path in paths if "." not in path}
        self._shown = COMMON_FIELDS | {_plain(name) for name in shown_fields}
        self._free_text = free_text

    def key_of(self, tenant: str) -> bytes:
        """The tenant's digest key. Tenants come from configuration, so this stays small."""
        key = self._keys.get(tenant)
        if key is None:
            key = self._keys[tenant] = tenant_key(self._master, tenant)
        return key

    def digest(self, tenant: str, value: str | bytes) -> str:
        """What stands for `value` in this tenant's records."""
        return digest_of(self.key_of(tenant), value)

    def body(self, tenant: str, resource: str, raw: bytes) -> object:
        """The redacted form of a body; always small, always plain JSON values.

        Anything that is not one JSON text is described by its size alone.
        """
        if len(raw) > MAX_BODY_BYTES:
            return {"~": "too large to redact", "bytes": len(raw)}
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return {"~": "not JSON", "bytes": len(raw)}
        hidden = HIDDEN_BY_TYPE.get(resource, frozenset())
        shown = (self._shown | FIELDS_BY_TYPE.get(resource, frozenset())) - hidden
        view = _View(self.key_of(tenant), shown, self._secret_names | hidden, self._secret_paths)
        return view.redact(document, "", "", self._free_text)


class _View:
    """One body's redaction: the lists of its type and its tenant's key."""

    __slots__ = ("_key", "_secret_names", "_secret_paths", "_shown")

    def __init__(
        self, key: bytes, shown: frozenset[str], secret_names: frozenset[str], secret_paths: frozenset[str]
    ) -> None:
        self._key = key
        self._shown = shown
        self._secret_names = secret_names
        self._secret_paths = secret_paths

    def redact(self, value: object, name: str, path: str, free_text: bool, depth: int = 0) -> object:
        if name and (name in self._secret_names or path in self._secret_paths):
            return self._hide(value)
        if isinstance(value, dict):
            if depth >= MAX_DEPTH:
                return f"object:{len(value)}"
            return self._members(value, path, free_text, depth)
        if isinstance(value, list):
            if depth >= MAX_DEPTH:
                return f"array:{len(value)}"
            kept = [self.redact(one, name, path, free_text, depth + 1) for one in value[:MAX_ITEMS]]
            return kept if len(value) <= MAX_ITEMS else [*kept, f"+{len(value) - MAX_ITEMS}"]
        if value is None or isinstance(value, bool):
            return value
        if name in self._shown or (free_text and name in FREE_TEXT):
            return value[:MAX_SHOWN_CHARS] if isinstance(value, str) else value
        return f"text:{len(value)}" if isinstance(value, str) else "number"

    def _members(
        self, members: dict[str, object], path: str, free_text: bool, depth: int
    ) -> dict[str, object]:
        kept: dict[str, object] = {}
        for count, (name, value) in enumerate(members.items()):
            if count == MAX_MEMBERS:
                kept["~"] = f"+{len(members) - MAX_MEMBERS}"
                break
            plain = _plain(name[:64])
            shown = name if _NAME.fullmatch(name) else digest_of(self._key, name)
            kept[shown] = self.redact(
                value, plain, f"{path}.{plain}" if path else plain, free_text, depth + 1
            )
        return kept

    def _hide(self, value: object) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            # The API's own mask means "keep what is there" and is no value.
            return value if value == "********" else digest_of(self._key, value)
        return digest_of(self._key, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
