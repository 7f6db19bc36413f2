"""Builds the world a sandbox serves: rows, accounts, contents, channels, and how they hang together.

Wiring only: what must happen elsewhere when a row changes. No request is seen here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from cbk_gateway.sandbox.accounts import CHILD_KIND, Accounts
from cbk_gateway.sandbox.blobs import Blobs
from cbk_gateway.sandbox.calls import World
from cbk_gateway.sandbox.channels import EVENT_CHANNEL, Channels
from cbk_gateway.sandbox.ledger import Ledger
from cbk_gateway.sandbox.persistence import SqliteJournal
from cbk_gateway.sandbox.resources import resource_type
from cbk_gateway.sandbox.seed import plant_examples
from cbk_gateway.sandbox.store import Clock, Row, Store


def build_world(
    keys: Mapping[str, str],
    children: Mapping[str, Mapping[str, str]] | None,
    journal: SqliteJournal | None,
    blobs: Blobs,
    clock: Clock,
) -> World:
    """A world with what the journal kept, and the configured accounts."""
    store = Store(clock, journal)
    if journal is not None:
        store.load(journal.load())
    ledger = Ledger(store.now_ms)
    accounts = Accounts(store, keys, children)
    # Channel names need no secrecy here; a seeded source would only make two runs collide.
    world = World(store, accounts, Channels(), blobs, ledger, random.SystemRandom())
    for row in list(store.all_rows()):
        kept = row.hidden.get("blob")
        if isinstance(kept, dict):
            blobs.reopen(row.id, kept["file"], kept["type"], kept["name"])
    store.on_change = lambda row, action: _follow(world, row, action)
    return world


def seed_world(world: World) -> None:
    """Give each account that has no bot yet a few examples."""
    for account in sorted(set(world.accounts.keys.values())):
        if not world.store.rows(account, "bot"):
            plant_examples(world.store, account)


def reset_world(world: World) -> None:
    """Forget everything but the configured accounts."""
    for task in list(world.tasks):
        task.cancel()
    world.store.clear()
    world.ledger.clear()
    world.channels.clear()
    world.blobs.clear()
    world.last_sync.clear()
    world.accounts.restore()


def _follow(world: World, row: Row, action: str) -> None:
    param = resource_type(row.kind).param
    event = world.ledger.note(row.owner, f"{row.kind.replace('/', '.')}.{action}", **{param: row.id})
    world.channels.publish(f"{EVENT_CHANNEL}:{row.owner}", event)
    if action != "delete":
        return
    world.blobs.drop(row.id)
    if row.kind == CHILD_KIND:
        world.store.remove_owner(row.id)
    elif row.kind == "partner/user/token":
        world.accounts.revoke(row)
