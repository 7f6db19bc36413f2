"""Reads and writes of GraphQL are told apart by grammar."""

from __future__ import annotations

import pytest

from cbk_gateway.cache.graphql import Kind, classify


@pytest.mark.parametrize(
    ("document", "name", "kind"),
    [
        ("{ bots { id } }", None, "query"),
        ("query { bots { id } }", None, "query"),
        ("query A { a } mutation B { b }", "A", "query"),
        ("query A { a } mutation B { b }", "B", "mutation"),
        ("query A { a } mutation B { b }", None, "unparsable"),
        ("query A { a }", "C", "unparsable"),
        ("query A { a } mutation A { b }", "A", "unparsable"),
        ("mutation { deleteBot(id: 1) { id } }", None, "mutation"),
        ("# query\nmutation{a}", None, "mutation"),
        ('query { a(text: "mutation { b }") }', None, "query"),
        ("fragment F on Bot { id } query Q { bots { ...F } }", None, "query"),
        ("fragment F on Bot { id }", None, "unparsable"),
        ("subscription { a }", None, "subscription"),
        ("query { bots { id }", None, "unparsable"),
        ("", None, "unparsable"),
        ("{" * 5000, None, "unparsable"),
        ("{ a " * 3000 + "}" * 3000, None, "unparsable"),
        ("{" + " a" * 30_000 + "}", None, "unparsable"),
        ("{ a }" + " " * 400_000, None, "unparsable"),
        ("\ufeff{ a }", None, "query"),
    ],
)
def test_what_a_document_does(document: str, name: str | None, kind: Kind) -> None:
    assert classify(document, name) == kind
