"""The store as the rest of the gateway sees it: bounded in time, guarded by a breaker, one kind of failure.

A caller waits at most `call_timeout_s` for one command and gets a `StoreFault` otherwise; after a few
failures in a row nobody waits at all until a probe in the background finds the store again. Commands run
in tasks of their own: a caller that is cancelled or gives up never leaves a half-read reply on a shared
connection. What is stored, and what to do without it, is each caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.sentinel import MasterNotFoundError
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

from cbk_gateway.store.address import StoreAddress, StoreShape, parse
from cbk_gateway.store.breaker import Breaker
from cbk_gateway.store.clients import StoreClient, StoreClients, StoreOptions, build
from cbk_gateway.store.embedded import EmbeddedServer
from cbk_gateway.store.fault import StoreFault, StoreTrouble
from cbk_gateway.store.observer import SilentObserver, StoreObserver

T = TypeVar("T")

_log = structlog.get_logger(__name__)

# Error replies that say "not now", which the library derives from ResponseError.
_NOT_NOW = (BusyLoadingError, ClusterDownError, ClusterError, MasterDownError, ReadOnlyError, TryAgainError)
# Whatever means that there is no connection; the Cluster client's own base class is not a RedisError.
_AWAY = (RedisError, RedisClusterException, OSError)


class StoreScript:
    """A Lua script that runs on the server by its digest. Made by `Store.script`."""

    __slots__ = ("_sha", "_store", "_text")

    def __init__(self, store: Store, text: str) -> None:
        self._store = store
        self._text = text
        # The protocol names scripts by SHA-1; nothing depends on its strength.
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(
        self, keys: Sequence[str | bytes] = (), args: Sequence[str | bytes | int | float] = ()
    ) -> Any:  # noqa: ANN401 - a script answers what it likes
        """Run it. On a Cluster all `keys` must share one hash tag.

        Raises:
            StoreFault: There was no answer in time. The script may have run all the same.
        """
        return await self._store.call(lambda client: self._run(client, (*keys, *args), len(keys)))

    async def _run(self, client: StoreClient, words: tuple[Any, ...], key_count: int) -> Any:  # noqa: ANN401
        try:
            return await client.evalsha(self._sha, key_count, *words)
        except NoScriptError:
            return await client.eval(self._text, key_count, *words)


class Store:
    """One store. Made by `open_store`; close it with `close()`.

    Attributes:
        client: The client itself, for what `call` cannot do; it raises the library's own errors.
        shown_url: The URL without its password.
        is_cluster: Whether keys of one script must share a hash tag.
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
        self._breaker = Breaker(options.breaker_failures, options.breaker_pause_s)
        self._slots = asyncio.Semaphore(options.max_connections)
        self._running: set[asyncio.Task[Any]] = set()
        self._given_up: set[asyncio.Task[Any] | None] = set()
        self._prober: asyncio.Task[None] | None = None
        self._is_closed = False
        self.client: StoreClient = clients.commands
        self.shown_url = address.shown
        self.is_cluster = address.shape is StoreShape.CLUSTER

    @property
    def is_available(self) -> bool:
        """Whether calls go out: the store answered lately and this gateway is not closing it."""
        return self._breaker.is_closed and not self._is_closed

    @property
    def url(self) -> str | None:
        """Where other processes find the embedded server that this store started; None without one."""
        return self._server.url if self._server is not None else None

    async def call(
        self, command: Callable[[StoreClient], Awaitable[T]], *, timeout_s: float | None = None
    ) -> T:
        """Run one command: `await store.call(lambda client: client.get(key))`.

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
        if self._is_closed:
            raise StoreFault("the store is closed", StoreTrouble.CLOSED)
        if not self._breaker.is_closed:
            raise StoreFault(f"the store at {self.shown_url} does not answer; not asking", StoreTrouble.OPEN)
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

    def script(self, text: str) -> StoreScript:
        """Make a Lua script callable. Nothing is sent before its first run."""
        return StoreScript(self, text)

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
        await self.call(_ping, timeout_s=self._options.connect_timeout_s)

    async def close(self) -> None:
        """Finish what runs, close all connections, end the embedded server. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.wait((self._prober,))
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._options.connect_timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        with contextlib.suppress(*_AWAY):
            await self._clients.aclose()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Store {self.shown_url} {self._breaker!r}>"

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
        except _NOT_NOW as exc:
            self._failed(type(exc).__name__)
            raise StoreFault(
                f"the store at {self.shown_url} cannot serve now: {exc}", StoreTrouble.AWAY
            ) from exc
        except ResponseError as exc:
            self._succeeded()
            raise StoreFault(f"the store at {self.shown_url} refused: {exc}", StoreTrouble.REJECTED) from exc
        except _AWAY as exc:
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
        if self._breaker.is_closed and asyncio.current_task() not in self._given_up:
            self._breaker.succeeded()

    def _failed(self, why: str) -> None:
        if asyncio.current_task() in self._given_up:
            return
        if self._breaker.failed(asyncio.get_running_loop().time()) and not self._is_closed:
            _log.warning("store_lost", store=self.shown_url, why=why)
            self._observer.available(is_available=False)
            self._prober = asyncio.get_running_loop().create_task(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        """The half-open state: one probe per pause, on nobody's time, until the store answers."""
        loop = asyncio.get_running_loop()
        while not self._breaker.is_closed:
            await asyncio.sleep(self._breaker.seconds_to_probe(loop.time()))
            if not self._breaker.may_probe(loop.time()):
                continue
            try:
                async with asyncio.timeout(self._options.connect_timeout_s):
                    await _ping(self.client)
            except (*_AWAY, TimeoutError):
                self._breaker.failed(loop.time())
            else:
                self._breaker.succeeded()
                _log.info("store_back", store=self.shown_url)
                self._observer.available(is_available=True)


async def open_store(options: StoreOptions, observer: StoreObserver | None = None) -> Store:
    """Connect to the store, starting the embedded server if that is configured.

    Args:
        options: See `StoreOptions`.
        observer: Told of every call; nobody by default.

    Raises:
        StoreFault: The URL is wrong, or nothing answers there within `open_timeout_s`. The message names
            the URL without its password.
    """
    try:
        address = parse(options.url)
    except ValueError as exc:
        raise StoreFault(str(exc), StoreTrouble.REJECTED) from None
    server: EmbeddedServer | None = None
    if address.shape is StoreShape.EMBEDDED:
        directory = Path(options.directory) if options.directory else None
        server = EmbeddedServer(directory, persist=options.persist, restarts=True)
        await asyncio.to_thread(server.start)
        address = parse(server.url)
    store = Store(build(address, options), address, options, server, observer)
    try:
        await _first_answer(store, options.open_timeout_s)
    except BaseException:
        await store.close()
        raise
    if observer is not None:
        observer.available(is_available=True)
    return store


async def _first_answer(store: Store, patience_s: float) -> None:
    """Wait for a store that may still be starting beside us."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                await _ping(store.client)
        except (*_AWAY, TimeoutError) as exc:
            if asyncio.get_running_loop().time() + 0.1 >= deadline or not _may_pass(exc):
                why = _why(exc)
                raise StoreFault(
                    f"cannot reach the store at {store.shown_url}: {why}", StoreTrouble.AWAY
                ) from exc
            await asyncio.sleep(0.1)
        else:
            return


def _may_pass(exc: Exception) -> bool:
    """Whether waiting may help: a wrong password stays wrong."""
    return not isinstance(exc, ResponseError) or isinstance(exc, _NOT_NOW)


def _why(exc: Exception) -> str:
    """The failure in one sentence; what the library says of Sentinels would fill a screen."""
    if isinstance(exc, MasterNotFoundError):
        return "no Sentinel answers that names the primary"
    return str(exc)[:200] or "no answer in time"


def _ping(client: StoreClient) -> Awaitable[Any]:
    return cast("Awaitable[Any]", client.ping())
