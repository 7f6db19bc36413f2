"""Whether a GraphQL request reads or writes: decided from its document, before scopes and limits look.

A document that is surely one query reads; everything else is a write of the whole account: mutations,
subscriptions, and whatever a more lenient server might still run.
"""

from __future__ import annotations

from urllib.parse import parse_qs

import orjson

from cbk_gateway.cache.graphql import classify
from cbk_gateway.operation import Operation, as_graphql_query
from cbk_gateway.request_body import TakenBody


def narrowed(operation: Operation, body: TakenBody) -> Operation:
    """The operation as a read, when its document is a query."""
    document, name = _in_query(operation.query) if operation.method == "GET" else _in_body(body.whole or b"")
    if document is not None and classify(document, name) == "query":
        return as_graphql_query(operation)
    return operation


def _in_query(query: str) -> tuple[str | None, str | None]:
    values = parse_qs(query)
    documents, names = values.get("query", []), values.get("operationName", [])
    if len(documents) != 1 or len(names) > 1:
        return None, None
    return documents[0], names[0] if names else None


def _in_body(body: bytes) -> tuple[str | None, str | None]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, None
    # A batch (a list of requests) is not in the API's description: whatever it does, it is a write here.
    if not isinstance(request, dict):
        return None, None
    document, name = request.get("query"), request.get("operationName")
    if not isinstance(document, str) or not (name is None or isinstance(name, str)):
        return None, None
    return document, name
