"""Clients of the wire protocol, one builder per shape of store.

Every default of the client library that would hold a request for seconds, run a script twice, or send what
we did not ask for is set here explicitly, and nowhere else. Time bounds, breaker and errors are `store.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import (
    Connection,
    ConnectionPool,
    Redis,
    RedisCluster,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from cbk_gateway.secret import Secret
from cbk_gateway.store.address import StoreAddress, StoreShape

CLIENT_NAME: Final = "cbk-gateway"
_HEALTH_CHECK_S: Final = 15
_READ_SIZE: Final = 65536

StoreClient = Redis | RedisCluster


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How to reach the store and how long to wait for it.

    Attributes:
        url: See `address.py`; "embedded" (default) starts a private server. May hold a password.
        password: The password, when it is kept outside the URL; wins over the URL's.
        sentinel_password: The Sentinels' own password; None when they have none.
        call_timeout_s: Longest time a caller waits for one command, connection included. Default 50 ms. Raise
            it for a store in another data centre; a limiter must not wait longer than its clients would.
        connect_timeout_s: Longest time to open a connection, and to answer the probe of an open breaker.
            Default 250 ms. A first command that needs a new connection may be given up by its caller after
            `call_timeout_s` while the connection is still finished for the next one.
        breaker_failures: Failures in a row after which the store is not asked for a while. Default 5.
        breaker_pause_s: Seconds between probes of a store that does not answer. Default 0.5.
        open_timeout_s: Seconds at start within which the store must answer once. Default 2.
        max_connections: Connections of this process to one server. Default 32.
        ca_file: PEM file of the authorities for TLS; None for the system's.
        cert_file: PEM file of our client certificate; None for none.
        key_file: PEM file of its key.
        directory: Directory of the embedded server; None for a temporary one.
        persist: Whether the embedded server keeps its contents over restarts; needs `directory`.
    """

    url: str = field(default="embedded", repr=False)
    password: Secret | None = None
    sentinel_password: Secret | None = None
    call_timeout_s: float = 0.05
    connect_timeout_s: float = 0.25
    breaker_failures: int = 5
    breaker_pause_s: float = 0.5
    open_timeout_s: float = 2.0
    max_connections: int = 32
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    directory: str | None = None
    persist: bool = False


@dataclass(frozen=True, slots=True)
class StoreClients:
    """What one store needs: a client for commands, one for subscriptions, Sentinel if there is one."""

    commands: StoreClient
    subscriptions: StoreClient
    sentinels: tuple[Sentinel, ...] = ()

    async def aclose(self) -> None:
        """Close all connections."""
        await self.commands.aclose()
        if self.subscriptions is not self.commands:
            await self.subscriptions.aclose()
        for sentinel in self.sentinels:
            await sentinel.aclose()


def build(address: StoreAddress, options: StoreOptions) -> StoreClients:
    """Build the clients of a store. Nothing is sent yet."""
    if address.shape is StoreShape.CLUSTER:
        # Its subscriptions take a connection out of a node's pool and need the slot map that commands renew.
        client, _ = _client(address, options, read_timeout_s=options.connect_timeout_s)
        return StoreClients(client, client)
    # A subscription is silent for as long as nobody publishes: reads of it have no bound here.
    commands, commands_sentinel = _client(address, options, read_timeout_s=options.connect_timeout_s)
    subscriptions, subscriptions_sentinel = _client(
        address, options, read_timeout_s=options.connect_timeout_s
    )
    sentinels = tuple(one for one in (commands_sentinel, subscriptions_sentinel) if one is not None)
    return StoreClients(commands, subscriptions, sentinels)


def _client(
    address: StoreAddress, options: StoreOptions, *, read_timeout_s: float
) -> tuple[StoreClient, Sentinel | None]:
    settings = _settings(address, options, read_timeout_s)
    if address.shape is StoreShape.CLUSTER:
        return _cluster(address, options, settings), None
    settings["db"] = address.db
    settings["retry"] = _never()
    settings["retry_on_error"] = []
    settings["max_connections"] = options.max_connections
    settings["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    if address.shape is StoreShape.SENTINEL:
        return _behind_sentinel(address, options, settings)
    if address.shape is StoreShape.UNIX:
        settings |= {"connection_class": UnixDomainSocketConnection, "path": address.path}
    else:
        host, port = address.hosts[0]
        settings |= {"connection_class": Connection, "host": host, "port": port}
        settings |= {"socket_keepalive": True}
        if address.tls:
            settings |= {"connection_class": SSLConnection, **_tls(options)}
    return Redis.from_pool(ConnectionPool(**settings)), None


def _settings(address: StoreAddress, options: StoreOptions, read_timeout_s: float) -> dict[str, Any]:
    """What every connection needs, whatever the shape."""
    password = options.password or address.password
    return {
        "username": address.username,
        "password": password.reveal() if password else None,
        "protocol": 3,
        "legacy_responses": True,
        "decode_responses": False,
        "socket_timeout": read_timeout_s,
        "socket_connect_timeout": options.connect_timeout_s,
        "socket_read_size": _READ_SIZE,
        "health_check_interval": _HEALTH_CHECK_S,
        "client_name": CLIENT_NAME,
        # Two extra commands per connection that older and hosted servers refuse.
        "driver_info": None,
    }


def _never() -> Retry:
    """No retries: a script that timed out may have run, and running it again would charge twice."""
    return Retry(NoBackoff(), 0)


def _tls(options: StoreOptions) -> dict[str, Any]:
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": options.ca_file,
        "ssl_certfile": options.cert_file,
        "ssl_keyfile": options.key_file,
    }


def _cluster(address: StoreAddress, options: StoreOptions, settings: dict[str, Any]) -> RedisCluster:
    # Redirections after a fail-over are followed by the library inside one execution; without any attempt
    # left the first MOVED would be an error, so this one number is not zero.
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        require_full_coverage=False,
        dynamic_startup_nodes=True,
        reinitialize_steps=1,
        max_connections=options.max_connections,
        retry=Retry(NoBackoff(), 1),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        ssl=address.tls,
        **(_tls(options) if address.tls else {}),
        **settings,
    )


def _behind_sentinel(
    address: StoreAddress, options: StoreOptions, settings: dict[str, Any]
) -> tuple[Redis, Sentinel]:
    own = {
        "password": options.sentinel_password.reveal() if options.sentinel_password else None,
        "socket_timeout": options.connect_timeout_s,
        "socket_connect_timeout": options.connect_timeout_s,
        "retry": _never(),
        "protocol": 3,
        "driver_info": None,
        "client_name": CLIENT_NAME,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs=own)  # type: ignore[no-untyped-call]  # theirs
    settings |= {"socket_keepalive": True}
    if address.tls:
        settings |= {"ssl": True, **_tls(options)}
    return sentinel.master_for(address.service, **settings), sentinel
