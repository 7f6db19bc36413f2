"""The official SDK on resources: what it creates, changes, lists and deletes, through either door."""

from __future__ import annotations

import pytest

from dropin import scripts
from dropin.doors import Door, Way, arrived, key_of
from harness import Stage

pytestmark = [pytest.mark.dropin, pytest.mark.node, pytest.mark.usefixtures("sdk")]

PARENTS = 6
CALLS_PER_TYPE = 9


async def test_every_type_lives_its_whole_life(door: Door) -> None:
    lives = await scripts.run("crud", door.url, door.secret())
    assert len(lives) >= 30
    records = arrived(door.stage)
    assert len(records) == PARENTS + CALLS_PER_TYPE * len(lives)
    for life in lives.values():
        own = [record for record in records if f"/{life['id']}/" in record.path]
        assert [record.path.rpartition("/")[2] for record in own] == [
            "fetch",
            "update",
            "fetch",
            "delete",
            "fetch",
        ]


async def test_lists_are_walked_to_their_end(door: Door) -> None:
    await scripts.run("pages", door.url, door.secret())
    queries = [record.query for record in arrived(door.stage) if record.path.endswith("/list")]
    # The walk's first page, its filters and its escapes, byte for byte as the SDK wrote them.
    assert "take=25" in queries
    assert "meta.half=true&meta.tier=iron" in queries
    assert "meta.odd=a+b%26c%3D%C3%BC%2F%2B1" in queries
    assert [query for query in queries if query.startswith("take=25&cursor=contact_")]


async def test_many_calls_at_once_do_not_get_mixed_up(door: Door) -> None:
    await scripts.run("parallel", door.url, door.secret())
    records = arrived(door.stage)
    assert {record.outcome for record in records} == {"answered"}
    fetches = [record for record in records if record.path.endswith("/fetch")]
    lists = [record for record in records if record.path.endswith("/list")]
    if door.is_gateway:
        # Thirty bots were fetched twice each at the same time, and the list asked for by 25.
        assert len(fetches) < 30 * 2
        assert len(lists) < 25
    else:
        assert len(lists) == 25 + 1


async def test_the_sdk_sees_through_the_gateway_what_it_sees_directly(stage: Stage) -> None:
    """Every value it can read is the same: on a first look, on a second that is remembered, and directly."""
    direct, gateway = Door(Way.DIRECT, stage), Door(Way.GATEWAY, stage)
    given = await _some_resources(direct)
    seen_directly = await scripts.run("sameness", direct.url, direct.secret(), given)
    stage.sandbox.clear_requests()
    token = gateway.secret()
    assert await scripts.run("sameness", gateway.url, token, given) == seen_directly
    asked_once = len(stage.sandbox.requests)
    assert await scripts.run("sameness", gateway.url, token, given) == seen_directly
    assert len(arrived(stage)) - asked_once < asked_once


async def _some_resources(door: Door) -> dict[str, str]:
    """A few resources to look at, made past the gateway."""
    url, key = door.url, door.secret()
    bots = [
        {"name": f"Bot {index}", "meta": {"tier": "gold" if index % 2 else "iron"}, "alias": f"bot-{index}"}
        for index in range(5)
    ]
    said = [{"type": "user", "text": "Hello"}, {"type": "bot", "text": "Hi"}]
    secret = {"name": "Key", "type": "plain", "value": "hidden"}
    outcomes = await scripts.calls(
        url,
        key,
        *({"call": "bot.create", "args": [bot]} for bot in bots),
        {"call": "secret.create", "args": [secret]},
        {"call": "bot.create", "args": [{"name": "ü 世界"}]},
        {"call": "dataset.create", "args": [{"name": "Facts"}]},
        {"call": "conversation.create", "args": [{"messages": said}]},
        {"call": "file.create", "args": [{"name": "File"}]},
    )
    ids = [outcome["value"]["id"] for outcome in outcomes]
    made = dict(zip(("bot", "dataset", "conversation", "file"), ids[-4:], strict=True))
    texts = ("She likes tea", 'He said "no", twice\n', "世界")
    content = {"record": {"file": "data:text/plain;base64,AAEC/w=="}}
    *records, _ = await scripts.calls(
        url,
        key,
        *({"call": "dataset.record.create", "args": [made["dataset"], {"text": text}]} for text in texts),
        {"call": "clientFetch", "args": [f"/api/v1/file/{made['file']}/upload", content]},
    )
    return {**made, "record": records[-1]["value"]["id"]}


async def test_cached_reads_do_not_reach_the_api(gateway: Door) -> None:
    """The SDK sends `Cache-Control: max-age=0` with every call; obeying it would mean no hit ever."""
    token = gateway.secret()
    bot = await scripts.value(gateway.url, token, "bot.create", {"name": "Ada"})
    gateway.stage.sandbox.clear_requests()
    looks = [{"call": "bot.fetch", "args": [bot["id"]]}, {"call": "bot.list", "args": [{"take": 5}]}] * 3
    outcomes = await scripts.calls(gateway.url, token, *looks)
    assert outcomes[0::2] == [outcomes[0]] * 3
    assert outcomes[1::2] == [outcomes[1]] * 3
    assert [record.path.rpartition("/")[2] for record in arrived(gateway.stage)] == ["fetch", "list"]

    await scripts.value(gateway.url, token, "bot.update", bot["id"], {"name": "Grace"})
    fresh = await scripts.calls(gateway.url, token, *looks[:2])
    assert fresh[0]["value"]["name"] == "Grace"
    assert fresh[1]["value"]["items"][0]["name"] == "Grace"
    assert len(arrived(gateway.stage)) == 2 + 1 + 2


async def test_what_has_no_life_of_its_own_answers_too(door: Door) -> None:
    """Lists of the platform, usage, reports, events: calls of the SDK outside the usual five."""
    wanted: list[dict[str, object]] = [
        {"call": "platform.model.list"},
        {"call": "platform.example.list"},
        {"call": "platform.doc.search", "args": [{"search": "bots"}]},
        {"call": "platform.report.generate", "args": ["usage", {}]},
        {"call": "magic.generate", "args": ["magic-title", {"text": "Hello"}]},
        {"call": "usage.fetch"},
        {"call": "usage.series.fetch"},
        {"call": "team.list"},
        {"call": "event.log.list"},
        {"call": "contact.ensure", "args": [{"fingerprint": "a-fingerprint", "name": "Ada"}]},
    ]
    outcomes = await scripts.calls(door.url, door.secret(), *wanted)
    assert [
        one["call"] for one, outcome in zip(wanted, outcomes, strict=True) if "value" not in outcome
    ] == []
    assert outcomes[0]["value"]["items"][0]["id"] == "sandbox-echo"
    assert outcomes[5]["value"]["tokens"] > 0
    assert len(arrived(door.stage)) == len(wanted)


async def test_secrets_are_fetched_anew_each_time(gateway: Door) -> None:
    token = gateway.secret()
    made = {"name": "Key", "type": "plain", "value": "hidden"}
    secret = await scripts.value(gateway.url, token, "secret.create", made)
    look = {"call": "secret.fetch", "args": [secret["id"]]}
    outcomes = await scripts.calls(gateway.url, token, look, look)
    assert [outcome["value"]["value"] for outcome in outcomes] == ["********"] * 2
    assert len(arrived(gateway.stage)) == 3


async def test_tenants_of_different_accounts_see_their_own(gateway: Door) -> None:
    for tenant in ("acme", "partner"):
        await scripts.value(gateway.url, gateway.secret(tenant), "bot.create", {"name": f"Of {tenant}"})
    for tenant in ("acme", "partner", "acme", "partner"):
        seen = await scripts.value(gateway.url, gateway.secret(tenant), "bot.list")
        assert [bot["name"] for bot in seen["items"]] == [f"Of {tenant}"]
    keys = [record.headers["authorization"] for record in gateway.stage.sandbox.requests]
    assert keys == [f"Bearer {key_of(name)}" for name in ("acme", "partner", "acme", "partner")]
