"""Which connection a command takes: by the server that holds its key, and by its weight.

A single server, a socket and whoever Sentinel names have two lanes: one for small questions, and one for
those that carry bodies, so that no limit waits behind an answer of megabytes. A Cluster has two per node.

The map of a Cluster's slots is the library's. When a node points elsewhere or is lost, the library is asked
in the lanes' place until it has succeeded, and with that its map is new.
"""

from __future__ import annotations

from typing import Final

import hiredis
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisClusterException, RedisError

from cbk_gateway.store.clients import StoreClient, StoreOptions
from cbk_gateway.store.fault import StoreFault, StoreTrouble
from cbk_gateway.store.health import Health
from cbk_gateway.store.lane import Lane
from cbk_gateway.store.observer import StoreObserver

# First words of error replies which say that nothing was done, and that it may be done soon or elsewhere.
NOT_NOW: Final = ("LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK")
_ELSEWHERE: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY")


class Lanes:
    """The lanes of one store.

    Args:
        client: The library's client, which knows how to connect.
        health: Told how calls end.
        observer: Told what is sent.
        options: Bounds in time.
        shown_url: The store's name in faults.
    """

    def __init__(
        self,
        client: StoreClient,
        health: Health,
        observer: StoreObserver,
        options: StoreOptions,
        shown_url: str,
    ) -> None:
        self._client = client
        self._health = health
        self._observer = observer
        self._options = options
        self._shown_url = shown_url
        self._lanes: dict[tuple[str, bool], Lane] = {}
        self._is_cluster = isinstance(client, RedisCluster)
        # A Cluster's map is loaded with the library's first command.
        self._is_trusted = not self._is_cluster

    def lane(self, key: str | bytes, *, is_bulky: bool) -> Lane | None:
        """The lane of a key; None when the library must be asked."""
        if not self._is_cluster:
            lane = self._lanes.get(("", is_bulky))
            return lane if lane is not None else self._opened("", None, is_bulky)
        if not self._is_trusted or not isinstance(self._client, RedisCluster):
            return None
        try:
            node = self._client.get_node_from_key(key)  # type: ignore[arg-type] # bytes are as good
        except (RedisError, RedisClusterException):
            node = None
        if node is None:
            self._is_trusted = False
            return None
        lane = self._lanes.get((node.name, is_bulky))
        return lane if lane is not None else self._opened(node.name, node, is_bulky)

    def points_elsewhere(self, reply: hiredis.ReplyError) -> bool:
        """Whether a Cluster's node has done nothing, and the library would find who does."""
        if self._is_cluster and str(reply).startswith(_ELSEWHERE):
            self._is_trusted = False
            return True
        return False

    async def trust(self) -> None:
        """The library has succeeded: its map is right. Lanes to nodes that are gone are closed."""
        if self._is_trusted or not isinstance(self._client, RedisCluster):
            return
        self._is_trusted = True
        known = {node.name for node in self._client.get_nodes()}
        for place in [place for place in self._lanes if place[0] not in known]:
            await self._lanes.pop(place).close(0)

    async def close(self, patience_s: float) -> None:
        """Wait a while for what was asked, then close all."""
        for lane in list(self._lanes.values()):
            await lane.close(patience_s)

    def _distrust(self) -> None:
        """A node of a Cluster may have given its slots away."""
        self._is_trusted = not self._is_cluster

    def _opened(self, name: str, node: ClusterNode | None, is_bulky: bool) -> Lane:
        client = self._client

        def connection() -> AbstractConnection:
            if node is not None:
                made: AbstractConnection = node.connection_class(**node.connection_kwargs)
                return made
            assert not isinstance(client, RedisCluster)  # noqa: S101 - nodes have names
            return client.connection_pool.make_connection()  # type: ignore[no-any-return,no-untyped-call]

        lane = Lane(
            connection,
            self._health,
            self._observer,
            self._distrust,
            self._shown_url,
            patience_s=self._options.call_timeout_s,
            connect_timeout_s=self._options.connect_timeout_s,
        )
        self._lanes[name, is_bulky] = lane
        return lane


def fault_of(reply: hiredis.ReplyError, shown_url: str) -> StoreFault:
    """What an error reply means to the caller."""
    text = str(reply)
    if text.startswith(NOT_NOW):
        return StoreFault(f"the store at {shown_url} cannot serve now: {text}", StoreTrouble.AWAY)
    return StoreFault(f"the store at {shown_url} refused: {text}", StoreTrouble.REJECTED)
