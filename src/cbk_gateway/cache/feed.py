"""The subscription on which a worker hears the others: the connection, its loss, and the answers sent back.

Knows nothing of what the messages mean for the cache; `membership.py` does, and holds the proof that rests on
this module's one promise: messages are handed on in the order in which they were published, and any break in
that is reported before anything else is handed on.

Messages, on the common channel: `I [writer, number, account, types]` (these are old), `F digest` (a fetch
ended). On a worker's own: `B number` (its own beat), `A [worker, numbers]` (answers to its announcements).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final, Protocol

import orjson
import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisClusterException, RedisError

from cbk_gateway.cache.shelf import FEED, script
from cbk_gateway.store import Store, StoreFault

_log = structlog.get_logger(__name__)

_BROKEN: Final = (RedisError, RedisClusterException, OSError, TimeoutError)
# A message of a gateway that speaks otherwise: what it said is missed, as if the feed had been cut.
_UNREADABLE: Final = (ValueError, TypeError)


class FeedListener(Protocol):
    """Who is told what the feed brings. None of these may wait."""

    def feed_ready(self) -> None:
        """Both channels are subscribed to; whatever is published from now on comes."""

    def feed_lost(self) -> None:
        """Messages may have been missed."""

    def heard(self, kind: bytes, text: bytes) -> None:
        """A message: its letter and the rest."""


def channel_of(worker: str) -> str:
    """The channel on which only this worker is told things."""
    return f"cbkgw:cache:to:{worker}"


class Feed:
    """One worker's ear and voice.

    Args:
        store: The store.
        me: This worker's name.
        listener: Whom to tell.
        patience_s: Seconds of silence after which the connection counts as dead. Beats are more frequent.
    """

    def __init__(self, store: Store, me: str, listener: FeedListener, patience_s: float) -> None:
        self._store = store
        self._me = me
        self._listener = listener
        self._patience_s = patience_s
        self._answers: dict[str, list[int]] = {}
        self._has_answers = asyncio.Event()
        self._say = script(store, "say", prelude=None)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen, now and again after every loss."""
        loop = asyncio.get_running_loop()
        for work in (self._listen_forever(), self._answer_forever()):
            self._tasks.append(loop.create_task(work))

    async def stop(self) -> None:
        """Stop listening."""
        await end(self._tasks)
        self._tasks.clear()

    def answer(self, writer: str, number: int) -> None:
        """Tell a writer that its announcement was obeyed. Answers to one writer travel together."""
        self._answers.setdefault(writer, []).append(number)
        self._has_answers.set()

    async def _listen_forever(self) -> None:
        while True:
            pubsub = self._store.pubsub()
            try:
                await self._listen(pubsub)
            except (*_BROKEN, *_UNREADABLE) as exc:
                _log.warning("cache_feed_lost", why=type(exc).__name__)
            finally:
                self._listener.feed_lost()
                with contextlib.suppress(*_BROKEN):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # untyped in the client library
            await asyncio.sleep(self._patience_s / 8)

    async def _listen(self, pubsub: PubSub) -> None:
        await pubsub.subscribe(FEED, channel_of(self._me))
        confirmed = 0
        clock = asyncio.get_running_loop().time
        last_word = clock()
        while True:
            message = await pubsub.get_message(timeout=self._patience_s / 4)
            if message is None:
                # Our own beats come this way: silence for so long means a connection that is dead.
                if clock() - last_word > self._patience_s:
                    raise TimeoutError("no beat came back")
                continue
            last_word = clock()
            if message["type"] == "subscribe":
                confirmed += 1
                if confirmed == 2:
                    self._listener.feed_ready()
            elif message["type"] == "message":
                kind, _, text = message["data"].partition(b" ")
                self._listener.heard(kind, text)

    async def _answer_forever(self) -> None:
        while True:
            await self._has_answers.wait()
            self._has_answers.clear()
            answers, self._answers = self._answers, {}
            words: list[str | bytes] = []
            for writer, numbers in answers.items():
                words += (channel_of(writer), b"A " + orjson.dumps([self._me, numbers]))
            # Without our answer the writer waits for the end of our lease.
            with contextlib.suppress(StoreFault):
                await self._say(keys=(FEED,), args=words)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    More than once: the client library turns a cancellation into an error of its own when it comes while a
    connection breaks.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event comes within a time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
