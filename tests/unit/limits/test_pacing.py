"""Waiting in line: bounded, in order, and nobody beyond their patience."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from cbk_gateway.limits.pacing import Pacer


@dataclass
class Refused:
    wait_s: float


@pytest.mark.parametrize(
    ("wait_s", "patience_s", "may"),
    [(0.1, 0.25, True), (0.3, 0.25, False), (0.25, 0.25, True), (0.0, 0.25, False)],
)
def test_only_who_can_hope_for_a_token_in_time_waits(wait_s: float, patience_s: float, may: bool) -> None:
    assert Pacer(4).may_wait("acme", Refused(wait_s), patience_s) == may


async def test_turns_come_in_order_and_one_at_a_time() -> None:
    pacer, order, inside = Pacer(8), [], 0

    async def one(number: int) -> None:
        nonlocal inside
        async with pacer.turn("acme", 5.0) as has_turn:
            assert has_turn
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            order.append(number)
            inside -= 1

    await asyncio.gather(*(one(number) for number in range(8)))
    assert order == list(range(8))
    assert not pacer.has_queue("acme")


async def test_a_full_line_takes_nobody_and_other_tenants_have_their_own() -> None:
    pacer = Pacer(1)
    async with pacer.turn("acme", 5.0) as first:
        async with pacer.turn("acme", 5.0) as second, pacer.turn("globex", 5.0) as other:
            assert (first, second, other) == (True, False, True)
        assert pacer.length("acme") == 1
    assert pacer.length("acme") == 0


async def test_patience_ends_and_who_left_is_in_nobodys_way() -> None:
    pacer = Pacer(4)
    async with pacer.turn("acme", 5.0):
        async with pacer.turn("acme", 0.0) as has_turn:
            assert not has_turn
        waiting = asyncio.create_task(_take(pacer))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pacer.length("acme") == 1
    async with pacer.turn("acme", 0.0) as has_turn:
        assert has_turn


async def _take(pacer: Pacer) -> None:
    async with pacer.turn("acme", 5.0):
        pass
