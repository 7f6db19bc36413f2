"""Which header fields cross the gateway, either way. Pure functions; the only place that decides it.

Towards the upstream by allow-list: what is not named here does not cross, in whatever spelling. Towards
the client by deny-list, because an answer's fields are the API's to extend. Framing (Content-Length,
Transfer-Encoding, Connection) is never copied: each side of the gateway frames its own messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cbk_gateway.errors import BadRequest, NotAuthorized
from cbk_gateway.parties import RunAs, RunAsForm
from cbk_gateway.secret import Secret

MAX_VALUE_CHARS: Final = 8190

_ALLOWED: Final = {
    "accept": "Accept",
    "accept-encoding": "Accept-Encoding",
    "accept-language": "Accept-Language",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-type": "Content-Type",
    "if-range": "If-Range",
    "range": "Range",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
    "user-agent": "User-Agent",
    "x-timezone": "X-Timezone",
}
# RFC 9110 section 5.3: only fields whose value is a list may be sent in several lines.
_LISTS: Final = frozenset({"accept", "accept-encoding", "accept-language", "tracestate"})
_RUN_AS: Final = {
    "x-runas-user-id": RunAsForm.USER_ID,
    "x-runas-userid": RunAsForm.USER_ID,
    "x-runas-child-user-email": RunAsForm.CHILD_EMAIL,
}
# RFC 9110 section 5.5: no CR, LF or NUL; other control characters buy nobody anything either.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_NEVER_BACK: Final = frozenset(
    {
        # Hop by hop: RFC 9110 section 7.6.1.
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # About the upstream's host, or set by the gateway for its own.
        "alt-svc",
        "server",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        "via",
        "x-powered-by",
        "x-request-id",
    }
)
_NEVER_BACK_PREFIXES: Final = ("access-control-", "x-chatbotkit-", "x-cbk-")

_MAX_REMEMBERED_NAMES: Final = 1024
_back_names: dict[bytes, str] = {}


def outgoing_headers(
    incoming: Iterable[tuple[str, str]],
    *,
    key: Secret,
    run_as: RunAs | None,
    host: str,
    request_id: str,
    client_may_run_as: bool,
    identity_encoding: bool,
) -> list[tuple[str, str]]:
    """The fields of the request to the upstream, complete but for its framing.

    Args:
        incoming: The client's fields in order, repeated ones included.
        key: The tenant's upstream key; becomes the Authorization field.
        run_as: The child account the tenant is forced into, or None.
        host: Authority of the upstream, for the Host field.
        request_id: Of this request, so that both sides' logs can be joined.
        client_may_run_as: Whether the client may name a child account itself.
        identity_encoding: Ask for an uncoded answer, because the gateway reads or stores it.

    Raises:
        BadRequest: A field that crosses holds a control character, or is repeated and must not be.
        NotAuthorized: The client names a child account and may not.
    """
    fields: dict[str, str] = {}
    chosen: dict[str, str] = {}
    named_by_connection: set[str] | None = None
    for raw_name, value in incoming:
        name = raw_name.lower()
        if name == "connection":
            named = {one.strip().lower() for one in value.split(",")}
            named_by_connection = named | (named_by_connection or set())
            continue
        if name in _ALLOWED:
            if name in fields and name not in _LISTS:
                raise BadRequest(
                    f"The header {_ALLOWED[name]} is given more than once.", reason="duplicate_header"
                )
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        elif name[2:7] == "runas":
            _choose_run_as(name, value, chosen, allowed=client_may_run_as and run_as is None)
    headers = [("Host", host), ("Authorization", f"Bearer {key.reveal()}")]
    if run_as is not None:
        chosen[run_as.form] = run_as.value
    headers += chosen.items()
    if identity_encoding:
        fields["accept-encoding"] = "identity"
    for name, value in fields.items():
        if named_by_connection is None or name not in named_by_connection:
            headers.append((_ALLOWED[name], value))
    headers.append(("X-Request-Id", request_id))
    values = "".join([value for _, value in headers])
    if len(values) > MAX_VALUE_CHARS or _CONTROL.search(values) is not None:
        _check_each(headers)
    return headers


def _check_each(headers: Iterable[tuple[str, str]]) -> None:
    for name, value in headers:
        if _CONTROL.search(value) is not None or len(value) > MAX_VALUE_CHARS:
            raise BadRequest(f"The header {name} holds what no header may hold.", reason="bad_header")


def answer_headers(fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """The fields of an answer as the client may see them.

    Content-Length is kept: the transport has checked that it is single and a number. Values which are
    not UTF-8 are read as Latin-1, so that every value here can be encoded again.
    """
    kept: list[tuple[str, str]] = []
    named_by_connection: set[str] | None = None
    for raw_name, raw_value in fields:
        name = _back_names.get(raw_name)
        if name is None:
            name = _name_back(raw_name)
        if name:
            kept.append((name, _text(raw_value)))
        elif raw_name.lower() == b"connection":
            named = {one.strip().lower() for one in _text(raw_value).split(",")}
            named_by_connection = named | (named_by_connection or set())
    if named_by_connection is None or named_by_connection <= {"close", "keep-alive"}:
        return tuple(kept)
    # A Connection field cannot take the length away: the framing was decided without it.
    named_by_connection.discard("content-length")
    return tuple(pair for pair in kept if pair[0].lower() not in named_by_connection)


def is_run_as_field(name: str) -> bool:
    """Whether a client's field name, in any spelling, names a child account to act as."""
    return _dashed(name) in _RUN_AS


def _choose_run_as(name: str, value: str, chosen: dict[str, str], *, allowed: bool) -> None:
    """Take up a run-as field of the client, if it may send one and sends one only."""
    form = _RUN_AS.get(_dashed(name))
    if form is None:
        return
    if not allowed:
        raise NotAuthorized("This tenant may not choose the account it acts as.", reason="run_as")
    if chosen:
        raise BadRequest("More than one header names an account to act as.", reason="duplicate_header")
    chosen[form] = value


def _dashed(name: str) -> str:
    # Some servers read `_` in a field name as `-`; what only they would understand must not slip by.
    return name.lower().replace("_", "-")


def _name_back(raw_name: bytes) -> str:
    """The name under which a field goes back, "" when it does not; remembered, within a bound."""
    text = raw_name.decode("latin-1")
    dashed = _dashed(text)
    stays = dashed in _NEVER_BACK or dashed.startswith(_NEVER_BACK_PREFIXES) or _TOKEN.fullmatch(text) is None
    name = "" if stays else text
    if len(_back_names) < _MAX_REMEMBERED_NAMES:
        _back_names[raw_name] = name
    return name


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
