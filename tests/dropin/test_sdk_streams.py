"""The official SDK on streams: model runs, channels, and what happens when a client leaves one."""

from __future__ import annotations

import pytest

from dropin import scripts
from dropin.doors import Door, arrived, until

pytestmark = [pytest.mark.dropin, pytest.mark.node, pytest.mark.usefixtures("sdk")]


async def test_model_runs_are_streamed_and_awaited(door: Door) -> None:
    await scripts.run("streams", door.url, door.secret())
    records = arrived(door.stage)
    streamed = [record for record in records if record.headers.get("accept") == "application/jsonl"]
    assert len(streamed) >= 6
    assert {record.outcome for record in records} == {"answered"}


async def test_an_event_is_passed_on_before_the_stream_ends(door: Door) -> None:
    """The stream falls silent for ever after its first event: the SDK has it all the same, and leaves."""
    door.stage.sandbox.add_fault("/v1/conversation/complete", "silence")
    seen = await scripts.run("leaving", door.url, door.secret())
    (first,) = seen.values()
    assert first["type"] == "completeBegin"
    (record,) = arrived(door.stage)
    # A client that left is nobody to do paid work for.
    await until(lambda: record.outcome == "disconnected")


async def test_channels_carry_what_is_published(door: Door) -> None:
    await scripts.run("channels", door.url, door.secret())
    records = arrived(door.stage)
    subscriptions = [record for record in records if record.path.endswith("/subscribe")]
    assert len(subscriptions) == 3
    for record in subscriptions:
        await until(lambda record=record: record.outcome == "disconnected")  # type: ignore[misc]
    assert sum(record.path.endswith("/publish") for record in records) == 4


async def test_tenants_do_not_hear_each_others_channels(gateway: Door) -> None:
    """Awaited, a subscription gives the oldest message that is kept: each tenant's own."""
    for tenant in ("acme", "partner"):
        word = {"message": {"word": f"for {tenant} only"}}
        await scripts.value(gateway.url, gateway.secret(tenant), "channel.publish", "shared-name", word)
    for tenant in ("acme", "partner"):
        late = {"historyLength": 10}
        token = gateway.secret(tenant)
        heard = await scripts.value(gateway.url, token, "channel.subscribe", "shared-name", late)
        assert heard == {"word": f"for {tenant} only"}


async def test_graphql_reads_and_writes(door: Door) -> None:
    await scripts.run("graphql", door.url, door.secret())
    paths = {record.path for record in arrived(door.stage)}
    assert "/api/v1/graphql" in paths
