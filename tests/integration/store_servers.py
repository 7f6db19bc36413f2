"""Servers in every shape, from the one program that the wheel brings: behind Sentinel, and as a Cluster."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from cbk_gateway.store import EmbeddedServer
from cbk_gateway.store.embedded import _program


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def server(port: int, *arguments: str) -> Iterator[EmbeddedServer]:
    """One server with a TCP port."""
    with EmbeddedServer(arguments=["--port", str(port), "--bind", "127.0.0.1", *arguments]) as one:
        yield one


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[None]:
    """The server's program in another role."""
    process = subprocess.Popen([str(_program()), *arguments], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def clients(ports: list[int]) -> Iterator[list[Redis]]:
    """Plain clients to set servers up with."""
    made = [Redis(host="127.0.0.1", port=port, socket_timeout=5) for port in ports]
    try:
        yield made
    finally:
        for one in made:
            one.close()


def command(node: Redis, *words: str | int) -> None:
    """Send what the client library has no method for."""
    node.execute_command(*words)  # type: ignore[no-untyped-call]  # theirs


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition of another process's making."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Three nodes with a third of the slots each; gives the store's URL."""
    ports = free_ports(6)
    data, buses = ports[:3], ports[3:]
    with contextlib.ExitStack() as stack:
        for port, bus in zip(data, buses, strict=True):
            stack.enter_context(
                server(
                    port,
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    str(bus),
                    "--cluster-announce-ip",
                    "127.0.0.1",
                )
            )
        nodes = stack.enter_context(clients(data))
        edges = [0, 5461, 10923, 16384]
        for i, node in enumerate(nodes):
            command(node, "CLUSTER", "ADDSLOTSRANGE", edges[i], edges[i + 1] - 1)
            command(node, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for port, bus in zip(data[1:], buses[1:], strict=True):
            command(nodes[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        wait_until(lambda: all(is_whole(node) for node in nodes))
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in data)


def is_whole(node: Redis) -> bool:
    """Whether a node knows all others and every slot's owner."""
    state = cast("dict[str, str]", node.cluster("INFO"))
    return (state["cluster_state"], state["cluster_known_nodes"]) == ("ok", "3")


@contextlib.contextmanager
def sentinel(directory: Path, *arguments: str) -> Iterator[tuple[str, EmbeddedServer, Redis]]:
    """A primary, its replica and a Sentinel; gives the URL, the primary, and a client of the replica.

    Args:
        directory: Where the Sentinel keeps its own.
        arguments: Of both servers' program.
    """
    primary_port, replica_port, port = free_ports(3)
    settings = directory / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor main 127.0.0.1 {primary_port} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(
            # Else it waits five seconds for more replicas before it brings the first one up.
            server(primary_port, "--repl-diskless-sync-delay", "0", *arguments)
        )
        stack.enter_context(server(replica_port, "--replicaof", f"127.0.0.1 {primary_port}", *arguments))
        (replica, watcher) = stack.enter_context(clients([replica_port, port]))
        wait_until(lambda: b"master_link_status:up" in raw_info(replica))
        stack.enter_context(program(str(settings), "--sentinel"))
        wait_until(lambda: knows_replica(watcher))
        yield f"redis+sentinel://127.0.0.1:{port}/main", primary, replica


def raw_info(node: Redis) -> bytes:
    """The replication section as text."""
    parsed = cast("dict[str, object]", node.info("replication"))
    return "\n".join(f"{name}:{value}" for name, value in parsed.items()).encode()


def knows_replica(watcher: Redis) -> bool:
    """Whether a Sentinel is up and has found the replica it will promote."""
    with contextlib.suppress(RedisError):
        state = cast("dict[str, object]", watcher.sentinel_master("main"))
        return state["num-slaves"] == 1 and state["is_master"] is True
    return False
