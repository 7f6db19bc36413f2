"""A few example resources, so that a first look at an empty sandbox finds something.

Data only, planted once per account.
"""

from __future__ import annotations

from cbk_gateway.sandbox.store import Store


def plant_examples(store: Store, owner: str) -> None:
    """Give an account a dataset with records, bots, contacts and a conversation."""
    dataset = store.add(owner, "dataset", {"name": "Handbook", "alias": "handbook", "store": "ada-loom"})
    for text in ("Returns are free within 30 days.", "Support answers from 9 to 17 on weekdays."):
        store.add(owner, "dataset/record", {"text": text}, parent=dataset.id)
    skillset = store.add(owner, "skillset", {"name": "Everyday skills"})
    bots = [
        store.add(
            owner,
            "bot",
            {
                "name": name,
                "alias": alias,
                "backstory": f"You are the {name.lower()} of {owner}.",
                "model": "sandbox-echo",
                "datasetId": dataset.id,
                "skillsetId": skillset.id,
                "meta": {"team": team},
            },
        )
        for name, alias, team in (
            ("Support assistant", "support", "service"),
            ("Sales assistant", "sales", "growth"),
            ("Onboarding guide", "onboarding", "service"),
        )
    ]
    contacts = [
        store.add(owner, "contact", {"name": name, "email": email, "fingerprint": email})
        for name, email in (("Ada Example", "ada@example.com"), ("Ben Example", "ben@example.com"))
    ]
    conversation = store.add(
        owner, "conversation", {"name": "A first talk", "botId": bots[0].id, "contactId": contacts[0].id}
    )
    for kind, text in (("user", "Can I return this?"), ("bot", "Yes, within 30 days.")):
        store.add(owner, "conversation/message", {"type": kind, "text": text}, parent=conversation.id)
