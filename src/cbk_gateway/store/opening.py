"""Opening the store: the embedded server if that is configured, the clients, and a first answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from redis.exceptions import ResponseError

from cbk_gateway.store.address import StoreShape, parse
from cbk_gateway.store.clients import StoreOptions, build
from cbk_gateway.store.embedded import EmbeddedServer
from cbk_gateway.store.fault import StoreFault, StoreTrouble, why_of
from cbk_gateway.store.observer import StoreObserver
from cbk_gateway.store.store import AWAY, NOT_NOW, Store, ping


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
                await ping(store.client)
        except (*AWAY, TimeoutError) as exc:
            if asyncio.get_running_loop().time() + 0.1 >= deadline or not _may_pass(exc):
                why = why_of(exc)
                raise StoreFault(
                    f"cannot reach the store at {store.shown_url}: {why}", StoreTrouble.AWAY
                ) from exc
            await asyncio.sleep(0.1)
        else:
            return


def _may_pass(exc: Exception) -> bool:
    """Whether waiting may help: a wrong password stays wrong."""
    return not isinstance(exc, ResponseError) or isinstance(exc, NOT_NOW)
