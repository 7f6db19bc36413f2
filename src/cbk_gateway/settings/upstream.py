"""The upstream section: where the API behind the gateway is, and how it is treated when it is sick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cbk_gateway.settings.section import Bytes, Seconds, Section, Share

Pin = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]


class ClassTimeouts(Section):
    """Time bounds of one cost class towards the upstream, in seconds; none means the class's own default."""

    first_byte_s: Seconds | None = Field(None, description="Until the answer's head.")
    idle_s: Seconds | None = Field(None, description="Between two pieces of the answer.")
    total_s: Seconds | None = Field(None, description="For the whole exchange; leave unset for model runs.")


class RetrySettings(Section):
    """When a call that failed is tried again. Writes are repeated only when nothing of them was sent."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        3, description="Attempts of one call in all; 1 where something before the gateway retries already."
    )
    first_wait_s: Annotated[float, Field(ge=0, le=60)] = Field(
        0.1, description="Upper end of the random wait before the second attempt, seconds; doubles each time."
    )
    longest_wait_s: Annotated[float, Field(ge=0, le=60)] = Field(
        1.0, description="Seconds at which the doubling stops."
    )
    budget_share: Share = Field(
        0.1, description="Retries allowed per call made, so that a sick upstream is not pushed over."
    )
    budget_reserve: Annotated[float, Field(ge=0)] = Field(
        20.0, description="Retries that may be saved up; also what a fresh worker starts with."
    )


class BreakerSettings(Section):
    """When the gateway stops calling a failing upstream, or one failing account of it, and only probes."""

    enabled: bool = Field(True, description="Off only to debug the upstream itself.")
    window_s: Seconds = Field(10.0, description="Seconds of calls that are judged together.")
    minimum_samples: Annotated[int, Field(ge=1)] = Field(
        20, description="Fewer calls in the window never open it."
    )
    failure_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of failures in the window that opens it."
    )
    open_s: Seconds = Field(1.0, description="Seconds before the first probe; doubles each time.")
    longest_open_s: Seconds = Field(30.0, description="Longest time between two probes, seconds.")
    max_accounts: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Accounts watched at a time, about 1 KiB each."
    )


class ConcurrencySettings(Section):
    """How many calls run at a time per worker. The bound of short calls follows the latency."""

    start: Annotated[float, Field(ge=1)] = Field(100.0, description="Bound of short calls at the start.")
    least: Annotated[float, Field(ge=1)] = Field(4.0, description="The bound never falls below it.")
    most: Annotated[float, Field(ge=1)] = Field(
        1000.0, description="The bound never rises above it; set it to what the upstream is sized for."
    )
    max_long: Annotated[int, Field(ge=1)] = Field(
        4000, description="Model runs, streams and transfers at a time; each holds a connection."
    )
    queue_size: Annotated[int, Field(ge=0)] = Field(
        1000, description="Calls that may wait, over all tenants; 0 refuses at once."
    )
    queue_wait_s: Seconds = Field(2.0, description="Seconds a call waits before it is refused (503).")


class UpstreamSettings(Section):
    """The API behind the gateway."""

    url: str = Field("https://api.chatbotkit.com", description="Scheme, host and port; no path.")
    path_prefix: str = Field(
        "/v1",
        pattern=r"^(/[A-Za-z0-9._-]+)*$",
        description="What `/api/v1` becomes: `/v1` on the hosted API.",
    )
    addresses: tuple[str, ...] = Field(
        (),
        description="Fixed `host` or `host:port` to dial instead of the URL's; TLS still checks the URL's "
        "name. Not where the upstream's addresses change by themselves.",
    )
    connect_timeout_s: Seconds = Field(
        5.0, description="Seconds to open a connection: name, TCP and TLS, retries included."
    )
    tls_timeout_s: Seconds = Field(
        5.0, description="Seconds one TLS handshake may take, within `connect_timeout_s`."
    )
    dns_ttl_s: Seconds = Field(
        30.0, description="Seconds for which the addresses of the host's name are remembered."
    )
    address_rest_s: Seconds = Field(
        10.0, description="Seconds an address that could not be reached goes to the end of the line."
    )
    pool_size: Bytes = Field(
        4096, description="Connections to the upstream per worker; a stream holds one for its life."
    )
    idle_s: Seconds = Field(
        4.0, description="Seconds an idle connection is kept: below the upstream's own limit."
    )
    stream_heartbeat_s: Seconds = Field(
        15.0,
        description="Seconds of an event stream's silence after which its client is sent a sign of life; "
        "below what proxies between allow.",
    )
    stream_deadline_s: Seconds | None = Field(
        None, description="Longest life of an event stream, seconds; unset for no bound but the upstream's."
    )
    timeouts: dict[str, ClassTimeouts] = Field(
        default_factory=dict,
        description="Per cost class: read, search, write, model, stream, transfer, graphql.",
    )
    retry: RetrySettings = Field(default_factory=RetrySettings, description="Trying again.")
    breaker: BreakerSettings = Field(default_factory=BreakerSettings, description="Holding calls back.")
    concurrency: ConcurrencySettings = Field(
        default_factory=ConcurrencySettings, description="Calls at a time."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the only authorities to trust; the system's by default."
    )
    pins: tuple[Pin, ...] = Field(
        (),
        description="Base64 SHA-256 digests of public keys (RFC 7469 section 2.4), one of which the "
        "upstream's own certificate must have; those of authorities are not looked at, name the authority in "
        "`ca_file` instead. Keep the next key's pin beside the present one, and set none for an upstream "
        "that changes its key without telling you.",
    )
    client_certificate: Path | None = Field(
        None, description="PEM file shown to an upstream that asks for one."
    )
    client_key: Path | None = Field(None, description="PEM file with its private key.")
