"""The subscription: in order, whole, or reported lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest

from cbk_gateway.cache.feed import Feed, channel_of, end
from cbk_gateway.cache.shelf import FEED
from cbk_gateway.store import Store

if TYPE_CHECKING:
    from unit.cache.conftest import Scene


class Told:
    """What a listener was told, in order."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def feed_ready(self) -> None:
        self.words.append("ready")

    def feed_lost(self) -> None:
        self.words.append("lost")

    def heard(self, kind: bytes, text: bytes) -> None:
        if kind == b"X":
            raise ValueError("unknown message on the feed")
        self.words.append(f"{kind.decode()} {text.decode()}")


@asynccontextmanager
async def listening(scene: Scene, patience_s: float = 5.0) -> AsyncIterator[tuple[Feed, Told]]:
    told = Told()
    feed = Feed(scene.store, "me", told, patience_s)
    feed.start()
    try:
        await scene.eventually(lambda: told.words == ["ready"])
        yield feed, told
    finally:
        await feed.stop()


async def publish(store: Store, channel: str, *messages: str) -> None:
    for message in messages:
        await store.call(
            lambda client, message=message: cast("Awaitable[object]", client.publish(channel, message))  # type: ignore[misc]
        )


async def test_messages_of_both_channels_come_in_the_order_in_which_they_were_published(scene: Scene) -> None:
    async with listening(scene) as (_, told):
        await publish(scene.store, FEED, "I 1")
        await publish(scene.store, channel_of("me"), "B 2")
        await publish(scene.store, FEED, "I 3")
        await publish(scene.store, channel_of("other"), "B 4")
        await publish(scene.store, FEED, "I 5")
        await scene.eventually(lambda: len(told.words) == 5)
        assert told.words == ["ready", "I 1", "B 2", "I 3", "I 5"]
    assert told.words[-1] == "lost", "who does not listen any more may miss something"


@pytest.mark.parametrize("loss", ["cut", "unreadable", "silent"])
async def test_a_loss_is_reported_before_anything_else_is_handed_on(scene: Scene, loss: str) -> None:
    async with listening(scene, 0.4 if loss == "silent" else 5.0) as (_, told):
        if loss == "cut":
            await scene.store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        elif loss == "unreadable":
            await publish(scene.store, FEED, "X what")
        await scene.eventually(lambda: told.words[:3] == ["ready", "lost", "ready"])
        await publish(scene.store, FEED, "I 1")
        await scene.eventually(lambda: "I 1" in told.words)


async def test_answers_to_one_writer_travel_together(scene: Scene) -> None:
    async with listening(scene) as (feed, told):
        for number in (1, 2, 3):
            feed.answer("me", number)
        feed.answer("other", 4)
        await scene.eventually(lambda: len(told.words) == 2)
        assert told.words[1] == 'A ["me",[1,2,3]]'


async def test_answers_to_several_writers_reach_each(scene: Scene) -> None:
    async with listening(scene) as (feed, told), scene.store.pubsub() as other:
        await other.subscribe(channel_of("other"))
        feed.answer("me", 1)
        feed.answer("other", 2)
        await scene.eventually(lambda: told.words == ["ready", 'A ["me",[1]]'])
        async with asyncio.timeout(10):
            while (message := await other.get_message(timeout=1)) is None or message["type"] != "message":
                pass
        assert message["data"] == b'A ["me",[2]]'


async def test_a_task_that_swallows_its_cancellation_once_is_ended_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    task = asyncio.get_running_loop().create_task(stubborn())
    await asyncio.sleep(0)
    await end((task,))
    assert task.cancelled()
    assert swallowed == 1
