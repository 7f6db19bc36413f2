"""What an operator may set about the upstream: address, trust, timeouts, pool, retries.

Values and their defaults only. Nothing here opens a socket or a file; reading certificates is
`trust.py`'s business, and files and environment are the settings' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from cbk_gateway.operation import CostClass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one cost class waits. All in seconds.

    Attributes:
        first_byte_s: From the last byte of the request to the head of the answer.
        idle_s: Between two pieces of the answer, or between two pieces the upstream takes of a body.
        total_s: From the start of the call to the last byte of the answer; None for no bound.
    """

    first_byte_s: float
    idle_s: float
    total_s: float | None = None


DEFAULT_TIMEOUTS: Final[Mapping[CostClass, Timeouts]] = MappingProxyType(
    {
        # The API turns a slow JSON answer into a chunked 200 after 18.75 s, and gives up at 800 s.
        CostClass.READ: Timeouts(first_byte_s=30, idle_s=60, total_s=300),
        CostClass.SEARCH: Timeouts(first_byte_s=60, idle_s=60, total_s=300),
        CostClass.WRITE: Timeouts(first_byte_s=60, idle_s=60, total_s=300),
        CostClass.GRAPHQL: Timeouts(first_byte_s=120, idle_s=120, total_s=800),
        CostClass.MODEL: Timeouts(first_byte_s=800, idle_s=800),
        # A subscription is silent until a message comes: the API itself ends it at 800 s.
        CostClass.STREAM: Timeouts(first_byte_s=800, idle_s=900),
        CostClass.TRANSFER: Timeouts(first_byte_s=300, idle_s=60),
    }
)


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """When a call that failed is tried again.

    Attributes:
        max_attempts: Attempts of one call in all, 1 for never again.
        first_wait_s: Upper end of the random wait before the second attempt; doubles each time.
        longest_wait_s: Where the doubling stops.
        budget_share: Retries allowed per call made, so that a sick upstream is not pushed over. The
            invisible retry on another connection after an idle one was found closed is free.
        budget_reserve: Retries that may be saved up; also what a fresh process starts with.
    """

    max_attempts: int = 3
    first_wait_s: float = 0.1
    longest_wait_s: float = 1.0
    budget_share: float = 0.1
    budget_reserve: float = 20.0


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When the gateway stops calling a failing upstream.

    Attributes:
        window_s: Length of the rolling window of samples.
        minimum_samples: Fewer samples in the window never open it.
        failure_share: Share of failures in the window that opens it.
        open_s: Time before the first probe of an open breaker; doubles up to `longest_open_s`.
        longest_open_s: Longest time between probes.
        max_accounts: Accounts watched at a time; the least recently used are forgotten beyond it.
        enabled: Turn it off only to debug the upstream itself.
    """

    window_s: float = 10.0
    minimum_samples: int = 20
    failure_share: float = 0.5
    open_s: float = 1.0
    longest_open_s: float = 30.0
    max_accounts: int = 10_000
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class ConcurrencyOptions:
    """How many calls run at a time, and who waits.

    Attributes:
        start: Bound of short calls when the process starts.
        least: The bound never falls below it.
        most: The bound never rises above it.
        max_long: Model runs, streams and transfers at a time; these last for minutes by nature, so their
            number is fixed and their duration teaches nothing.
        queue_size: Calls that may wait, over all tenants; the next one is refused at once.
        queue_wait_s: Longest wait before a call is refused.
        tolerance: A call slower than this many times the usual one counts as a sign of overload.
        decrease: Factor on the bound at a sign of overload, at most once per usual call time.
    """

    start: float = 100.0
    least: float = 4.0
    most: float = 1000.0
    max_long: int = 4000
    queue_size: int = 1000
    queue_wait_s: float = 2.0
    tolerance: float = 4.0
    decrease: float = 0.8


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """All options of the upstream transport.

    Attributes:
        url: `scheme://host[:port]`, http or https, nothing behind it.
        path_prefix: What stands before the operation's path: `/api/v1`, or `/v1` on an API host.
        connect_timeout_s: For name, TCP and TLS together, retries included: a dead upstream is a 502
            within this time.
        tls_timeout_s: For the TLS handshake alone.
        pool_size: Open connections at a time; a stream holds one for its life.
        idle_s: How long an unused connection is kept; below the upstream's own limit, or it will be
            closed under our hands (Node.js and uvicorn: 5 s).
        max_age_s: Connections older than this are not used again, so that a change of addresses arrives.
        dns_ttl_s: How long the addresses of the host's name are remembered.
        addresses: Fixed `host` or `host:port` to dial instead of the URL's; TLS still checks the URL's name.
        address_rest_s: An address that could not be reached goes to the end of the line for this long.
        ca_file: PEM file of the authorities to trust; None for the system's.
        client_cert: PEM file with the gateway's certificate chain for mutual TLS.
        client_key: PEM file of its key, when it is not in `client_cert`.
        pins: Base64 SHA-256 of SubjectPublicKeyInfo (RFC 7469 section 2.4); when not empty the upstream's
            own certificate must match one: the leaf's key, never an authority's, which `ca_file` names.
            Keep the next key's pin beside the present one.
        max_head_bytes: Size of an answer's head, trailers or chunk overhead between two pieces.
        max_fields: Header fields in one answer.
        buffer_bytes: Answer bytes kept for a slow reader before the socket is no longer read.
        timeouts: Per cost class; classes left out keep their defaults.
        retry: See `RetryOptions`.
        breaker: See `BreakerOptions`.
        concurrency: See `ConcurrencyOptions`.
        longest_retry_after_s: Bound on what is believed of an upstream's `Retry-After`.
    """

    url: str
    path_prefix: str = "/api/v1"
    connect_timeout_s: float = 5.0
    tls_timeout_s: float = 5.0
    pool_size: int = 4096
    idle_s: float = 4.0
    max_age_s: float = 300.0
    dns_ttl_s: float = 30.0
    addresses: tuple[str, ...] = ()
    address_rest_s: float = 10.0
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    pins: tuple[str, ...] = ()
    max_head_bytes: int = 65_536
    max_fields: int = 128
    buffer_bytes: int = 262_144
    timeouts: Mapping[CostClass, Timeouts] = field(default_factory=dict)
    retry: RetryOptions = field(default_factory=RetryOptions)
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    concurrency: ConcurrencyOptions = field(default_factory=ConcurrencyOptions)
    longest_retry_after_s: float = 60.0

    def timeouts_of(self, cost_class: CostClass) -> Timeouts:
        """The timeouts in force for a cost class."""
        return self.timeouts.get(cost_class) or DEFAULT_TIMEOUTS[cost_class]


@dataclass(frozen=True, slots=True)
class Origin:
    """The upstream's address, taken apart.

    Attributes:
        secure: Whether TLS is spoken.
        host: Name or address, without brackets: for resolving and for the certificate.
        port: TCP port.
        authority: As the `Host` header has it.
    """

    secure: bool
    host: str
    port: int
    authority: str


def parse_origin(url: str) -> Origin:
    """Take `scheme://host[:port]` apart.

    Raises:
        ValueError: It is anything else; the message is for the operator.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"the upstream URL must begin with http:// or https://, not {url!r}")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("the upstream URL is scheme://host[:port] only; the path belongs in path_prefix")
    if not parts.hostname or not parts.hostname.isascii():
        raise ValueError(f"the upstream URL names no host: {url!r}")
    secure = parts.scheme == "https"
    default = 443 if secure else 80
    port = parts.port or default
    shown = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Origin(secure, parts.hostname, port, shown if port == default else f"{shown}:{port}")
