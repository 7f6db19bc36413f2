"""What arrived: one record per request, exactly as it stood on the wire, in a bounded log.

Records are for tests and for people watching; no decision of the sandbox depends on them. Requests to the
control plane are never recorded.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

import orjson

from cbk_gateway.sandbox.answers import JsonObject

LOG_LIMIT: Final = 10_000
BODY_LIMIT_BYTES: Final = 64 * 1024
_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


class RequestRecord:
    """One request that reached the sandbox.

    Attributes:
        path: Path as received, percent-encoding untouched, without the query.
        query: Query string as received, without the question mark.
        account: Name of the account whose credential it carried, or None.
        run_as: Id of the child account it acts as, or None.
        time: Arrival, in milliseconds since the epoch.
        status: Status answered, or None when nothing was.
        outcome: `pending`, `answered`, `dropped` (by a fault), or `disconnected` (the client left).
        body: The JSON body when it is valid and at most 64 KiB; otherwise None.
        faults: Names of the faults that hit it.
    """

    __slots__ = (
        "_wire_headers",
        "account",
        "body",
        "body_sha256",
        "body_size",
        "faults",
        "method",
        "outcome",
        "path",
        "query",
        "run_as",
        "status",
        "time",
    )

    def __init__(
        self, method: str, path: str, query: str, wire_headers: tuple[tuple[bytes, bytes], ...], time: float
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self._wire_headers = wire_headers
        self.time = time
        self.account: str | None = None
        self.run_as: str | None = None
        self.status: int | None = None
        self.outcome = "pending"
        self.body: object = None
        self.body_sha256 = _EMPTY_SHA256
        self.body_size = 0
        self.faults: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.method} {self.path} {self.account or '-'} {self.status or self.outcome}>"

    @property
    def raw_headers(self) -> list[list[str]]:
        """Header names and values in the order and spelling of the wire."""
        return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self._wire_headers]

    @property
    def headers(self) -> dict[str, str]:
        """Header values by lower-case name; repeated ones joined with a comma."""
        merged: dict[str, str] = {}
        for name, value in self.raw_headers:
            key = name.lower()
            merged[key] = f"{merged[key]}, {value}" if key in merged else value
        return merged

    def keep_body(self, raw: bytes) -> None:
        """Remember the size and digest of the body, and the body itself where it is small JSON."""
        if not raw:
            return
        self.note_body(len(raw), hashlib.sha256(raw).hexdigest())
        if len(raw) <= BODY_LIMIT_BYTES:
            try:
                self.body = orjson.loads(raw)
            except orjson.JSONDecodeError:
                self.body = None

    def note_body(self, size_bytes: int, sha256: str) -> None:
        """Remember a body that was streamed past."""
        self.body_size = size_bytes
        self.body_sha256 = sha256

    def shape(self) -> JsonObject:
        """The record as the control plane shows it."""
        return {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "raw_headers": self.raw_headers,
            "account": self.account,
            "run_as": self.run_as,
            "time": self.time,
            "status": self.status,
            "outcome": self.outcome,
            "faults": list(self.faults),
            "body": self.body,
            "body_sha256": self.body_sha256,
            "body_size": self.body_size,
        }


class RequestLog:
    """The records, oldest first; the oldest goes when there are more than the limit."""

    def __init__(self, limit: int = LOG_LIMIT) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=limit)

    def append(self, record: RequestRecord) -> None:
        """Add a record on arrival; it is completed in place later."""
        self._records.append(record)

    def records(self) -> list[RequestRecord]:
        """The records, oldest first."""
        return list(self._records)

    def clear(self) -> None:
        """Forget all records."""
        self._records.clear()
