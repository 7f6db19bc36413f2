"""What requests are: examples, exceptions, and what holds for every path whatever it is."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbk_gateway.errors import MethodNotAllowed, Refusal
from cbk_gateway.operation import (
    ALL_TYPES,
    OTHER,
    CostClass,
    Dialect,
    Effect,
    Lifetime,
    routes,
    understand,
)

LABELS = {(route.resource, route.action) for route in routes()}
TOPS = {route.resource.split("/")[0] for route in routes()}


@pytest.mark.parametrize(
    ("method", "target", "scope", "effect", "cost_class"),
    [
        ("GET", "/api/v1/bot/list", "bot:list", Effect.READ, CostClass.READ),
        ("GET", "/v1/bot/list", "bot:list", Effect.READ, CostClass.READ),
        ("POST", "/api/v1/bot/create", "bot:create", Effect.WRITE, CostClass.WRITE),
        ("POST", "/api/v1/bot/b/session/create", "bot/session:create", Effect.WRITE, CostClass.WRITE),
        ("GET", "/v1/conversation/c/message/list", "conversation/message:list", Effect.READ, CostClass.READ),
        ("POST", "/v1/conversation/c/complete", "conversation:complete", Effect.WRITE, CostClass.MODEL),
        ("POST", "/v1/conversation/complete", "conversation:complete", Effect.WRITE, CostClass.MODEL),
        ("POST", "/v1/dataset/d/search", "dataset:search", Effect.READ, CostClass.SEARCH),
        ("POST", "/v1/channel/c/subscribe", "channel:subscribe", Effect.STREAM, CostClass.STREAM),
        ("POST", "/v1/event/log/subscribe", "event/log:subscribe", Effect.STREAM, CostClass.STREAM),
        ("GET", "/v1/file/f/download", "file:download", Effect.READ, CostClass.TRANSFER),
        ("POST", "/v1/file/f/upload", "file:upload", Effect.WRITE, CostClass.TRANSFER),
        ("POST", "/v1/secret/s/mint", "secret:mint", Effect.WRITE, CostClass.WRITE),
        ("GET", "/v1/space/s/storage/list/a/b%20c", "space/storage:list", Effect.READ, CostClass.READ),
        (
            "POST",
            "/v1/openai/chat/completions",
            "openai/chat/completions:create",
            Effect.WRITE,
            CostClass.MODEL,
        ),
        ("POST", "/graphql", "graphql:execute", Effect.WRITE, CostClass.GRAPHQL),
        ("POST", "/api/graphql", "graphql:execute", Effect.WRITE, CostClass.GRAPHQL),
        ("POST", "/api/v1/graphql", "graphql:execute", Effect.WRITE, CostClass.GRAPHQL),
        ("GET", "/api/v1/spec", "spec:fetch", Effect.READ, CostClass.READ),
        (
            "GET",
            "/v1/integration/skillserver/i/invoke",
            "integration/skillserver:invoke",
            Effect.READ,
            CostClass.READ,
        ),
        (
            "POST",
            "/v1/integration/skillserver/i/invoke",
            "integration/skillserver:invoke",
            Effect.WRITE,
            CostClass.MODEL,
        ),
        ("GET", "/v1/platform/model/list", "platform/model:list", Effect.READ, CostClass.READ),
        ("POST", "/v1/bot/b/frobnicate", "bot:frobnicate", Effect.WRITE, CostClass.WRITE),
        ("GET", "/v1/newthing/list", "newthing:list", Effect.WRITE, CostClass.WRITE),
    ],
)
def test_what_a_request_is(
    method: str, target: str, scope: str, effect: Effect, cost_class: CostClass
) -> None:
    operation = understand(method, target)
    assert (operation.scope, operation.effect, operation.route.cost_class) == (scope, effect, cost_class)


def test_graphql_keeps_its_dialect_wherever_it_is_found() -> None:
    assert understand("POST", "/graphql").path == "/graphql"
    assert understand("POST", "/api/graphql").route.dialect is Dialect.GRAPHQL
    assert understand("POST", "/v1/openai/chat/completions").route.dialect is Dialect.OPENAI


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/v1/bot/list", "GET"),
        ("GET", "/v1/bot/create", "POST"),
        ("PUT", "/v1/bot/b/update", "GET, POST"),
        ("DELETE", "/v1/bot/b/delete", "GET, POST"),
        ("PATCH", "/v1/unknown/thing", "GET, POST"),
    ],
)
def test_a_method_the_api_does_not_serve_is_refused(method: str, target: str, allow: str) -> None:
    with pytest.raises(MethodNotAllowed) as refused:
        understand(method, target)
    assert refused.value.headers["Allow"] == allow


@pytest.mark.parametrize(
    ("target", "cacheable"),
    [
        ("/v1/bot/list", True),
        ("/v1/bot/b1/fetch", True),
        ("/v1/bot/@mine/fetch", True),
        ("/v1/bot/(name)/fetch", True),
        ("/v1/bot/@@parents/fetch", False),
        ("/v1/bot/%40%40parents/fetch", False),
        ("/v1/bot/@other@alias/fetch", False),
        ("/v1/secret/list", False),
        ("/v1/secret/s/fetch", False),
        ("/v1/integration/trigger/t/fetch", False),
        ("/v1/integration/whatsapp/w/fetch", False),
        ("/v1/partner/user/u/token/list", False),
        ("/v1/file/f/download", False),
        ("/v1/bot/b/usage/fetch", False),
        ("/v1/unknown/list", False),
    ],
)
def test_what_may_be_remembered(target: str, cacheable: bool) -> None:
    assert understand("GET", target).is_cacheable is cacheable


@pytest.mark.parametrize(
    ("target", "changed", "unchanged"),
    [
        ("/v1/bot/create", {"bot"}, {"dataset", "conversation"}),
        ("/v1/bot/b/update", {"bot"}, {"dataset", "conversation", "memory"}),
        (
            "/v1/bot/b/delete",
            {"bot", "memory", "conversation", "integration/widget", "skillset/ability"},
            {"dataset", "file"},
        ),
        ("/v1/dataset/d/delete", {"dataset", "dataset/record", "dataset/file", "bot"}, {"file", "contact"}),
        ("/v1/contact/c/delete", {"contact", "task", "memory", "rating", "space"}, {"bot", "dataset"}),
        ("/v1/conversation/c/message/create", {"conversation/message"}, {"conversation", "bot"}),
        ("/v1/conversation/c/message/batch/create", {"conversation/message"}, {"bot"}),
        ("/v1/ability/a/update", {"skillset/ability"}, {"skillset"}),
        ("/v1/user/u/token/create", {"partner/user/token"}, {"bot"}),
        ("/v1/conversation/c/complete", {ALL_TYPES}, set()),
        ("/v1/skillset/s/ability/a/execute", {ALL_TYPES}, set()),
        ("/v1/blueprint/b/delete", {ALL_TYPES}, set()),
        ("/v1/blueprint/b/resource/import", {ALL_TYPES}, set()),
        ("/v1/integration/skillserver/i/invoke", {ALL_TYPES}, set()),
        ("/v1/task/t/execution/e/cancel", {"task", "task/execution", "conversation"}, {ALL_TYPES, "bot"}),
        ("/v1/bot/b/frobnicate", {ALL_TYPES}, set()),
        ("/v1/newthing/n/run", {ALL_TYPES}, set()),
    ],
)
def test_what_a_write_changes(target: str, changed: set[str], unchanged: set[str]) -> None:
    route = understand("POST", target).route
    assert changed <= route.invalidates
    assert not unchanged & route.invalidates


def test_a_method_decides_where_one_path_is_two_things() -> None:
    """A skill server's GET is a manual; its POST runs an ability, with all that this may change."""
    manual, run = (understand(method, "/v1/integration/skillserver/i/invoke") for method in ("GET", "POST"))
    assert (manual.is_write, manual.route.runs_model, manual.route.invalidates) == (False, False, frozenset())
    assert (run.is_write, run.route.runs_model) == (True, True)
    assert not manual.is_cacheable, "it shows skillset and abilities, in a form that no list has"
    with pytest.raises(MethodNotAllowed) as refused:
        understand("PUT", "/v1/integration/skillserver/i/invoke")
    assert refused.value.headers["Allow"] == "GET, POST"


def test_an_unknown_get_changes_no_more_than_its_top_resource() -> None:
    assert {"bot", "bot/session"} <= understand("GET", "/v1/bot/b/frobnicate").route.invalidates
    assert "dataset" not in understand("GET", "/v1/bot/b/frobnicate").route.invalidates
    assert understand("GET", "/v1/newthing/n/show").route.invalidates == {OTHER}


def test_a_view_depends_on_the_rows_it_shows() -> None:
    assert {"conversation", "contact"} <= understand("GET", "/v1/contact/c/conversation/list").route.reads
    assert {"file", "dataset"} <= understand("GET", "/v1/dataset/d/file/list").route.reads
    assert "skillset/ability" in understand("GET", "/v1/ability/list").route.reads


def test_a_lifetime_is_never_given_to_a_write() -> None:
    for route in routes():
        if route.effect is not Effect.READ:
            assert route.lifetime is Lifetime.NEVER


_WORDS = sorted(
    {part for route in routes() for part in route.template.split("/") if part and "{" not in part}
)
_SEGMENTS = st.one_of(
    st.sampled_from([*_WORDS, "api", "v1", "..", ".", "", "%2e%2e", "%2f", "%25", "@a", "(x)", "%40%40x"]),
    st.sampled_from(["%5c", "a%5Cb", "%252e%252e", "a%2520b", "%252f", "..%5c..", "%25252e", "%2500"]),
    st.text(max_size=12),
    st.binary(max_size=6).map(lambda octets: "".join(f"%{octet:02x}" for octet in octets)),
)
_TARGETS = st.builds(
    lambda parts, query: "/" + "/".join(parts) + (f"?{query}" if query else ""),
    st.lists(_SEGMENTS, max_size=9),
    st.text(max_size=20),
)


@settings(max_examples=2000, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST"]),
    prefix=st.sampled_from(
        ["/api/v1", "/v1", "", "//api/./v1", "/x/../api/v1", "/v1/space/s/storage/upload", "/v1/space/%5c"]
    ),
    target=_TARGETS,
)
def test_no_path_yields_an_unbounded_label_or_leaves_unnormalised(
    method: str, prefix: str, target: str
) -> None:
    try:
        operation = understand(method, prefix + target)
    except Refusal:
        return
    bounded = (operation.resource, operation.action)
    assert bounded in LABELS or (operation.action == OTHER and (operation.resource in TOPS | {OTHER}))
    for segment in operation.path[1:].split("/"):
        assert segment not in {"", ".", ".."}
    parts = operation.path[1:].split("/")
    # Only what follows an action on a space's storage is a free name, kept as it was sent.
    begins = 4 if operation.resource == "space/storage" else len(parts)
    lowered = "/".join(parts[:begins]).lower()
    assert not any(escape in lowered for escape in ("%2e", "%2f", "%5c", "%00", "%0a", "%0d"))
    for part in parts[begins:]:
        read = unquote_to_bytes(part)
        assert read not in {b"", b".", b".."}
        # However often a server behind decodes it, it stays one name below its folder.
        while True:
            assert not any(octet < 0x20 or octet in b"/\x7f" for octet in read)
            assert not {b".", b".."} & set(read.split(b"\\"))
            deeper = unquote_to_bytes(read)
            if deeper == read:
                break
            read = deeper
    # What is forwarded is a fixed point: read again, it is the same operation.
    again = understand(
        method, "/api/v1" + operation.path + (f"?{operation.query}" if operation.query else "")
    )
    assert again == operation
