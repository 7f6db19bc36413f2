"""Places and turns: bounded, fair, and never lost."""

from __future__ import annotations

import asyncio

import pytest

from cbk_gateway.upstream import Cause, UpstreamFault
from cbk_gateway.upstream.concurrency import FixedBound
from cbk_gateway.upstream.queueing import FairQueue


async def waiting(queue: FairQueue, *tenants: str) -> list[asyncio.Task[None]]:
    tasks = []
    for tenant in tenants:
        tasks.append(asyncio.create_task(queue.enter(tenant)))
        await asyncio.sleep(0)
    return tasks


async def entered(tasks: list[asyncio.Task[None]]) -> list[int]:
    for _ in range(5):
        await asyncio.sleep(0)
    return [index for index, task in enumerate(tasks) if task.done() and task.exception() is None]


async def test_tenants_take_turns_however_many_wait() -> None:
    queue = FairQueue(FixedBound(1), 100, 60)
    assert queue.try_enter()
    tasks = await waiting(queue, "big", "big", "big", "small")
    order = []
    for _ in tasks:
        queue.leave()
        order += [one for one in await entered(tasks) if one not in order]
    assert order == [0, 3, 1, 2]
    queue.leave()
    assert (queue.running, queue.waiting) == (0, 0)


async def test_nobody_overtakes_those_who_wait() -> None:
    places = FixedBound(1)
    queue = FairQueue(places, 100, 60)
    assert queue.try_enter()
    tasks = await waiting(queue, "a")
    places.value = 2
    assert not queue.try_enter()
    queue.leave()
    assert await entered(tasks) == [0]


async def test_a_full_queue_refuses_whoever_has_most_waiting() -> None:
    queue = FairQueue(FixedBound(0), 3, 60)
    tasks = await waiting(queue, "big", "big", "big")
    with pytest.raises(UpstreamFault) as refused:
        await queue.enter("big")
    assert refused.value.cause is Cause.QUEUE_FULL
    small = await waiting(queue, "small")
    with pytest.raises(UpstreamFault):
        await tasks[2]
    assert queue.waiting == 3
    for task in (*tasks, *small):
        task.cancel()
    await asyncio.gather(*tasks, *small, return_exceptions=True)
    assert queue.waiting == 0


async def test_patience_ends() -> None:
    queue = FairQueue(FixedBound(0), 3, 0.01)
    with pytest.raises(UpstreamFault) as refused:
        await queue.enter("a")
    assert refused.value.cause is Cause.QUEUE_TIMEOUT
    assert queue.waiting == 0


async def test_a_place_given_to_one_who_left_goes_to_the_next() -> None:
    queue = FairQueue(FixedBound(1), 100, 60)
    assert queue.try_enter()
    tasks = await waiting(queue, "a", "b")
    queue.leave()
    tasks[0].cancel()
    assert await entered(tasks[1:]) == [0]
    await asyncio.gather(*tasks, return_exceptions=True)
    queue.leave()
    assert (queue.running, queue.waiting) == (0, 0)
