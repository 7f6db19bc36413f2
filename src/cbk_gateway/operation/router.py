"""From method and target to an `Operation`: a trie over the table, and a bounded answer for the rest.

The trie prefers a literal segment to a parameter, as the API's own file-based router does. What the table
does not name but could be a path of this API passes as an uncacheable write of its top resource, so that
the API may grow without this gateway; its labels are still drawn from the table. A POST among them may run
a model, so it is taken to change everything; a GET is taken to change no more than its top resource.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cbk_gateway.errors import BadRequest, MethodNotAllowed, NotFound
from cbk_gateway.operation import effects, table, target
from cbk_gateway.operation.kinds import ALL_TYPES, OTHER, CostClass, Dialect, Effect, Operation, Route

MAX_ID_CHARS: Final = 512
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PREFIXES: Final = (("api", "v1"), ("v1",))
_GRAPHQL: Final = (("graphql",), ("api", "graphql"))
_SERVED: Final = ("GET", "POST")


class _Node:
    """A place in the trie: literal children, one parameter child, the routes that end here by method."""

    __slots__ = ("literal", "parameter", "rest", "routes")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[str, Route] = {}
        self.rest = False

    def child(self, part: str) -> _Node:
        if part == "*":
            self.parameter = self.parameter or _Node()
            return self.parameter
        return self.literal.setdefault(part, _Node())


def understand(method: str, request_target: str) -> Operation:
    """Classify a request from its method and target, as received.

    Raises:
        BadRequest: The target cannot be one of this API, or its query shadows a path parameter.
        NotFound: It is well-formed but no path of this API.
        MethodNotAllowed: The API does not serve the method, here or anywhere.
    """
    raw_path, query = target.split(request_target)
    segments = _below_version(target.normalise(raw_path, _precede_name))
    if method not in _SERVED:
        raise MethodNotAllowed(f"The API serves GET and POST, not {_shown(method)}.", allow="GET, POST")
    served, id_segments = _find(segments)
    if not served:
        served, id_segments = _unknown(segments)
    route = served.get(method)
    if route is None:
        raise MethodNotAllowed(f"This path is served by {next(iter(served))}.", allow=", ".join(served))
    ids = tuple(_identifier(segment) for segment in id_segments)
    _refuse_shadowing(query, route)
    return Operation(
        route=route,
        method=method,
        path="/" + "/".join(segments),
        query=query,
        ids=ids,
        scope_resource=segments[0] if route.resource == OTHER else route.resource,
        scope_action=segments[-1] if route.action == OTHER else route.action,
    )


def routes() -> tuple[Route, ...]:
    """Every route of the table, for documentation, `explain` and exhaustive tests."""
    return _ROUTES


def as_graphql_query(operation: Operation) -> Operation:
    """The same request, once its document is known to be a query: it reads, and changes nothing."""
    return replace(operation, route=_GRAPHQL_QUERY)


def _below_version(segments: tuple[str, ...]) -> tuple[str, ...]:
    if segments in _GRAPHQL:
        return ("graphql",)
    for prefix in _PREFIXES:
        if segments[: len(prefix)] == prefix and len(segments) > len(prefix):
            return segments[len(prefix) :]
    raise NotFound("There is no such path in this API: its paths begin with /api/v1/.")


def _precede_name(segments: Sequence[str]) -> bool:
    """Whether what follows these segments of a path is part of an object's name, as in a space's storage."""
    for prefix in _PREFIXES:
        if tuple(segments[: len(prefix)]) == prefix:
            node: _Node | None = _ROOT
            for segment in segments[len(prefix) :]:
                if node is None or node.rest:
                    break
                node = node.literal.get(segment) or node.parameter
            return node is not None and node.rest
    return False


def _find(segments: tuple[str, ...]) -> tuple[dict[str, Route], tuple[str, ...]]:
    node = _ROOT
    ids: list[str] = []
    for position, segment in enumerate(segments):
        below = node.literal.get(segment)
        if below is None:
            if node.rest:
                return node.routes, (*ids, "/".join(segments[position:]))
            below = node.parameter
            if below is None:
                return {}, ()
            ids.append(segment)
        node = below
    return node.routes, tuple(ids)


def _unknown(segments: tuple[str, ...]) -> tuple[dict[str, Route], tuple[str, ...]]:
    top = segments[0]
    if len(segments) < 2 or _WORD.fullmatch(top) is None or _WORD.fullmatch(segments[-1]) is None:
        raise NotFound("There is no such path in this API.")
    return _UNKNOWN.get(top, _UNKNOWN[OTHER]), segments[1:-1]


def _identifier(segment: str) -> str:
    text = target.decode(segment)
    if len(text) > MAX_ID_CHARS:
        raise BadRequest("An id in the path is too long.", reason="id_too_long")
    return text


def _refuse_shadowing(query: str, route: Route) -> None:
    """Refuse query keys that the API would read instead of the path parameter of that name.

    It merges both and the query comes first, so `bot/A/fetch?botId=B` would be checked here as A and
    answered there as B. Bracketed and dotted spellings of nested keys count too.
    """
    if not query:
        return
    params = (
        {param.lower() for param in route.params} if route.known else {"id", *map(str.lower, route.params)}
    )
    for key in target.query_keys(query):
        if re.split(r"[\[.]", key, maxsplit=1)[0].strip().lower() in params:
            raise BadRequest(
                "A query key has the name of a path parameter.",
                reason="shadowed_parameter",
                details={"key": key},
            )


def _shown(method: str) -> str:
    return method if method.isalpha() and len(method) <= 16 else "this method"


def _routes_of(row: table.TypeRow, action: str, *, on_member: bool) -> tuple[Route, ...]:
    """The routes of an action: one, unless its methods do different things."""
    methods = table.methods_of(row.name, action)
    return tuple(_route(row, action, method, on_member=on_member) for method in methods)


def _route(row: table.TypeRow, action: str, method: str, *, on_member: bool) -> Route:
    resource = row.name
    outer = [parent.param for parent in _parents(row)]
    effect = table.effect_of(resource, action, method)
    writes = effect is Effect.WRITE
    changed = effects.invalidated_by(resource, action) if writes else frozenset[str]()
    return Route(
        resource=resource,
        action=action,
        methods=(method,),
        effect=effect,
        cost_class=table.cost_class_of(resource, action, method),
        lifetime=table.lifetime_of(row, action),
        reads=effects.depends_on(resource),
        invalidates=changed,
        runs_model=table.runs_model(resource, action, method),
        params=(*outer, row.param) if on_member else tuple(outer),
        template=_template(row, [*outer, row.param], action, on_member=on_member),
        reaches_children=writes and effects.canonical(resource).startswith("partner/user"),
    )


def _parents(row: table.TypeRow) -> list[table.TypeRow]:
    parts = row.path.split("/")
    stars = [position for position, part in enumerate(parts) if part == "*"]
    by_path = {one.path: one for one in table.TYPES}
    return [by_path["/".join(parts[:position])] for position in stars]


def _template(row: table.TypeRow, params: list[str], action: str, *, on_member: bool) -> str:
    names = iter(params)
    parts = [*row.path.split("/"), *(["*"] if on_member else []), action]
    return "/" + "/".join(f"{{{next(names)}}}" if part == "*" else part for part in parts)


def _single(path: str, methods: tuple[str, ...], action: str, dialect: Dialect) -> Route:
    """A path that is no `{type}/{action}`: `spec`, `graphql` and the OpenAI door."""
    model = table.runs_model(path, action)
    reads_only = methods == ("GET",)
    return Route(
        resource=path,
        action=action,
        methods=methods,
        effect=Effect.READ if reads_only else Effect.WRITE,
        cost_class={"graphql": CostClass.GRAPHQL, "spec": CostClass.READ}.get(path, CostClass.MODEL),
        invalidates=frozenset() if reads_only else frozenset({ALL_TYPES}),
        runs_model=model,
        template="/" + path,
        dialect=dialect,
    )


def _build() -> tuple[_Node, tuple[Route, ...]]:
    root = _Node()
    found: list[Route] = []

    def place(path: str, route: Route, *, rest: bool = False) -> None:
        node = root
        for part in path.split("/"):
            node = node.child(part)
        node.routes.update(dict.fromkeys(route.methods, route))
        node.rest = rest
        found.append(route)

    for row in table.TYPES:
        storage = row.name == "space/storage"
        for action in row.collection.split():
            for route in _routes_of(row, action, on_member=False):
                # The rest of a storage path is the object's name: a parameter like any other.
                place(f"{row.path}/{action}", _with_rest(route) if storage else route, rest=storage)
        for action in row.member.split():
            for route in _routes_of(row, action, on_member=True):
                place(f"{row.path}/*/{action}", route)
    place("spec", _single("spec", ("GET",), "fetch", Dialect.REST))
    place("graphql", _single("graphql", ("GET", "POST"), "execute", Dialect.GRAPHQL))
    place(
        "openai/chat/completions",
        _single("openai/chat/completions", ("POST",), "create", Dialect.OPENAI),
    )
    return root, tuple(found)


def _with_rest(route: Route) -> Route:
    return replace(route, params=(*route.params, "path"), template=route.template + "/{path...}")


def _unknown_route(top: str, method: str) -> Route:
    row = next((row for row in table.TYPES if row.path == top), None)
    return Route(
        resource=top,
        action=OTHER,
        methods=(method,),
        effect=Effect.WRITE,
        cost_class=CostClass.WRITE,
        invalidates=frozenset({ALL_TYPES}) if method == "POST" else effects.family(top),
        params=(row.param,) if row is not None and row.param else (),
        template=f"/{top}/...",
        reaches_children=top in {"partner", "user"},
    )


_ROOT, _ROUTES = _build()
_GRAPHQL_QUERY: Final = replace(
    _single("graphql", ("GET", "POST"), "execute", Dialect.GRAPHQL),
    effect=Effect.READ,
    invalidates=frozenset(),
)
_TOPS: Final = frozenset(row.path.split("/")[0] for row in table.TYPES)
_UNKNOWN: Final = {
    top: {method: _unknown_route(top, method) for method in _SERVED} for top in (*sorted(_TOPS), OTHER)
}
