"""The sandbox driven by a client that nobody here wrote: the `openai` package, as the API invites it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from cbk_gateway.sandbox import Sandbox

ASKED: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "héllo 世界"}]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox({"sk-acme": "acme"}) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="sk-acme", base_url=f"{sandbox.url}/api/v1/openai", max_retries=0
    ) as one:
        yield one


async def test_a_completion_is_understood(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="model/name=sandbox-echo", messages=ASKED)
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.choices[0].message.content or "").endswith("héllo 世界")
    assert completion.usage is not None
    assert completion.usage.total_tokens > 0


async def test_a_stream_is_understood(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="model/name=sandbox-echo", messages=ASKED, stream=True
    )
    chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said.endswith("héllo 世界")
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_refusals_become_the_packages_own_errors(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Unsupported model selector") as refused:
        await client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert refused.value.code == "BAD_REQUEST"
    sandbox.add_fault("*/openai/*", "rate_limited", times=1)
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="model/name=sandbox-echo", messages=ASKED)
    async with client.with_options(api_key="sk-wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="model/name=sandbox-echo", messages=ASKED)


async def test_a_failure_in_a_stream_is_raised(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="model/name=sandbox-echo", messages=[{"role": "user", "content": "!error"}], stream=True
    )
    with pytest.raises(openai.APIError, match="The model failed"):
        async for _ in stream:
            pass
