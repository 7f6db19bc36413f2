"""The URL grammar and the table of actions: the only place that knows the shape of the API.

`understand` turns a method and a request target into an `Operation`, or refuses. Labels, scopes, limits,
audit names, caching and invalidation all follow from the `Route` it found, so their number is bounded by
the table. No package outside this one may look at a path to decide anything.

    target.py   one spelling per path and query
    table.py    the types and their actions
    effects.py  what writes change, what views depend on
    router.py   the trie
    kinds.py    the values
"""

from cbk_gateway.operation.effects import TYPE_NAMES, canonical, depends_on, family
from cbk_gateway.operation.kinds import (
    ALL_TYPES,
    OTHER,
    CostClass,
    Dialect,
    Effect,
    Lifetime,
    Operation,
    Route,
    crosses_accounts,
)
from cbk_gateway.operation.router import as_graphql_query, routes, understand
from cbk_gateway.operation.target import canonical_query

__all__ = [
    "ALL_TYPES",
    "OTHER",
    "TYPE_NAMES",
    "CostClass",
    "Dialect",
    "Effect",
    "Lifetime",
    "Operation",
    "Route",
    "as_graphql_query",
    "canonical",
    "canonical_query",
    "crosses_accounts",
    "depends_on",
    "family",
    "routes",
    "understand",
]
