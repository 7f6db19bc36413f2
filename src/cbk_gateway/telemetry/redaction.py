"""The last look at a log line before it is written: what looks like a credential does not get out.

A fence behind the fences: credentials live in `Secret` and nobody logs them. This catches what slips in
through an exception's text, a URL or a foreign library. It errs on the side of hiding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from cbk_gateway.secret import Secret

HIDDEN: Final = "[redacted]"

_CREDENTIAL: Final = re.compile(
    r"""
    \b(?:sk|oaac|oart|xox[a-z])-[A-Za-z0-9_-]{4,}   # keys and OAuth tokens of the API, Slack's tokens
    | \beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*   # JSON Web Tokens, whole or cut short (RFC 7519)
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)               # user and password of a URL (RFC 3986 section 3.2.1)
    | \b[Bb]earer\s+[A-Za-z0-9._~+/=-]+             # an Authorization header's value (RFC 6750 section 2.1)
    | -----BEGIN[ A-Z]*PRIVATE\ KEY-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)

_SHORTEST: Final = 7
"""Nothing shorter can match."""

_SECRET_KEYS: Final = frozenset(
    {
        "access_token", "api_key", "apikey", "authorization", "cookie", "credential", "password", "passwd",
        "private_key", "refresh_token", "secret", "secret_key", "set_cookie", "token",
    }
)  # fmt: skip

_DEEPEST: Final = 6


def redact_text(text: str) -> str:
    """The text with everything that looks like a credential hidden."""
    if len(text) < _SHORTEST or not ("-" in text or "eyJ" in text or "://" in text or "earer" in text):
        return text  # everything the expression finds holds one of these, and looking costs a tenth
    return _CREDENTIAL.sub(HIDDEN, text)


def redact(value: object, depth: int = 0) -> object:
    """The value with every text in it redacted, `Secret`s as fingerprints, bytes as their length.

    Values under a key that names a credential are hidden whatever they are. Nesting beyond six levels is
    hidden too, since it was not looked at.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth >= _DEEPEST:
        return HIDDEN
    if isinstance(value, Mapping):
        return {redact_text(str(key)): redact_item(key, item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth + 1) for item in value]
    return redact_text(str(value))


@lru_cache(maxsize=1024)
def _names_credential(key: str) -> bool:
    return key.lower().replace("-", "_") in _SECRET_KEYS


def redact_item(key: object, value: object, depth: int = 0) -> object:
    """The value of a key, hidden when the key names a credential and the value is one."""
    if isinstance(key, str) and _names_credential(key):
        return repr(value) if isinstance(value, Secret) else HIDDEN
    return redact(value, depth)
