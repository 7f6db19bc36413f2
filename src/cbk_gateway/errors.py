"""Every refusal the gateway can give, with its public status and code, and the one way to render it.

Nothing here decides *when* to refuse; that is each package's business. Internal failures that never reach
a client (a store that is away, a broken file) are not refusals and live with the package that meets them.
The codes are the API's own, so that an SDK shows the same text it would show without a gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import orjson

JSON_CONTENT_TYPE: Final = "application/json"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a malfunction
    """A request that gets an error answer from the gateway itself.

    Args:
        message: One plain sentence for the caller. It never holds secrets or internals.
        reason: A short word from a bounded set, used as metric label and audit reason.
        headers: Extra answer headers, such as `Retry-After`.
        details: Extra members of the JSON body, for callers that can use them.

    Attributes:
        status: HTTP status of the answer.
        code: The API's error code of the answer.
        closes: Whether the connection must not be reused, because its framing is in doubt or the body
            of the request was left unread.
    """

    status: ClassVar[int] = 500
    code: str = "INTERNAL_SERVER_ERROR"
    closes: ClassVar[bool] = False
    default_reason: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason if reason is not None else self.default_reason
        self.headers: dict[str, str] = dict(headers) if headers else {}
        self.details: dict[str, object] = dict(details) if details else {}

    def body(self, request_id: str | None = None) -> bytes:
        """The JSON body: the flat pair that SDKs read, the nested pair of the public description."""
        return render(self.message, self.code, request_id=request_id, details=self.details)


class BadRequest(Refusal):
    """400: the request cannot be one of this API."""

    status = 400
    code = "BAD_REQUEST"
    default_reason = "malformed"


class NotAuthenticated(Refusal):
    """401: nobody is known to be calling. RFC 6750 section 3 asks for the challenge."""

    status = 401
    code = "NOT_AUTHENTICATED"
    default_reason = "no_token"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason, headers={"WWW-Authenticate": "Bearer"})


class NotAuthorized(Refusal):
    """403: the caller is known and may not do this."""

    status = 403
    code = "NOT_AUTHORIZED"
    default_reason = "scope"


class NotFound(Refusal):
    """404: no such path in this API, or an object that is not this tenant's."""

    status = 404
    code = "NOT_FOUND"
    default_reason = "no_such_path"


class MethodNotAllowed(Refusal):
    """405: the API serves GET and POST only, and each action one of them (RFC 9110 section 15.5.6)."""

    status = 405
    code = "METHOD_NOT_ALLOWED"
    default_reason = "method"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message, headers={"Allow": allow})


class RequestTimeout(Refusal):
    """408: the client did not finish its request in time."""

    status = 408
    code = "TIMEOUT"
    closes = True
    default_reason = "slow_client"


class Conflict(Refusal):
    """409: the same idempotency key was used for another request, or its first use is unresolved."""

    status = 409
    code = "CONFLICT"
    default_reason = "idempotency"


class ContentTooLarge(Refusal):
    """413: the body is larger than the gateway lets through."""

    status = 413
    code = "BAD_REQUEST"
    closes = True
    default_reason = "body_too_large"


class HeadersTooLarge(Refusal):
    """431: too many or too large header fields (RFC 6585 section 5)."""

    status = 431
    code = "BAD_REQUEST"
    closes = True
    default_reason = "headers_too_large"


class TooManyRequests(Refusal):
    """429: a rate is used up; it refills by itself within seconds.

    `retry_after_s` is in whole seconds, rounded up by the caller (RFC 9110 section 10.2.3).
    """

    status = 429
    code = "TOO_MANY_REQUESTS"
    default_reason = "rate"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        merged = {"Retry-After": str(max(1, retry_after_s)), **(headers or {})}
        super().__init__(message, reason=reason, headers=merged, details=details)


class LimitsReached(TooManyRequests):
    """429: a quota of the day or month is used up; waiting a moment does not help."""

    code = "LIMITS_REACHED"
    default_reason = "quota"


class InternalError(Refusal):
    """500: a defect of the gateway. The message carries nothing but that."""

    status = 500
    code = "INTERNAL_SERVER_ERROR"


class BadGateway(Refusal):
    """502: the upstream could not be reached, or broke off, or does not speak HTTP."""

    status = 502
    code = "BAD_GATEWAY"
    default_reason = "upstream_failed"


class ServiceUnavailable(Refusal):
    """503: the gateway will not try now: upstream breaker open, draining, shedding, or store away."""

    status = 503
    code = "SERVICE_UNAVAILABLE"
    default_reason = "unavailable"


class AuditUnavailable(ServiceUnavailable):
    """503: the intent of a write could not be made durable, so the write was not sent."""

    code = "AUDIT_UNAVAILABLE"
    default_reason = "audit"


class GatewayTimeout(Refusal):
    """504: the upstream did not answer within the time of its cost class."""

    status = 504
    code = "GATEWAY_TIMEOUT"
    default_reason = "upstream_timeout"


def render(
    message: str,
    code: str,
    *,
    request_id: str | None = None,
    details: Mapping[str, object] | None = None,
) -> bytes:
    """Encode an error as the API does: flat for the SDKs and nested for the public description.

    `details` never overrides the pair itself.
    """
    document: dict[str, object] = dict(details) if details else {}
    document["message"] = message
    document["code"] = code
    document["error"] = {"message": message, "code": code}
    if request_id is not None:
        document["requestId"] = request_id
    return orjson.dumps(document)
