"""The official SDK acting as child accounts: by the client's choice where it may, by force where it must."""

from __future__ import annotations

from typing import Any

import pytest

from dropin import scripts
from dropin.doors import Door, arrived

pytestmark = [pytest.mark.dropin, pytest.mark.node, pytest.mark.usefixtures("sdk")]

RUN_AS = ("x-runas-user-id", "x-runas-userid", "x-runas-child-user-email")
LIST = {"call": "bot.list"}


def _asked(record: Any) -> dict[str, str]:
    return {name: record.headers[name] for name in RUN_AS if name in record.headers}


async def test_a_partner_acts_as_the_children_it_names(door: Door) -> None:
    seen = await scripts.run("run_as", door.url, door.secret("partner"))
    made = seen["each makes a bot"]
    records = arrived(door.stage, "partner")
    creates = [record for record in records if record.path.endswith("/create")]
    assert [(record.run_as, _asked(record)) for record in creates] == [
        (None, {}),
        ("user_child1", {"x-runas-user-id": "user_child1"}),
        ("user_child2", {"x-runas-child-user-email": "two@example.com"}),
    ]
    (update,) = [record for record in records if record.path.endswith("/update")]
    assert update.run_as == "user_child1"
    assert made["one"] in update.path


@pytest.mark.parametrize(
    ("tenant", "child", "header"),
    [
        ("partner-one", "user_child1", {"x-runas-user-id": "user_child1"}),
        ("partner-two", "user_child2", {"x-runas-child-user-email": "two@example.com"}),
    ],
)
async def test_a_tenant_that_is_a_child_acts_as_it_and_does_not_know(
    gateway: Door, tenant: str, child: str, header: dict[str, str]
) -> None:
    create = {"call": "bot.create", "args": [{"name": tenant}]}
    await scripts.calls(gateway.url, gateway.secret(tenant), create, LIST, LIST)
    records = arrived(gateway.stage, "partner")
    assert [(record.run_as, _asked(record)) for record in records] == [(child, header)] * 2


async def test_children_of_one_key_do_not_see_each_other(gateway: Door) -> None:
    for tenant in ("partner", "partner-one", "partner-two"):
        create = {"call": "bot.create", "args": [{"name": tenant}]}
        await scripts.calls(gateway.url, gateway.secret(tenant), create, LIST)
    for tenant in ("partner", "partner-one", "partner-two"):
        seen = await scripts.value(gateway.url, gateway.secret(tenant), "bot.list")
        assert [bot["name"] for bot in seen["items"]] == [tenant]


@pytest.mark.parametrize(
    "options", [{"runAsUserId": "user_child2"}, {"runAsChildUserEmail": "two@example.com"}]
)
@pytest.mark.parametrize("tenant", ["acme", "partner-one"])
async def test_who_may_not_choose_is_refused_before_anything_is_sent(
    gateway: Door, tenant: str, options: dict[str, str]
) -> None:
    (outcome,) = await scripts.calls(gateway.url, gateway.secret(tenant), {**LIST, "options": options})
    assert outcome["error"]["code"] == "NOT_AUTHORIZED"
    assert "account" in outcome["error"]["message"]
    assert gateway.stage.sandbox.requests == []


async def test_headers_of_a_clients_own_reach_nobody(gateway: Door) -> None:
    """The SDK sends extra headers with every call; what could change who acts must not cross."""
    headers = {
        "X-ChatBotKit-Internal-User": "root",
        "X-Forwarded-Host": "evil.example",
        "Cookie": "session=1",
    }
    (outcome,) = await scripts.calls(
        gateway.url, gateway.secret(), {**LIST, "options": {"headers": headers, "timezone": "Asia/Tokyo"}}
    )
    assert outcome["value"] == {"items": []}
    (record,) = arrived(gateway.stage)
    assert not {name.lower() for name in headers} & set(record.headers)
    assert record.headers["x-timezone"] == "Asia/Tokyo"
    assert record.headers["host"] == gateway.stage.sandbox.url.removeprefix("http://")
