"""The store keeps its promises: bounded in time, one kind of failure, scripts that survive a flush."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from redis.asyncio import Redis

from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, Store, StoreFault, StoreOptions, StoreTrouble, open_store


async def test_a_command_gives_bytes(store: Store) -> None:
    await store.call(lambda client: client.set("k", "v"))
    assert await store.call(lambda client: client.get("k")) == b"v"
    assert store.is_available


async def test_a_script_runs_again_after_the_server_forgot_it(store: Store) -> None:
    script = store.script("return {KEYS[1], ARGV[1]}")
    assert await script(["k"], [1.5]) == [b"k", b"1.5"]
    await store.client.script_flush()
    assert await script(["k"], ["x"]) == [b"k", b"x"]


async def test_an_error_reply_is_a_fault_and_no_reason_to_stop_asking(store: Store) -> None:
    for _ in range(20):
        with pytest.raises(StoreFault) as caught:
            await store.script("return redis.call('NOSUCH')")()
        assert caught.value.trouble is StoreTrouble.REJECTED
    assert store.is_available


async def test_every_default_that_could_hold_a_request_is_set(store: Store) -> None:
    assert isinstance(store.client, Redis)
    settings = store.client.connection_pool.connection_kwargs
    assert settings["retry"].get_retries() == 0
    assert settings["retry_on_error"] == []
    assert (settings["socket_timeout"], settings["socket_connect_timeout"]) == (2.0, 2.0)
    assert (settings["protocol"], settings["decode_responses"]) == (3, False)
    assert store.client.connection_pool.max_connections == 32


async def test_many_calls_at_once_wait_for_a_connection_instead_of_failing(store: Store) -> None:
    answers = await asyncio.gather(*(store.call(lambda client: client.incr("n")) for _ in range(500)))
    assert sorted(answers) == list(range(1, 501))


async def test_a_cancelled_caller_leaves_no_reply_for_the_next(store: Store) -> None:
    echo = store.script("return ARGV[1]")
    for number in range(50):
        task = asyncio.create_task(echo([], [f"lost-{number}"]))
        await asyncio.sleep(0)
        task.cancel()
        assert await echo([], [f"kept-{number}"]) == f"kept-{number}".encode()


async def test_a_subscription_hears_what_is_published(store: Store) -> None:
    subscription = store.pubsub()
    await subscription.subscribe("channel")
    assert await subscription.get_message(timeout=5) is not None
    await store.call(lambda client: client.publish("channel", "hello"))
    message = await subscription.get_message(ignore_subscribe_messages=True, timeout=5)
    assert message is not None
    assert message["data"] == b"hello"
    await subscription.aclose()  # type: ignore[no-untyped-call]  # theirs


async def test_a_hanging_store_is_asked_no_more_and_found_again() -> None:
    with EmbeddedServer() as server:
        options = StoreOptions(url=server.url, breaker_failures=3, breaker_pause_s=0.05)
        async with await open_store(options) as store:
            await store.ping()
            os.kill(server.pid, signal.SIGSTOP)
            troubles = []
            for _ in range(10):
                with pytest.raises(StoreFault) as caught:
                    await store.call(lambda client: client.get("k"))
                troubles.append(caught.value.trouble)
            assert troubles == [StoreTrouble.TIMEOUT] * 3 + [StoreTrouble.OPEN] * 7
            os.kill(server.pid, signal.SIGCONT)
            async with asyncio.timeout(10):
                while not store.is_available:
                    await asyncio.sleep(0.01)
            await store.call(lambda client: client.get("k"), timeout_s=2)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hunter2@127.0.0.1:1/0",
        "redis+cluster://:hunter2@127.0.0.1:1",
        "redis+sentinel://:hunter2@127.0.0.1:1/main",
        "unix:///nonexistent/hunter.sock",
    ],
)
async def test_a_dead_store_at_start_is_one_error_that_names_the_url_without_password(url: str) -> None:
    options = StoreOptions(url=url, open_timeout_s=0.2, sentinel_password=Secret("hunter2"))
    with pytest.raises(StoreFault) as caught:
        await open_store(options)
    message = str(caught.value)
    assert url.split("://", maxsplit=1)[0] in message
    assert "hunter2" not in message + repr(options)
    assert len(message) < 250


async def test_a_closed_store_says_so() -> None:
    store = await open_store(StoreOptions())
    await store.close()
    await store.close()
    with pytest.raises(StoreFault) as caught:
        await store.call(lambda client: client.get("k"))
    assert caught.value.trouble is StoreTrouble.CLOSED
