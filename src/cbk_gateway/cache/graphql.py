"""Whether a GraphQL document reads or writes: by its grammar, never by its text.

Pure. What follows from the answer (a query passes uncached, all else is taken to change the whole account)
is the caller's.
"""

from __future__ import annotations

from typing import Final, Literal

from graphql import GraphQLError, OperationDefinitionNode, parse

Kind = Literal["query", "mutation", "subscription", "unparsable"]

# Parsing holds the loop: some 25 ms for these. No client sends such documents; what is longer is a write.
MAX_TOKENS: Final = 5_000
MAX_CHARS: Final = 100_000


def classify(document: str, operation_name: str | None) -> Kind:
    """Say what the selected operation of a document is.

    The operation is the one named, or the only one (GraphQL specification, October 2021, section 6.1). A
    document that does not parse, names no such operation, or leaves the choice open is "unparsable": a more
    lenient server might still run a mutation in it.
    """
    if len(document) > MAX_CHARS:
        return "unparsable"
    try:
        tree = parse(document, no_location=True, max_tokens=MAX_TOKENS)
    except (GraphQLError, RecursionError):
        return "unparsable"
    operations = [one for one in tree.definitions if isinstance(one, OperationDefinitionNode)]
    if operation_name:
        operations = [one for one in operations if one.name is not None and one.name.value == operation_name]
    if len(operations) != 1:
        return "unparsable"
    return operations[0].operation.value
