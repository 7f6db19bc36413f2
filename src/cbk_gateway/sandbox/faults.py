"""The faults a test can plant: what they are, which request they hit, and how often.

Only the decision lives here; acting on it (sleeping, cutting, answering) is the server's. The book is
plain state without a clock or a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from cbk_gateway.sandbox.answers import JsonObject, bad_request

#: Each fault with the sentence that the control plane shows.
FAULTS: Final[Mapping[str, str]] = {
    "latency": "wait `value` ms before anything else happens",
    "status": "answer with status `value` (or {status, after_effect, message, code, headers}) instead",
    "drop_before": "close the connection before any effect; value `reset` sends a TCP reset",
    "drop_after_effect": "do the work, then close the connection without an answer",
    "slow_json_error": "answer 200 at once, and `value` ms later a JSON error as its chunked body",
    "truncate_stream": "cut the answer after `value` events (of a stream) or bytes (of a body)",
    "silence": "fall silent for `value` ms (for ever when null) after the first event of a stream",
    "rate_limited": "answer 429 LIMITS_REACHED without Retry-After",
}

_NUMBER_OR_NULL: Final = frozenset({"latency", "slow_json_error", "truncate_stream", "silence"})


@dataclass(slots=True)
class Fault:
    """One planted fault.

    Attributes:
        path: A glob on the path without its query; `*` crosses slashes.
        method: Upper-case method, or None for any.
        value: Meaning by fault, see `FAULTS`.
        times: How many requests it still hits; None for ever.
        hits: How many requests it has hit.
    """

    path: str
    fault: str
    method: str | None = None
    value: object = None
    times: int | None = None
    hits: int = 0

    def matches(self, method: str, paths: tuple[str, ...]) -> bool:
        """Whether this fault hits a request with that method and any of those spellings of its path."""
        if self.times is not None and self.times <= 0:
            return False
        if self.method is not None and self.method != method:
            return False
        return any(fnmatchcase(path, self.path) for path in paths)

    def shape(self) -> JsonObject:
        """The fault as the control plane shows it."""
        return {
            "path": self.path,
            "method": self.method,
            "fault": self.fault,
            "value": self.value,
            "times": self.times,
            "hits": self.hits,
        }


def read_fault(body: Mapping[str, object]) -> Fault:
    """A fault from the control plane's JSON.

    Raises:
        ApiError: 400 for an unknown fault, a missing path, or a value of the wrong type.
    """
    unknown = set(body) - {"path", "method", "fault", "value", "times"}
    if unknown:
        raise bad_request(f'"{min(unknown)}" is not allowed')
    path, name, method = body.get("path"), body.get("fault"), body.get("method")
    value, times = body.get("value"), body.get("times")
    if not isinstance(path, str) or not path:
        raise bad_request('"path" must be a glob such as "/v1/bot/*"')
    if not isinstance(name, str) or name not in FAULTS:
        raise bad_request(f'"fault" must be one of {", ".join(FAULTS)}')
    if method is not None and not isinstance(method, str):
        raise bad_request('"method" must be a string')
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
        raise bad_request('"times" must be a positive integer or null')
    _check_value(name, value)
    return Fault(path=path, fault=name, method=method.upper() if method else None, value=value, times=times)


def _check_value(name: str, value: object) -> None:
    if name in _NUMBER_OR_NULL:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        if value is not None and not is_number:
            raise bad_request(f'"value" of {name} must be a number or null')
    if name == "status":
        status = value.get("status") if isinstance(value, Mapping) else value
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise bad_request('"value" of status must be an HTTP status, or an object with one')


def spellings(path: str) -> tuple[str, ...]:
    """The path as it came, and under the other prefix of the API, so that a glob may use either."""
    if path.startswith("/api/v1/"):
        return path, path[4:]
    if path.startswith("/v1/"):
        return path, "/api" + path
    return (path,)


class FaultBook:
    """The planted faults, in the order of planting."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Plant one more fault, after the others."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def listing(self) -> list[Fault]:
        """The faults that are still planted, spent ones included."""
        return list(self._faults)

    def strike(self, method: str, path: str) -> dict[str, Fault]:
        """The faults that hit this request, by name, each counted once; the first of a name wins."""
        if not self._faults:
            return {}
        paths = spellings(path)
        struck: dict[str, Fault] = {}
        for fault in self._faults:
            if fault.fault not in struck and fault.matches(method, paths):
                fault.hits += 1
                if fault.times is not None:
                    fault.times -= 1
                struck[fault.fault] = fault
        return struck
