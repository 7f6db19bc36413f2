"""One repeated read that is forwarded: what goes upstream for it, and what surrounds its answer.

Bytes and texts only. When an entry is made and when it may be used is `fastforward.py`'s question.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NoReturn

from cbk_gateway import cors
from cbk_gateway.exchange import Exchange
from cbk_gateway.limits import Claim
from cbk_gateway.operation import Operation
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.prepared import field_lines
from cbk_gateway.upstream import Call, Known, answer_headers

if TYPE_CHECKING:
    from cbk_gateway.telemetry.traffic import RequestCells

_OURS: Final = frozenset(
    {
        *("x-request-id", "server", "cache-status", "server-timing"),
        *("ratelimit", "ratelimit-policy"),
        *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    }
)

Fields = list[tuple[bytes, bytes]]
Pieces = tuple[bytes, bytes, bytes]
"""The request for the upstream before its id, between its id and its trace, and after that."""


class ForwardEntry:
    """One repeated request: who sent it, what goes upstream for it, what surrounds its answer."""

    __slots__ = (
        "after", "before_id", "between", "breaks", "cache_label", "cache_lines", "call", "cells", "claim",
        "cors_lines", "count", "ends_at", "has_date", "hops", "known", "known_fields", "known_lines",
        "known_status", "operation", "origin_fields", "passed", "principal", "sent_bytes", "tenant",
        "timing_end", "token_name",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - made in one place, from what that place has found
        self, x: Exchange, principal: Principal, tenant: Tenant, call: Call, pieces: Pieces, claim: Claim
    ) -> None:
        self.operation: Operation = call.operation
        self.principal = principal
        self.tenant = tenant
        self.call = call
        self.before_id, self.between, self.after = pieces
        self.claim = claim
        self.cache_label = x.cache_label
        said = "" if x.cache_status is None else f"Cache-Status: {x.cache_status}\r\n"
        self.cache_lines = said.encode()
        origins = cors.granted(tenant.allowed_origins, x.header("Origin"))
        self.origin_fields = origins
        self.cors_lines = field_lines(origins).encode()
        self.hops = tuple(x.request.headers.getall("X-Forwarded-For", ()))
        self.passed = ""
        self.token_name = b""
        self.cells: RequestCells
        # Until when, and since which count of breaks, caller and rights were found to hold.
        self.ends_at = 0.0
        self.breaks = -1
        # The fields that came last, and the lines they make: upstreams repeat themselves.
        self.known: Known | None = None
        self.known_status = 0
        self.known_fields: Fields = []
        self.known_lines = b""
        # Whether the upstream's own date is among them, which then stands.
        self.has_date = False
        # As `server_timing` ends.
        label = x.cache_label
        self.timing_end = "\r\n" if label == "none" else f", cache;desc={label}\r\n"
        # Givings that were not told to the metrics yet.
        self.count = 0
        self.sent_bytes = 0

    def __repr__(self) -> str:
        return f"<ForwardEntry {self.tenant.id} {self.operation.route.template}>"

    def __reduce__(self) -> NoReturn:
        """Never leaves this process: its bytes hold the tenant's key."""
        raise TypeError("a prepared request is not to be copied")

    def lines_of(self, status: int, fields: Fields) -> bytes | None:
        """The answer's first lines from the upstream's; None when the fields are not plain."""
        if status == self.known_status and (fields is self.known_fields or fields == self.known_fields):
            return self.known_lines
        kept = answer_headers(fields)
        names = [name.lower() for name, _ in kept]
        if "content-type" not in names or not _OURS.isdisjoint(names):
            return None
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        text = line + field_lines(kept)
        self.known_status = status
        self.known_fields, self.known_lines = fields, f"{text}X-Request-Id: ".encode()
        self.has_date = "date" in names
        return self.known_lines


def pieces_of(request: bytes, request_id: str, trace: str) -> Pieces | None:
    """Cut a request for the upstream where its id and its trace stand; None when that is not clear."""
    before, mark, rest = request.partition(f"X-Request-Id: {request_id}\r\n".encode())
    between, mark_of_trace, after = rest.partition(f"traceparent: {trace}\r\n".encode())
    if not mark or not mark_of_trace or request_id.encode() in before + rest or trace.encode() in after:
        return None
    return before + b"X-Request-Id: ", b"\r\n" + between + b"traceparent: ", b"\r\n" + after
