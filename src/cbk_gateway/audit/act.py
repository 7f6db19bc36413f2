"""What the pipeline tells the journal: the act before it happens, and the outcome after.

Values only. How they become lines is `record.py`'s business, how their bodies are redacted is
`redaction.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cbk_gateway.audit.options import OnFailure
from cbk_gateway.operation import Operation
from cbk_gateway.parties import RunAs


class Result(StrEnum):
    """How a journalled write ended, as far as the gateway can know."""

    ANSWERED = "answered"  # the upstream's answer was read to its end
    NOT_SENT = "not_sent"  # not a byte of it reached the upstream
    UNKNOWN = "unknown"  # something was sent and no whole answer came back
    ABORTED = "aborted_by_client"  # the client left before the answer ended


@dataclass(slots=True)  # one for each write; frozen ones take three times as long to make
class Act:
    """A mutation about to be forwarded: who does what, and how.

    Attributes:
        request_id: The gateway's id of the request, as in `X-Request-Id`.
        tenant: Id of the tenant.
        subject: The token's subject.
        operation: What is done, as the grammar understood it.
        token_id: The token's `jti`, if any.
        issuer: Configured name of the token's issuer.
        scopes: Scopes of the token.
        client_address: Address of the client, after trusted proxies.
        user_agent: The client's `User-Agent`, if any.
        run_as: The child account acted as.
        method: As received, when it differs from the operation's.
        path: As received, when it differs from the operation's.
        account: The upstream account.
        key_fingerprint: Stable fingerprint of the upstream key in use; never the key.
        key_version: Name of that key's version.
        body_sha256: Hex digest of the raw request body; None while it is streamed.
        body_bytes: Size of the request body, None when not known yet.
        tag: The tag that was put into the body on its way upstream, if any; see `tag.py`.
        body: The raw body, when a redacted form is to be kept; None keeps none.
        content_type: Media type of the request.
        trace_id: Trace id of the request, if traced.
        on_failure: What to do when this act cannot be recorded; None for the journal's default.
    """

    request_id: str
    tenant: str
    subject: str
    operation: Operation
    token_id: str | None = None
    issuer: str | None = None
    scopes: tuple[str, ...] = ()
    client_address: str | None = None
    user_agent: str | None = None
    run_as: RunAs | None = None
    method: str = ""
    path: str = ""
    account: str | None = None
    key_fingerprint: str | None = None
    key_version: str | None = None
    body_sha256: str | None = None
    body_bytes: int | None = None
    tag: str | None = None
    body: bytes | None = field(default=None, repr=False)
    content_type: str | None = None
    trace_id: str | None = None
    on_failure: OnFailure | None = None


@dataclass(slots=True)  # likewise
class Outcome:
    """How an act ended.

    Attributes:
        result: One of `Result`.
        status: HTTP status given to the client, None when none was.
        failure: Error code seen inside a 200 answer, or None.
        reason: A short word from a bounded set, for results other than `answered`.
        duration_s: From the first byte of the request to the last of the answer, in seconds.
        request_bytes: Body bytes sent upstream.
        answer_bytes: Body bytes of the answer passed on.
        request_sha256: Hex digest of the raw request body, where it was streamed.
        answer_sha256: Hex digest of the raw answer body as passed on.
        answer_ids: Ids the answer names, at least the first: what was created or changed.
        answer_ids_count: How many it names, where that is more.
        upstream_attempts: How many times a connection carried it.
        upstream_status: HTTP status of the upstream, where it differs from the client's.
        upstream_request_id: Whatever request id the upstream or its edge gave.
        invalidated: Types whose cached answers were invalidated; "*" for all.
        stream_end: For streams: "complete", "truncated", or another word; None otherwise.
        tokens: Model tokens the answer reported, or None.
        body: The answer's raw body, when a redacted form is to be kept.
    """

    result: str
    status: int | None = None
    failure: str | None = None
    reason: str | None = None
    duration_s: float | None = None
    request_bytes: int | None = None
    answer_bytes: int | None = None
    request_sha256: str | None = None
    answer_sha256: str | None = None
    answer_ids: tuple[str, ...] = ()
    answer_ids_count: int = 0
    upstream_attempts: int | None = None
    upstream_status: int | None = None
    upstream_request_id: str | None = None
    invalidated: tuple[str, ...] = ()
    stream_end: str | None = None
    tokens: int | None = None
    body: bytes | None = field(default=None, repr=False)
