"""The `openai` package, as its users write it, at the OpenAI-style endpoint of either door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from cbk_gateway.parties import Rate, TenantLimits
from cbk_gateway.store import Store
from dropin.doors import Door, arrived, until
from harness import running, tenant

pytestmark = pytest.mark.dropin

MODEL = "model/name=sandbox-echo"
SAID = "héllo 世界 🌍"
ASKED: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": SAID}]},
]


def _url(base: str) -> str:
    return f"{base}/api/v1/openai"


@pytest.fixture
async def client(door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=door.secret(), base_url=_url(door.url), max_retries=0, timeout=30
    ) as one:
        yield one


async def test_a_completion_is_understood(door: Door, client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=ASKED)
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.choices[0].message.content or "").endswith(SAID)
    assert completion.usage is not None
    assert (
        completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    )
    (record,) = arrived(door.stage)
    assert record.path == "/api/v1/openai/chat/completions"
    assert isinstance(record.body, dict)
    assert record.body["messages"] == ASKED


async def test_a_stream_is_understood(door: Door, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).endswith(SAID)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    arrived(door.stage)


async def test_the_packages_own_stream_reader_is_content(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model=MODEL, messages=ASKED) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert kinds.count("content.delta") > 3
    assert (final.choices[0].message.content or "").endswith(SAID)


async def test_a_bot_is_a_model(door: Door, client: openai.AsyncOpenAI) -> None:
    plain = client.with_options(base_url=f"{door.url}/api/v1")
    made = await plain.post("/bot/create", cast_to=object, body={"name": "Ada"})
    assert isinstance(made, dict)
    completion = await client.chat.completions.create(model=f"bot/id={made['id']}", messages=ASKED)
    assert (completion.choices[0].message.content or "").endswith(SAID)
    assert [record.path for record in arrived(door.stage)] == [
        "/api/v1/bot/create",
        "/api/v1/openai/chat/completions",
    ]


async def test_the_synchronous_client_works_too(door: Door) -> None:
    def talk() -> tuple[str, str]:
        with openai.OpenAI(api_key=door.secret(), base_url=_url(door.url), max_retries=0, timeout=30) as one:
            whole = one.chat.completions.create(model=MODEL, messages=ASKED)
            stream = one.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return whole.choices[0].message.content or "", streamed

    whole, streamed = await asyncio.to_thread(talk)
    assert whole == streamed
    assert whole.endswith(SAID)
    assert len(arrived(door.stage)) == 2


async def test_a_first_chunk_comes_before_the_end(door: Door, client: openai.AsyncOpenAI) -> None:
    door.stage.sandbox.add_fault("*/openai/*", "silence")
    stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
    first = await anext(aiter(stream))
    assert first.choices[0].delta.role == "assistant"
    (record,) = arrived(door.stage)
    assert record.outcome == "pending"
    await stream.close()
    await until(lambda: record.outcome == "disconnected")


async def test_the_apis_refusals_are_the_packages_own_errors(door: Door, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Unsupported model selector") as refused:
        await client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert refused.value.code == "BAD_REQUEST"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("none")
    arrived(door.stage)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, openai.APIStatusError),
        (403, openai.PermissionDeniedError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_a_status_of_the_api_is_the_packages_own_error(
    door: Door, client: openai.AsyncOpenAI, status: int, error: type[openai.APIStatusError], is_stream: bool
) -> None:
    told = {"status": status, "message": f"Told {status}", "code": "A_CODE"}
    door.stage.sandbox.add_fault("*/openai/*", "status", value=told)
    with pytest.raises(error, match=f"Told {status}") as refused:
        await client.chat.completions.create(model=MODEL, messages=ASKED, stream=is_stream)
    assert (refused.value.status_code, refused.value.code) == (status, "A_CODE")


async def test_a_failure_in_a_stream_is_raised(client: openai.AsyncOpenAI) -> None:
    fails: list[ChatCompletionMessageParam] = [{"role": "user", "content": "!error"}]
    stream = await client.chat.completions.create(model=MODEL, messages=fails, stream=True)
    with pytest.raises(openai.APIError, match="The model failed"):
        async for _ in stream:
            pass


async def test_a_cut_stream_does_not_end_well(door: Door, client: openai.AsyncOpenAI) -> None:
    door.stage.sandbox.add_fault("*/openai/*", "truncate_stream", value=3)
    stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
    # Which class it is differs between releases of the package and of the HTTP library below it.
    with pytest.raises(Exception, match=r"(?i)connection error|incomplete|peer closed|broke off"):
        async for _ in stream:
            pass


async def test_the_gateways_refusals_are_the_packages_own_errors(gateway: Door) -> None:
    url = _url(gateway.url)
    async with openai.AsyncOpenAI(api_key="sk-nobody", base_url=url, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await client.chat.completions.create(model=MODEL, messages=ASKED)
        assert unknown.value.code == "NOT_AUTHENTICATED"
        async with client.with_options(api_key=gateway.secret("globex")) as reader:
            with pytest.raises(openai.PermissionDeniedError, match="scope") as refused:
                await reader.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        assert refused.value.code == "NOT_AUTHORIZED"
    assert gateway.stage.sandbox.requests == []


async def test_the_package_waits_as_long_as_the_gateway_says(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    """It honours `Retry-After`: with retries, a rate that refills soon is never noticed."""
    slow = tenant("acme", limits=TenantLimits(rates=(Rate("tenant", 1 / 3, 1),), costs={"model": 1}))
    async with (
        running(tmp_path, valkey_url, tenants=(slow,)) as stage,
        openai.AsyncOpenAI(api_key=stage.token(), base_url=_url(stage.url), max_retries=0) as client,
    ):
        await client.chat.completions.create(model=MODEL, messages=ASKED)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model=MODEL, messages=ASKED)
        assert refused.value.code == "TOO_MANY_REQUESTS"
        assert refused.value.response.headers["retry-after"] in {"1", "2", "3"}
        patient = client.with_options(max_retries=5)
        await patient.chat.completions.create(model=MODEL, messages=ASKED)
        assert len(arrived(stage)) == 2
