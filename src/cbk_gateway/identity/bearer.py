"""The `Authorization` header: from the values received to one bearer token's text.

RFC 9110 section 11.4 (scheme in any case, one or more spaces) and RFC 6750 section 2.1 (the token's
alphabet). What the token means is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cbk_gateway.identity.reasons import Reason, refused

CANONICAL_PREFIX: Final = "Bearer "
_CREDENTIALS: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?", re.DOTALL)
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def bearer_token(authorization: Sequence[str], max_chars: int) -> str:
    """The token of a request.

    Args:
        authorization: The values of all `Authorization` header fields, as received.
        max_chars: Longest token that is looked at.

    Raises:
        NotAuthenticated: For none, several, another scheme, a bad alphabet or an over-long token.
    """
    if not authorization:
        raise refused(Reason.NO_TOKEN, "This request carries no token.")
    if len(authorization) > 1:
        # Two parties that pick different ones of two headers see two different callers.
        raise refused(Reason.SEVERAL_TOKENS, "This request carries more than one Authorization header.")
    found = _CREDENTIALS.fullmatch(authorization[0])
    if found is None:
        raise refused(Reason.SCHEME, "The Authorization header names no scheme.")
    scheme, token = found.groups()
    if scheme.lower() != "bearer":
        raise refused(Reason.SCHEME, "The Authorization header uses a scheme that is not accepted.")
    if not token:
        raise refused(Reason.NO_TOKEN, "The Authorization header carries no token.")
    if len(token) > max_chars:
        raise refused(Reason.TOO_LARGE, "The token is too long.")
    if _B64TOKEN.fullmatch(token) is None:
        raise refused(Reason.MALFORMED, "The token holds characters that no bearer token has.")
    return str(token)
