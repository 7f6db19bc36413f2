"""One repeated read that is forwarded: what goes upstream for it, and what surrounds its answer.

Bytes and texts only. When an entry is made and when it may be used is `fastforward.py`'s question.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NoReturn

from cbk_gateway import cors
from cbk_gateway.exchange import Exchange
from cbk_gateway.limits import Claim
from cbk_gateway.operation import Operation
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.prepared import Field, field_lines
from cbk_gateway.upstream import Lane, answer_headers

if TYPE_CHECKING:
    from cbk_gateway.telemetry.forwarded import ForwardedCells

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
        "after", "before_id", "between", "breaks", "cache_label", "cells", "claim", "count", "ends_at",
        "has_date", "hops", "known_fields", "known_lines", "known_status", "lane", "operation",
        "origin_fields", "passed", "principal", "said_after_rates", "sent_bytes", "shows_timing", "tenant",
        "token_name",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - made in one place, from what that place has found
        self,
        x: Exchange,
        principal: Principal,
        tenant: Tenant,
        lane: Lane,
        pieces: Pieces,
        claim: Claim,
        *,
        shows_timing: bool,
    ) -> None:
        self.operation: Operation = lane.call.operation
        self.principal = principal
        self.tenant = tenant
        self.lane = lane
        self.before_id, self.between, self.after = pieces
        self.claim = claim
        self.cache_label = x.cache_label
        self.origin_fields = cors.granted(tenant.allowed_origins, x.header("Origin"))
        self.shows_timing = shows_timing
        self.said_after_rates = _said_after_rates(x, self.origin_fields, shows_timing=shows_timing)
        self.hops = tuple(x.request.headers.getall("X-Forwarded-For", ()))
        self.passed = ""
        self.token_name = b""
        self.cells: ForwardedCells
        # Until when, and since which count of breaks, caller and rights were found to hold.
        self.ends_at = 0.0
        self.breaks = -1
        # The fields that came last, and the lines they make: upstreams repeat themselves.
        self.known_status = 0
        self.known_fields: Fields = []
        self.known_lines = b""
        # Whether the upstream's own date is among them, which then stands.
        self.has_date = False
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


def _said_after_rates(x: Exchange, origin_fields: Iterable[Field], *, shows_timing: bool) -> bytes:
    """The fields between those of the rates and the date; with `server_timing`, for `%` and milliseconds."""
    cache = "" if x.cache_status is None else f"Cache-Status: {x.cache_status}\r\n"
    origins = field_lines(origin_fields)
    if not shows_timing:
        return f"{cache}{origins}".encode()
    label = "" if x.cache_label == "none" else f", cache;desc={x.cache_label}"
    timing = f"Server-Timing: total;dur=%.3f, upstream;dur=%.3f, gateway;dur=%.3f{label}\r\n"
    return f"{cache.replace('%', '%%')}{timing}{origins.replace('%', '%%')}".encode()


def pieces_of(request: bytes, request_id: str, trace: str) -> Pieces | None:
    """Cut a request for the upstream where its id and its trace stand; None when that is not clear."""
    before, mark, rest = request.partition(f"X-Request-Id: {request_id}\r\n".encode())
    between, mark_of_trace, after = rest.partition(f"traceparent: {trace}\r\n".encode())
    if not mark or not mark_of_trace or request_id.encode() in before + rest or trace.encode() in after:
        return None
    return before + b"X-Request-Id: ", b"\r\n" + between + b"traceparent: ", b"\r\n" + after
