"""Credentials other than the configured keys: children, minted keys, end users, integrations."""

from __future__ import annotations

import pytest

from .conftest import Api


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RunAs-User-ID": "user_kid"},
        {"x-runas-userid": "user_kid"},
        {"X-RunAs-Child-User-Email": "kid@acme.example"},
        {"X-RunAs-User-ID": "user_kid", "X-RunAs-Child-User-Email": "nobody@acme.example"},
    ],
)
async def test_an_account_acts_as_its_child(api: Api, headers: dict[str, str]) -> None:
    mine, kids = await api.make("bot"), await api.make("bot", headers=headers)
    assert (await api.get(f"/v1/bot/{kids}/fetch"))[0] == 403
    assert (await api.get(f"/v1/bot/{mine}/fetch", headers=headers))[0] == 403
    assert [bot["id"] for bot in (await api.get("/v1/bot/list", headers=headers))[1]["items"]] == [kids]


async def test_a_child_of_another_account_is_a_stranger(api: Api) -> None:
    assert (await api.get("/v1/bot/list", key="sk-globex", headers={"X-RunAs-User-ID": "user_kid"}))[0] == 401


@pytest.mark.parametrize("kind", ["partner/user", "user"])
async def test_a_minted_key_works_until_it_is_deleted(api: Api, kind: str) -> None:
    user = await api.make(kind, {"email": "new@acme.example"})
    _, made = await api.post(f"/v1/{kind}/{user}/token/create", {"name": "t"})
    assert set(made) == {"id", "token", "createdAt"}
    bot = await api.make("bot", key=made["token"])
    as_user = {"X-RunAs-Child-User-Email": "new@acme.example"}
    assert (await api.get(f"/v1/bot/{bot}/fetch", headers=as_user))[0] == 200
    _, page = await api.get(f"/v1/{kind}/{user}/token/list")
    assert made["token"] not in str(page)
    await api.post(f"/v1/{kind}/{user}/token/{made['id']}/delete")
    assert (await api.get("/v1/bot/list", key=made["token"]))[0] == 401


async def test_a_user_session_acts_as_the_child(api: Api) -> None:
    _, session = await api.post("/v1/partner/user/user_kid/session/create")
    await api.make("bot", key=session["token"])
    _, page = await api.get("/v1/bot/list", headers={"X-RunAs-User-ID": "user_kid"})
    assert len(page["items"]) == 1


async def test_an_end_user_reaches_one_conversation_and_no_more(api: Api) -> None:
    bot = await api.make("bot", {"name": "b"})
    _, session = await api.post(f"/v1/bot/{bot}/session/create")
    talk, token = session["conversationId"], session["token"]
    assert token.count(".") == 2
    assert (await api.get(f"/v1/conversation/{talk}/fetch"))[1]["botId"] == bot
    assert (await api.post(f"/v1/conversation/{talk}/complete", {"text": "hi"}, key=token))[0] == 200
    other = await api.make("conversation")
    for method, path, body in (
        ("POST", f"/v1/conversation/{other}/complete", {"text": "hi"}),
        ("POST", f"/v1/conversation/{talk}/update", {"name": "x"}),
        ("POST", f"/v1/conversation/{talk}/delete", {}),
        ("POST", "/v1/conversation/complete", {"messages": []}),
        ("GET", f"/v1/conversation/{talk}/fetch", None),
        ("GET", "/v1/bot/list", None),
    ):
        status, _, _ = await api.raw(method, path, key=token, json=body)
        assert status == 401, path


async def test_a_session_ends(api: Api) -> None:
    talk = await api.make("conversation")
    caller = api.sandbox.world.accounts.identify({"Authorization": "Bearer sk-acme"}, None)
    token, _ = api.sandbox.world.accounts.mint_session(caller, "acme", -1, talk)
    assert (await api.post(f"/v1/conversation/{talk}/complete", {"text": "hi"}, key=token))[0] == 401


async def test_a_public_bot_opens_a_session_to_strangers(api: Api) -> None:
    public = await api.make("bot", {"visibility": "public"})
    private = await api.make("bot")
    assert (await api.post(f"/v1/bot/{public}/session/create", key=None))[0] == 200
    assert (await api.post(f"/v1/bot/{private}/session/create", key=None))[0] == 401


async def test_a_skill_server_has_a_key_of_its_own(api: Api) -> None:
    skillset = await api.make("skillset")
    await api.make(f"skillset/{skillset}/ability", {"name": "wave", "description": "Waves."})
    server = await api.make("integration/skillserver", {"name": "S", "skillsetId": skillset})
    row = api.sandbox.world.store.get(server)
    assert row is not None
    assert "accessToken" not in row.view
    path, token = f"/v1/integration/skillserver/{server}/invoke", row.body["accessToken"]
    status, headers, manual = await api.raw("GET", path, key=token)
    assert status == 200
    assert headers["Content-Type"].startswith("text/markdown")
    assert b"wave: Waves." in manual
    assert (await api.post(path, {"name": "wave", "input": "x"}, key=token))[0] == 200
    assert (await api.raw("GET", path, key=None))[0] == 401
    assert (await api.get("/v1/bot/list", key=token))[0] == 401


async def test_a_trigger_shows_its_secret_and_takes_it(api: Api) -> None:
    trigger = await api.make("integration/trigger", {"name": "T"})
    _, fetched = await api.get(f"/v1/integration/trigger/{trigger}/fetch")
    path = f"/v1/integration/trigger/{trigger}/event"
    assert (await api.post(path, {}, key=fetched["secret"]))[0] == 200
    assert (await api.post(path, {}, key="wrong"))[0] == 401
    assert (await api.get(f"/v1/integration/trigger/{trigger}/fetch"))[1]["lastTriggerAt"] is not None


@pytest.mark.parametrize("view", ["secret", "contact/{contact}/secret"])
async def test_a_secret_is_verified_minted_and_revoked(api: Api, view: str) -> None:
    contact = await api.make("contact")
    secret = await api.make("secret", {"kind": "personal", "value": "hunter2"})
    base = f"/v1/{view.format(contact=contact)}/{secret}"
    assert (await api.post(f"{base}/verify"))[1]["status"] == "authenticated"
    assert (await api.post(f"{base}/mint"))[1]["token"].startswith("minted-")
    status, headers, _ = await api.raw("POST", f"{base}/proxy", json={"url": "https://x.example"})
    assert (status, headers["X-Third-Party"]) == (203, "yes")
    assert (await api.post(f"{base}/revoke"))[0] == 200
    _, verdict = await api.post(f"{base}/verify")
    assert verdict["status"] == "unauthenticated"
    assert verdict["action"]["url"].startswith("http")
    _, page = await api.get(f"/v1/contact/{contact}/secret/list")
    assert [row["id"] for row in page["items"]] == [secret]


async def test_no_answer_of_a_secret_holds_its_value(api: Api) -> None:
    secret = await api.make("secret", {"value": "hunter2"})
    await api.post(f"/v1/secret/{secret}/update", {"value": "********"})
    for path in (f"/v1/secret/{secret}/fetch", "/v1/secret/list", "/v1/event/log/list"):
        assert "hunter2" not in str((await api.get(path))[1])
    row = api.sandbox.world.store.get(secret)
    assert row is not None
    assert row.body["value"] == "hunter2"
