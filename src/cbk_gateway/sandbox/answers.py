"""What the sandbox answers with: one value type for all answers, and the API's error shape.

Nothing here knows resources, accounts or sockets. Handlers build an `Answer`; the server writes it, so that
a fault can cut, delay or swallow any answer without the handler's help.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

JsonObject: TypeAlias = dict[str, Any]

JSON: Final = "application/json"
JSONL: Final = "application/jsonl"
SSE: Final = "text/event-stream"
CSV: Final = "text/csv"

#: The API's code and default message of each status.
STATUSES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("BAD_REQUEST", "Bad request"),
    401: ("NOT_AUTHENTICATED", "Not authenticated"),
    402: ("NO_SUBSCRIPTION", "No subscription"),
    403: ("NOT_AUTHORIZED", "Not authorized"),
    404: ("NOT_FOUND", "Not found"),
    405: ("METHOD_NOT_ALLOWED", "Method not allowed"),
    408: ("TIMEOUT", "Timeout"),
    409: ("CONFLICT", "Conflict"),
    413: ("CONTENT_TOO_LARGE", "Content too large"),
    422: ("UNPROCESSABLE_ENTITY", "Unprocessable entity"),
    429: ("LIMITS_REACHED", "Limits reached"),
    500: ("INTERNAL_SERVER_ERROR", "Internal server error"),
    501: ("NOT_IMPLEMENTED", "Not implemented"),
    502: ("BAD_GATEWAY", "Bad gateway"),
    503: ("SERVICE_UNAVAILABLE", "Service unavailable"),
    504: ("GATEWAY_TIMEOUT", "Gateway timeout"),
}


class ApiError(Exception):
    """A refusal of the API, to be rendered in its error shape.

    Args:
        status: HTTP status, 400 or more.
        message: What the caller is told; the status' own message when None.
        code: The API's code; the status' own code when None.
    """

    def __init__(self, status: int, message: str | None = None, code: str | None = None) -> None:
        default_code, default_message = STATUSES.get(status, ("GENERIC_ERROR", "There was a generic error"))
        self.status = status
        self.message = default_message if message is None else message
        self.code = default_code if code is None else code
        super().__init__(self.message)

    def shape(self) -> JsonObject:
        """The flat pair that the SDKs read, with the nested pair of the public description beside it."""
        return {
            "message": self.message,
            "code": self.code,
            "error": {"message": self.message, "code": self.code},
        }


def bad_request(message: str) -> ApiError:
    """A 400 with the API's code."""
    return ApiError(400, message)


@dataclass(slots=True)
class Answer:
    """One answer: either `body`, complete, or `stream`, piece by piece.

    Attributes:
        stream: Yields the pieces; one piece is one event, so that a fault can count events. The effects of
            a streamed call happen while it is drained.
        endless: The stream does not end by itself.
        length: `Content-Length` of a stream whose size is known; None sends it chunked.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncGenerator[bytes, None] | None = None
    endless: bool = False
    length: int | None = None


def json_answer(value: object, status: int = 200) -> Answer:
    """A complete JSON answer."""
    return Answer(status=status, body=orjson.dumps(value))


def error_answer(error: ApiError) -> Answer:
    """The answer that renders a refusal."""
    return json_answer(error.shape(), error.status)
