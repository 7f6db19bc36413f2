"""Reads and writes of GraphQL are told apart by grammar."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
        ("{ a }" + " " * 100_000, None, "unparsable"),
        ("\ufeff{ a }", None, "query"),
    ],
)
def test_what_a_document_does(document: str, name: str | None, kind: Kind) -> None:
    assert classify(document, name) == kind


def test_the_first_document_loads_nothing(tmp_path: Path) -> None:
    """What is loaded on first use would hold the loop in the middle of a request."""
    program = (
        "import sys; from cbk_gateway import graphql_effect; from cbk_gateway.cache import classify;"
        "before = set(sys.modules);"
        "classify('query A($x: [Int!] = 1) @d { a(b: {c: $x}) { ...F } } fragment F on T { e }', 'A');"
        "classify('{', None); print(sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ran.stdout.strip() == "[]"
