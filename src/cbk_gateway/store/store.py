"""The store as the rest of the gateway sees it: bounded in time, guarded by a breaker, one kind of failure.

A caller waits at most `call_timeout_s` for one command and gets a `StoreFault` otherwise; after a few
failures in a row nobody waits at all until a probe in the background finds the store again. What requests
ask goes over lanes (`lane.py`), everything else over the client library, in tasks of their own: either way a
caller that is cancelled or gives up never leaves a half-read reply to the next one. What is stored, and what
to do without it, is each caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeVar, cast

import hiredis
from redis.asyncio.client import PubSub
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from cbk_gateway.store.address import StoreAddress, StoreShape
from cbk_gateway.store.breaker import Breaker
from cbk_gateway.store.clients import StoreClient, StoreClients, StoreOptions
from cbk_gateway.store.embedded import EmbeddedServer
from cbk_gateway.store.fault import StoreFault, StoreTrouble
from cbk_gateway.store.health import Health
from cbk_gateway.store.lane import Words
from cbk_gateway.store.lanes import Lanes, fault_of
from cbk_gateway.store.observer import SilentObserver, StoreObserver

T = TypeVar("T")

# Error replies that say "not now", which the library derives from ResponseError.
NOT_NOW = (BusyLoadingError, ClusterDownError, ClusterError, MasterDownError, ReadOnlyError, TryAgainError)
# Whatever means that there is no connection; the Cluster client's own base class is not a RedisError.
AWAY = (RedisError, RedisClusterException, OSError)


class StoreScript:
    """A Lua script that runs on the server by its digest. Made by `Store.script`."""

    __slots__ = ("_is_bulky", "_sha", "_store", "_text")

    def __init__(self, store: Store, text: str, *, is_bulky: bool) -> None:
        self._store = store
        self._text = text
        self._is_bulky = is_bulky
        # The protocol names scripts by SHA-1; nothing depends on its strength.
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(
        self, keys: Sequence[str | bytes] = (), args: Sequence[str | bytes | int | float] = ()
    ) -> Any:  # noqa: ANN401 - a script answers what it likes
        """Run it. On a Cluster all `keys` must share one hash tag.

        Raises:
            StoreFault: There was no answer in time. The script may have run all the same.
        """
        store, key, rest = self._store, keys[0] if keys else "", (len(keys), *keys, *args)
        reply = await store.reply_to(("EVALSHA", self._sha, *rest), key, is_bulky=self._is_bulky)
        if type(reply) is hiredis.ReplyError:
            if not str(reply).startswith("NOSCRIPT"):
                raise store.fault_of(reply)
            reply = await store.reply_to(("EVAL", self._text, *rest), key, is_bulky=self._is_bulky)
            if type(reply) is hiredis.ReplyError:
                raise store.fault_of(reply)
        return reply


class Store:
    """One store. Made by `open_store`; close it with `close()`.

    Attributes:
        client: The client itself, for what `call` cannot do; it raises the library's own errors.
        shown_url: The URL without its password.
        is_cluster: Whether keys of one script must share a hash tag.
        is_behind_sentinel: Whether the primary is the one that Sentinel names at the time.
    """

    def __init__(
        self,
        clients: StoreClients,
        address: StoreAddress,
        options: StoreOptions,
        server: EmbeddedServer | None,
        observer: StoreObserver | None = None,
    ) -> None:
        self._clients = clients
        self._observer: StoreObserver = observer if observer is not None else SilentObserver()
        self._options = options
        self._server = server
        self._slots = asyncio.Semaphore(options.max_connections)
        self._running: set[asyncio.Task[Any]] = set()
        self._given_up: set[asyncio.Task[Any] | None] = set()
        self._is_closed = False
        self.client: StoreClient = clients.commands
        self.shown_url = address.shown
        self.is_cluster = address.shape is StoreShape.CLUSTER
        self.is_behind_sentinel = address.shape is StoreShape.SENTINEL
        breaker = Breaker(options.breaker_failures, options.breaker_pause_s)
        self._health = Health(breaker, self._answers, self._observer, self.shown_url)
        self._lanes = Lanes(self.client, self._health, self._observer, options, self.shown_url)

    @property
    def is_available(self) -> bool:
        """Whether calls go out: the store answered lately and this gateway is not closing it."""
        return self._health.is_good and not self._is_closed

    @property
    def url(self) -> str | None:
        """Where other processes find the embedded server that this store started; None without one."""
        return self._server.url if self._server is not None else None

    async def ask(self, *words: str | bytes | float, is_bulky: bool = False) -> Any:  # noqa: ANN401
        """Run one command of the form `NAME key argument ...`, together with what else is asked now.

        Everything asked so, or by scripts, in one turn of the event loop leaves in one piece.

        Args:
            words: The command. On a Cluster its second word names the node.
            is_bulky: Whether it or its reply holds bodies of requests or answers.

        Returns:
            Its reply as the protocol gives it: bytes, integers, None and lists of these.

        Raises:
            StoreFault: There was no answer in time, or the breaker is open. The command may still take
                effect, and does when the caller is cancelled.
        """
        reply = await self.reply_to(words, words[1], is_bulky=is_bulky)
        if type(reply) is hiredis.ReplyError:
            raise self.fault_of(reply)
        return reply

    async def reply_to(self, words: Words, key: str | bytes | float, *, is_bulky: bool) -> Any:  # noqa: ANN401
        """The reply to a command about `key`; an error of the server's is given, not raised.

        Raises:
            StoreFault: As `ask`.
        """
        if self._is_closed or not self._health.is_good:
            fault = self._not_asking()
            self._observer.failed(fault.trouble)
            raise fault
        lane = self._lanes.lane(key if isinstance(key, bytes) else str(key), is_bulky=is_bulky)
        if lane is None:
            return await self._asked_of_library(words)
        begun = time.perf_counter()
        try:
            reply = await lane.ask(words)
        except StoreFault as fault:
            self._observer.failed(fault.trouble)
            raise
        if type(reply) is hiredis.ReplyError and self._lanes.points_elsewhere(reply):
            return await self._asked_of_library(words)
        self._observer.answered(time.perf_counter() - begun)
        return reply

    async def _asked_of_library(self, words: Words) -> Any:  # noqa: ANN401
        """The same through the library, which finds the node that holds the key."""

        async def run(client: StoreClient) -> Any:  # noqa: ANN401
            try:
                return await client.execute_command(*words)
            except NoScriptError as exc:
                return hiredis.ReplyError(f"NOSCRIPT {exc}")

        reply = await self.call(run)
        await self._lanes.trust()
        return reply

    def fault_of(self, reply: hiredis.ReplyError) -> StoreFault:
        """Take note of an error reply, and say what it means to the caller."""
        fault = fault_of(reply, self.shown_url)
        if fault.trouble is StoreTrouble.AWAY:
            self._health.failed(str(reply).partition(" ")[0])
        self._observer.failed(fault.trouble)
        return fault

    def _not_asking(self) -> StoreFault:
        if self._is_closed:
            return StoreFault("the store is closed", StoreTrouble.CLOSED)
        return StoreFault(f"the store at {self.shown_url} does not answer; not asking", StoreTrouble.OPEN)

    async def call(
        self, command: Callable[[StoreClient], Awaitable[T]], *, timeout_s: float | None = None
    ) -> T:
        """Run one command of the library's: `await store.call(lambda client: client.get(key))`.

        For what is not asked on behalf of a request; else see `ask`.

        Args:
            command: Gets the client and returns what to await; it may await several commands.
            timeout_s: Longest wait, instead of the configured one. For work outside the request path.

        Raises:
            StoreFault: There was no answer in time, or the breaker is open. A command that timed out
                may still take effect. When the caller is cancelled, the command is finished without it.
        """
        begun = time.perf_counter()
        try:
            answer = await self._within_bounds(command, timeout_s)
        except StoreFault as fault:
            self._observer.failed(fault.trouble)
            raise
        self._observer.answered(time.perf_counter() - begun)
        return answer

    async def _within_bounds(
        self, command: Callable[[StoreClient], Awaitable[T]], timeout_s: float | None
    ) -> T:
        if not self.is_available:
            raise self._not_asking()
        patience_s = self._options.call_timeout_s if timeout_s is None else timeout_s
        task = self._spawn(self._attempt(command, patience_s + self._options.connect_timeout_s))
        done, _ = await asyncio.wait((task,), timeout=patience_s)
        if not done:
            # When this process itself was late, the answer may lie ready: look before blaming the store.
            await asyncio.sleep(0)
            if not task.done():
                self._give_up(task)
                raise StoreFault(
                    f"the store at {self.shown_url} did not answer within {patience_s * 1000:.0f} ms",
                    StoreTrouble.TIMEOUT,
                )
        return cast("T", task.result())

    def script(self, text: str, *, is_bulky: bool = False) -> StoreScript:
        """Make a Lua script callable. Nothing is sent before its first run.

        Args:
            text: Its text.
            is_bulky: Whether its arguments or its reply hold bodies of requests or answers.
        """
        return StoreScript(self, text, is_bulky=is_bulky)

    def pubsub(self) -> PubSub:
        """A subscription on connections of its own. The caller closes it and copes with redis errors.

        Read it with `get_message(ignore_subscribe_messages=True, timeout=seconds)`, which returns None
        when nothing came.
        """
        return self._clients.subscriptions.pubsub()

    async def ping(self) -> None:
        """Ask whether the store is there, with the patience of a connection attempt.

        Raises:
            StoreFault: It is not.
        """
        await self.call(ping, timeout_s=self._options.connect_timeout_s)

    async def close(self) -> None:
        """Finish what runs, close all connections, end the embedded server. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._health.close()
        await self._lanes.close(self._options.connect_timeout_s)
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._options.connect_timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        with contextlib.suppress(*AWAY):
            await self._clients.aclose()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Store {self.shown_url} {self._health!r}>"

    async def _attempt(self, command: Callable[[StoreClient], Awaitable[T]], bound_s: float) -> T:
        """One command to its end, whoever still waits for it. Translates the library's errors."""
        try:
            async with asyncio.timeout(bound_s), self._slots:
                answer = await command(self.client)
        except (RedisTimeoutError, TimeoutError) as exc:
            self._failed("no answer in time")
            raise StoreFault(
                f"the store at {self.shown_url} did not answer in time", StoreTrouble.TIMEOUT
            ) from exc
        except NOT_NOW as exc:
            self._failed(type(exc).__name__)
            raise StoreFault(
                f"the store at {self.shown_url} cannot serve now: {exc}", StoreTrouble.AWAY
            ) from exc
        except ResponseError as exc:
            self._succeeded()
            raise StoreFault(f"the store at {self.shown_url} refused: {exc}", StoreTrouble.REJECTED) from exc
        except AWAY as exc:
            self._failed(type(exc).__name__)
            raise StoreFault(f"the store at {self.shown_url} is away: {exc}", StoreTrouble.AWAY) from exc
        self._succeeded()
        return answer

    def _spawn(self, work: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - coroutines of any result
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        """Count a command as failed now; how it ends later no longer matters."""
        self._failed("no answer in time")
        self._given_up.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # seen: otherwise asyncio would report it as lost

    def _succeeded(self) -> None:
        if asyncio.current_task() not in self._given_up:
            self._health.succeeded()

    def _failed(self, why: str) -> None:
        if asyncio.current_task() not in self._given_up:
            self._health.failed(why)

    async def _answers(self) -> bool:
        """Whether the store answers at all, asked over the library."""
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await ping(self.client)
        except (*AWAY, TimeoutError):
            return False
        return True


def ping(client: StoreClient) -> Awaitable[Any]:
    """Ask over the library whether the server is there; raises what the library raises."""
    return cast("Awaitable[Any]", client.ping())
