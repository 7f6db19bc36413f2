"""Run-as headers as clients may write them: recognised in every spelling, read in two.

Pure functions. Which headers are forwarded is the forwarder's business; these are never.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from cbk_gateway.errors import BadRequest
from cbk_gateway.parties import RunAs, RunAsForm, Tenant
from cbk_gateway.secret import account_fingerprint

_READ: Final = {"xrunasuserid": RunAsForm.USER_ID, "xrunaschilduseremail": RunAsForm.CHILD_EMAIL}
_SEPARATORS: Final = str.maketrans("", "", "-_. ")
_SPELLINGS: Final = ("xrunas", "runas", "httpxrunas", "httprunas")


@lru_cache(maxsize=1024)
def is_run_as_header(name: str) -> bool:
    """Whether a header name could be taken for a run-as header by anything between here and the API.

    Servers that speak CGI read dashes and underscores alike and case never matters, so both are dropped
    before comparing. Every name that begins with the words counts: `X-RunAs-UserId` is a known alias and
    the next one may come tomorrow.
    """
    return name.lower().translate(_SEPARATORS).startswith(_SPELLINGS)


def requested_run_as(headers: Iterable[tuple[str, str]]) -> RunAs | None:
    """The child account a client asks to act as, or None when it asks for none.

    Raises:
        BadRequest: The headers are repeated, contradictory, of an unknown form, or not visible ASCII.
    """
    asked = [(name, value.strip()) for name, value in headers if is_run_as_header(name)]
    if not asked:
        return None
    if len(asked) > 1:
        raise BadRequest("Give one run-as header only.", reason="run_as_header")
    name, value = asked[0]
    form = _READ.get(name.lower().translate(_SEPARATORS))
    if form is None:
        raise BadRequest("This run-as header is not known.", reason="run_as_header")
    if not 0 < len(value) <= 254 or not all("!" <= char <= "~" for char in value):
        raise BadRequest("The run-as header does not name an account.", reason="run_as_header")
    return RunAs(form, value)


def account_acted_on(tenant: Tenant, asked: RunAs | None) -> str:
    """The upstream account of one request: the tenant's, or the child's that the client chose."""
    return tenant.account if asked is None else account_fingerprint(tenant.key, asked.value)
