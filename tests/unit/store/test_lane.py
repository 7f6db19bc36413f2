"""All of a turn of the loop in one piece, each reply to whoever asked, and nothing ever sent twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbk_gateway.store import EmbeddedServer, Store, StoreFault, StoreOptions, StoreTrouble, open_store
from cbk_gateway.store.lane import Lane


@dataclass
class Watched:
    """An observer that keeps the sizes of pipelines."""

    pipelines: list[int] = field(default_factory=list)
    answers: int = 0

    def answered(self, seconds: float) -> None:
        """A call got its answer."""
        assert seconds >= 0
        self.answers += 1

    def sent(self, commands: int) -> None:
        """A pipeline left."""
        self.pipelines.append(commands)

    def failed(self, trouble: StoreTrouble) -> None:
        """A call got none."""

    def available(self, *, is_available: bool) -> None:
        """Of no interest."""


@asynccontextmanager
async def opened(url: str, watched: Watched | None = None, **options: float) -> AsyncIterator[Store]:
    """A store that waits long, so that a busy machine fails nothing."""
    patient = {"call_timeout_s": 5.0, "connect_timeout_s": 5.0} | options
    async with await open_store(StoreOptions(url=url, **patient), watched) as store:  # type: ignore[arg-type]
        yield store


def lanes_of(store: Store) -> list[Lane]:
    """The lanes in use."""
    return list(store._lanes._lanes.values())


async def test_what_is_asked_in_one_turn_leaves_in_one_piece(valkey_url: str) -> None:
    watched = Watched()
    async with opened(valkey_url, watched) as store:
        await store.client.flushall()
        echo = store.script("return ARGV[1]")
        assert await echo([], ["warm"]) == b"warm"
        watched.pipelines, watched.answers = [], 0
        replies = await asyncio.gather(
            *(echo([], [str(n)]) for n in range(40)), *(store.ask("INCR", "n") for _ in range(40))
        )
        assert replies == [str(n).encode() for n in range(40)] + list(range(1, 41))
        assert watched.pipelines == [80]
        assert watched.answers == 80


async def test_an_error_reply_goes_to_whom_it_concerns(store: Store) -> None:
    wrong = store.script("return redis.call('NOSUCH')")
    results = await asyncio.gather(
        store.ask("SET", "k", "v"),
        wrong(),
        store.ask("LPUSH", "k", "x"),
        store.ask("GET", "k"),
        return_exceptions=True,
    )
    assert (results[0], results[3]) == (b"OK", b"v")
    for one in results[1:3]:
        assert isinstance(one, StoreFault)
        assert one.trouble is StoreTrouble.REJECTED
    assert store.is_available


@settings(max_examples=25, deadline=None)
@given(plan=st.lists(st.tuples(st.sampled_from(["ask", "script", "cancel", "turn", "wrong"]), st.booleans())))
def test_however_calls_are_mixed_each_gets_its_own_reply(
    valkey_url: str, plan: list[tuple[str, bool]]
) -> None:
    async def run() -> None:
        async with opened(valkey_url) as store:
            echo, wrong = store.script("return ARGV[1]"), store.script("return redis.error_reply('ERR no')")
            tasks: list[tuple[asyncio.Task[object], bytes | None]] = []
            for number, (what, bulky) in enumerate(plan):
                word = f"{number}-{'x' * 70_000 if bulky else ''}".encode()
                if what == "turn":
                    await asyncio.sleep(0)
                elif what == "wrong":
                    tasks.append((asyncio.create_task(wrong()), None))
                elif what == "script":
                    tasks.append((asyncio.create_task(echo([], [word])), word))
                else:
                    task = asyncio.create_task(store.ask("ECHO", word, is_bulky=bulky))
                    if what == "cancel":
                        await asyncio.sleep(0)
                        task.cancel()
                    else:
                        tasks.append((task, word))
            for task, expected in tasks:
                if expected is None:
                    with pytest.raises(StoreFault):
                        await task
                else:
                    assert await task == expected

    asyncio.run(run())


async def test_a_cancelled_callers_command_is_done_all_the_same(store: Store) -> None:
    for number in range(20):
        task = asyncio.create_task(store.ask("INCR", "given-back"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert await store.ask("GET", "given-back") == str(number + 1).encode()


async def test_what_was_given_up_before_it_left_is_never_sent() -> None:
    with EmbeddedServer() as server:
        async with opened(
            server.url, call_timeout_s=0.05, connect_timeout_s=30.0, open_timeout_s=30.0, breaker_failures=100
        ) as store:
            os.kill(server.pid, signal.SIGSTOP)
            # No connection was needed yet, and none can be made: these wait for it in vain.
            for _ in range(3):
                with pytest.raises(StoreFault) as caught:
                    await store.ask("INCR", "n")
                assert caught.value.trouble is StoreTrouble.TIMEOUT
            os.kill(server.pid, signal.SIGCONT)
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await store.ask("INCR", "n") == 1
                    except StoreFault:
                        continue
                    break


async def test_a_lost_connection_fails_what_was_sent_and_not_what_comes_next(valkey_url: str) -> None:
    async with opened(valkey_url) as store:
        await store.client.flushall()
        lane = await blocked(store)
        waiting = asyncio.create_task(store.ask("INCR", "n"))
        await turns_until(lambda: len(lane._sent) == 2)
        await store.call(lambda client: client.client_kill_filter(_type="normal", skipme=True))
        with pytest.raises(StoreFault) as caught:
            await waiting
        assert caught.value.trouble is StoreTrouble.AWAY
        # It stood behind what blocked the connection, so it was never done; the next call opens another.
        assert await store.ask("INCR", "n") == 1
        assert store.is_available


async def test_what_is_asked_while_the_connection_breaks_goes_over_the_next(valkey_url: str) -> None:
    async with opened(valkey_url) as store:
        await store.client.flushall()
        lane = await blocked(store)
        assert lane._link is not None
        lane._link.transport.abort()
        # The loop has not said so yet.
        assert await asyncio.gather(*(store.ask("INCR", "n") for _ in range(3))) == [1, 2, 3]


async def test_a_silent_connection_is_ended_and_its_late_replies_reach_nobody(valkey_url: str) -> None:
    async with opened(valkey_url, call_timeout_s=0.05, connect_timeout_s=0.3) as store:
        lane = await blocked(store)
        first = lane._link
        assert first is not None
        with pytest.raises(StoreFault) as caught:
            await store.ask("ECHO", "behind")
        assert caught.value.trouble is StoreTrouble.TIMEOUT
        await turns_until(first.transport.is_closing)
        await turns_until(lambda: not lane._sent)
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await store.ask("ECHO", "after") == b"after"
                except StoreFault:
                    await asyncio.sleep(0)
                else:
                    break


async def test_small_questions_never_wait_behind_bodies(valkey_url: str) -> None:
    async with opened(valkey_url) as store:
        small = await blocked(store)
        assert await store.ask("ECHO", "x" * 3_000_000, is_bulky=True) == b"x" * 3_000_000
        assert len(lanes_of(store)) == 2
        assert small._sent


async def test_a_deposed_primary_is_left() -> None:
    with EmbeddedServer() as server:
        async with opened(server.url) as store:
            assert await store.ask("SET", "k", "v") == b"OK"
            (lane,) = lanes_of(store)
            first = lane._link
            assert first is not None
            await store.call(lambda client: client.replicaof("127.0.0.1", "1"))
            with pytest.raises(StoreFault) as caught:
                await store.ask("SET", "k", "w")
            assert caught.value.trouble is StoreTrouble.AWAY
            assert first.transport.is_closing()
            await store.call(lambda client: client.replicaof("NO", "ONE"))
            assert await store.ask("GET", "k") == b"v"


async def test_closing_waits_for_what_was_asked(valkey_url: str) -> None:
    store = await open_store(StoreOptions(url=valkey_url, call_timeout_s=5.0, connect_timeout_s=5.0))
    asked = [asyncio.create_task(store.ask("ECHO", str(n))) for n in range(5)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*asked) == [str(n).encode() for n in range(5)]
    with pytest.raises(StoreFault) as caught:
        await store.ask("ECHO", "late")
    assert caught.value.trouble is StoreTrouble.CLOSED


async def test_what_is_no_reply_to_a_question_ends_the_connection() -> None:
    async def greet_and_babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"ECHO" not in (octets := await reader.read(65536)):
            if not octets:
                break
            # Every command of the greeting, and the probe of the start, may be answered so.
            writer.write(b"+OK\r\n" * octets.count(b"*"))
        writer.write(b"?what\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet_and_babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(f"redis://127.0.0.1:{port}", breaker_failures=100) as store:
        for _ in range(2):
            with pytest.raises(StoreFault) as caught:
                await store.ask("ECHO", "x")
            assert caught.value.trouble is StoreTrouble.AWAY


async def blocked(store: Store) -> Lane:
    """The lane of small questions, with a command under way that the server answers to nobody."""
    asking = asyncio.create_task(store.ask("BLPOP", "nothing-comes", 0))
    asking.add_done_callback(lambda task: task.cancelled() or task.exception())
    await turns_until(lambda: any(lane._sent for lane in lanes_of(store)))
    return next(lane for lane in lanes_of(store) if lane._sent)


async def turns_until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0)
