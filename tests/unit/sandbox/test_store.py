from __future__ import annotations

import pytest

from cbk_gateway.sandbox.resources import RESOURCES, references_to
from cbk_gateway.sandbox.schema import MASK
from cbk_gateway.sandbox.store import Row, Store


class Tick:
    """A clock moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Tick:
    return Tick()


@pytest.fixture
def store(clock: Tick) -> Store:
    return Store(clock)


def add(store: Store, kind: str, parent: str | None = None, **values: object) -> Row:
    return store.add("acme", kind, values, parent=parent)


def test_ids_are_unique_and_say_what_they_are(store: Store) -> None:
    made = [add(store, kind).id for kind in RESOURCES for _ in range(50)]
    assert len(set(made)) == len(made)
    assert add(store, "integration/widget").id.startswith("widget_")


def test_a_change_moves_the_time_of_update_only(store: Store, clock: Tick) -> None:
    row = add(store, "bot", name="a")
    clock.now += 5
    store.change(row, {"name": "b"})
    assert row.view == {"id": row.id, "name": "b", "createdAt": 1_000_000, "updatedAt": 1_005_000}


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("secret", "value", MASK),
        ("integration/slack", "botToken", MASK),
        ("integration/telegram", "botToken", None),
        ("integration/twilio", "authToken", None),
        ("integration/whatsapp", "accessToken", MASK),
        ("integration/notion", "token", MASK),
    ],
)
def test_credentials_are_never_shown(store: Store, kind: str, name: str, shown: str | None) -> None:
    row = add(store, kind, **{name: "hunter2"})
    assert row.view.get(name) == shown
    assert row.body[name] == "hunter2"


def test_a_mask_sent_back_keeps_the_value(store: Store) -> None:
    row = add(store, "secret", value="hunter2")
    store.change(row, {"value": MASK, "name": "n"})
    assert row.body["value"] == "hunter2"
    assert row.body["name"] == "n"


def test_only_the_client_secret_of_a_config_is_masked(store: Store) -> None:
    row = add(store, "secret", config={"clientId": "a", "clientSecret": "b"})
    assert row.view["config"] == {"clientId": "a", "clientSecret": MASK}


@pytest.mark.parametrize(
    ("parent", "nested"),
    [
        ("dataset", "dataset/record"),
        ("conversation", "conversation/message"),
        ("task", "task/execution"),
        ("partner/user", "partner/user/token"),
        ("integration/extract", "integration/extract/item"),
    ],
)
def test_what_is_nested_goes_with_its_parent(store: Store, parent: str, nested: str) -> None:
    outer, other = add(store, parent), add(store, parent)
    inner, kept = add(store, nested, outer.id), add(store, nested, other.id)
    store.remove(outer)
    assert store.get(inner.id) is None
    assert store.get(kept.id) is kept
    assert list(store.rows("acme", nested)) == [kept.id]
    assert not store.rows("acme", nested, outer.id)


@pytest.mark.parametrize(
    ("deleted", "kind", "field", "survives"),
    [
        ("bot", "conversation", "botId", True),
        ("bot", "integration/widget", "botId", True),
        ("bot", "ability", "linkedBotId", True),
        ("bot", "memory", "botId", False),
        ("bot", "policy", "botId", False),
        ("dataset", "bot", "datasetId", True),
        ("dataset", "integration/sitemap", "datasetId", True),
        ("skillset", "ability", "skillsetId", True),
        ("skillset", "integration/mcpserver", "skillsetId", True),
        ("file", "ability", "fileId", True),
        ("secret", "ability", "secretId", True),
        ("contact", "conversation", "contactId", True),
        ("contact", "rating", "contactId", True),
        ("contact", "task", "contactId", False),
        ("contact", "memory", "contactId", False),
        ("conversation", "rating", "conversationId", True),
        ("conversation/message", "rating", "messageId", False),
        ("task", "conversation", "taskId", True),
        ("space", "conversation", "spaceId", True),
        ("blueprint", "bot", "blueprintId", True),
        ("blueprint", "dataset", "blueprintId", True),
        ("bot", "unheard/of", "botId", True),
    ],
)
def test_a_deletion_removes_or_clears_what_points_at_it(
    store: Store, deleted: str, kind: str, field: str, survives: bool
) -> None:
    gone = add(store, deleted)
    pointing, other = add(store, kind, **{field: gone.id}), add(store, kind, **{field: "elsewhere"})
    store.remove(gone)
    assert (store.get(pointing.id) is not None) is survives
    if survives:
        assert pointing.body[field] is None
        assert pointing.view[field] is None
    assert other.body[field] == "elsewhere"


def test_another_account_is_untouched_by_a_deletion(store: Store) -> None:
    bot = add(store, "bot")
    foreign = store.add("globex", "conversation", {"botId": bot.id})
    store.remove(bot)
    assert foreign.body["botId"] == bot.id


def test_every_reference_of_the_table_names_a_known_type() -> None:
    for resource in RESOURCES.values():
        for name, field in (resource.fields or {}).items():
            if field.ref is not None:
                assert field.ref in RESOURCES
                assert name in references_to(field.ref), (resource.name, name)


def test_changes_are_told_in_order(store: Store) -> None:
    told: list[tuple[str, str]] = []
    store.on_change = lambda row, action: told.append((row.kind, action))
    bot = add(store, "bot")
    talk = add(store, "conversation", botId=bot.id)
    store.remove(bot)
    assert told == [
        ("bot", "create"),
        ("conversation", "create"),
        ("conversation", "update"),
        ("bot", "delete"),
    ]
    store.remove(talk)
    store.remove(talk)
    assert told[4:] == [("conversation", "delete")]
