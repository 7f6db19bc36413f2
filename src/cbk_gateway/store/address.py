"""Where the store is: the URL grammar, and the only form of it that may be shown.

Pure text work. Connections are made in `clients.py`. A password never leaves here but inside a `Secret`.

    embedded                                      a private server started by this process
    unix:///run/valkey.sock?db=1                  a socket on this machine
    redis://[user[:password]@]host[:port][/db]    one server; `rediss://` for TLS
    redis+sentinel://h1:p,h2:p/service[/db]       the primary that Sentinel names; `rediss+sentinel://`
    redis+cluster://h1:p,h2:p                     a Cluster; `rediss+cluster://`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from cbk_gateway.secret import Secret

EMBEDDED: Final = "embedded"
_DEFAULT_PORT: Final = 6379
_DEFAULT_SENTINEL_PORT: Final = 26379


class StoreShape(StrEnum):
    """How many servers stand behind the URL and who says which one to ask."""

    EMBEDDED = "embedded"
    UNIX = "unix"
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SHAPES: Final = {
    "redis": StoreShape.SINGLE,
    "valkey": StoreShape.SINGLE,
    "redis+sentinel": StoreShape.SENTINEL,
    "redis+cluster": StoreShape.CLUSTER,
}


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store URL taken apart.

    Attributes:
        shape: Single server, Sentinel, Cluster, a unix socket, or the embedded server.
        hosts: Host and port pairs: the server, the Sentinels, or some of the Cluster's nodes.
        path: Path of the unix socket, "" otherwise.
        service: Name under which Sentinel knows the primary, "" otherwise.
        db: Database number; always 0 on a Cluster.
        tls: Whether to speak TLS.
        username: ACL user, None for the default one.
        password: Its password, None for none.
    """

    shape: StoreShape
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    tls: bool = False
    username: str | None = None
    password: Secret | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The URL for people: with the user, without the password."""
        if self.shape is StoreShape.EMBEDDED:
            return EMBEDDED
        if self.shape is StoreShape.UNIX:
            return f"unix://{self.path}" + (f"?db={self.db}" if self.db else "")
        kind = "" if self.shape is StoreShape.SINGLE else f"+{self.shape}"
        user = self.username or ""
        login = f"{user}:***@" if self.password else (f"{user}@" if user else "")
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        tail = f"/{self.service}" if self.service else ""
        if self.db or self.shape is StoreShape.SINGLE:
            tail += f"/{self.db}"
        return f"redis{'s' if self.tls else ''}{kind}://{login}{hosts}{tail}"


def parse(url: str) -> StoreAddress:
    """Take a store URL apart.

    Raises:
        ValueError: It is none of the forms above. The message names the mistake and never the password.
    """
    if url == EMBEDDED:
        return StoreAddress(StoreShape.EMBEDDED)
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _unix(parts.path, parts.query)
    scheme, tls = parts.scheme, False
    if scheme.startswith(("rediss", "valkeys")):
        scheme, tls = scheme.replace("rediss", "redis", 1).replace("valkeys", "valkey", 1), True
    shape = _SHAPES.get(scheme)
    if shape is None:
        known = "embedded, unix://, redis://, rediss://, redis+sentinel://, redis+cluster://"
        raise ValueError(f"the store URL's scheme is not one of: {known}")
    login, _, host_list = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    port = _DEFAULT_SENTINEL_PORT if shape is StoreShape.SENTINEL else _DEFAULT_PORT
    service, db = _tail(shape, [segment for segment in parts.path.split("/") if segment])
    return StoreAddress(
        shape=shape,
        hosts=tuple(_host(text, port) for text in host_list.split(",")),
        service=service,
        db=db,
        tls=tls,
        username=unquote(user) or None,
        password=Secret(unquote(password)) if password else None,
    )


def _unix(path: str, query: str) -> StoreAddress:
    if not path:
        raise ValueError("a unix:// store URL needs the path of a socket: unix:///run/valkey.sock")
    db = parse_qs(query).get("db", ["0"])[0]
    return StoreAddress(StoreShape.UNIX, path=unquote(path), db=_number(db))


def _tail(shape: StoreShape, segments: list[str]) -> tuple[str, int]:
    """Service name and database number out of the path's segments."""
    if shape is StoreShape.SENTINEL:
        if not segments:
            raise ValueError(
                "a redis+sentinel:// store URL needs the service's name: redis+sentinel://h1,h2/name"
            )
        return segments[0], _number(segments[1]) if len(segments) > 1 else 0
    db = _number(segments[0]) if segments else 0
    if shape is StoreShape.CLUSTER and db:
        raise ValueError("a Cluster has only database 0")
    return "", db


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the store URL has a port that is not a number from 1 to 65535") from None
    if not host:
        raise ValueError("the store URL names no host")
    return host, default_port if port is None else port


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("the store URL's database is not a number")
    return int(text)
