"""One spelling per path; what two servers could read in two ways is refused."""

from urllib.parse import unquote

import pytest

from cbk_gateway.errors import BadRequest, NotFound, Refusal
from cbk_gateway.operation import understand
from cbk_gateway.operation.target import canonical_query, normalise, split


@pytest.mark.parametrize(
    ("raw", "segments"),
    [
        ("/api/v1/bot/list", ("api", "v1", "bot", "list")),
        ("/api/v1/bot/list/", ("api", "v1", "bot", "list")),
        ("//api///v1/bot//list", ("api", "v1", "bot", "list")),
        ("/api/v1/./bot/%2e/list", ("api", "v1", "bot", "list")),
        ("/api/v1/bot/x/../list", ("api", "v1", "bot", "list")),
        ("/api/v1/bot/%2e%2E/secret/list", ("api", "v1", "secret", "list")),
        ("/api/v1/%62ot/list", ("api", "v1", "bot", "list")),
        ("/api/v1/bot/%40alias/fetch", ("api", "v1", "bot", "%40alias", "fetch")),
        ("/api/v1/bot/(my%20bot)/fetch", ("api", "v1", "bot", "(my%20bot)", "fetch")),
        ("/api/v1/bot/%c3%a9/fetch", ("api", "v1", "bot", "%C3%A9", "fetch")),
    ],
)
def test_a_path_has_one_spelling(raw: str, segments: tuple[str, ...]) -> None:
    assert normalise(raw) == segments


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/bot/a%2Fb/fetch",
        "/api/v1/bot/a%2fb/fetch",
        "/api/v1/bot/a%5Cb/fetch",
        "/api/v1/bot/%252e%252e/list",
        "/api/v1/bot/%00/fetch",
        "/api/v1/bot/%0d%0aX/fetch",
        "/api/v1/bot/%7f/fetch",
        "/api/v1/bot/%ff/fetch",
        "/api/v1/bot/%zz/fetch",
        "/api/v1/bot/%4/fetch",
        "/api/v1/bot\\list",
        "/api/v1/bot/list#x",
        "/api/v1/bot/list?a=%zz",
        "/api/v1/bot/list?a=\x01",
        "/api/v1/bot/é/fetch",
        "bot/list",
        "example.com:443",
        "/" + "a" * 9000,
        "/api/v1/bot/" + "a" * 600 + "/fetch",
    ],
)
def test_a_target_that_cannot_be_read_in_one_way_is_refused(target: str) -> None:
    with pytest.raises(BadRequest):
        understand("GET", target)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/api",
        "/api/v1",
        "/api/v2/bot/list",
        "/healthz",
        "/metrics",
        "/_sandbox/requests",
        "/../../etc/passwd",
        "/api/v1/../../../x",
        "/api/v1/bot",
        "/api/v1/bot/x/%40y",
        "/api/v1/1bot/list",
        "/api/v1/" + "a/" * 50 + "list",
    ],
)
def test_what_is_no_path_of_this_api_is_not_found(target: str) -> None:
    with pytest.raises(NotFound):
        understand("GET", target)


def test_the_absolute_form_loses_its_authority() -> None:
    assert split("http://example.com/api/v1/bot/list?a=b") == ("/api/v1/bot/list", "a=b")
    assert split("http://example.com") == ("/", "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a=1&b=2", "b=2&a=1"),
        ("a=%31", "a=1"),
        ("a=x+y", "a=x%20y"),
        ("a=1&&b=2", "a=1&b=2"),
    ],
)
def test_queries_read_alike_have_one_canonical_form(one: str, other: str) -> None:
    assert canonical_query(one) == canonical_query(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a=1&a=2", "a=2&a=1"),
        ("a=1", "a=1&a=2"),
        ("a=b%26c=d", "a=b&c=d"),
        ("ab=c", "a=bc"),
        ("a=1&b=2", "a=1%26b%3D2"),
        ("meta.a=1", "meta=1"),
    ],
)
def test_queries_read_differently_have_different_forms(one: str, other: str) -> None:
    assert canonical_query(one) != canonical_query(other)


@pytest.mark.parametrize(
    "query", ["botId=x", "BOTID=x", "a=b&botId=x", "bot%49d=x", "botId[]=x", "botId.x=1", "+botId=x", "botId"]
)
def test_a_query_key_that_shadows_a_path_parameter_is_refused(query: str) -> None:
    with pytest.raises(Refusal) as refused:
        understand("GET", f"/api/v1/bot/b1/fetch?{query}")
    assert refused.value.reason == "shadowed_parameter"


def test_a_filter_that_shadows_nothing_passes() -> None:
    assert understand("GET", "/api/v1/conversation/list?botId=b1&take=5").query == "botId=b1&take=5"


STORED = "/api/v1/space/s1/storage/download"


@pytest.mark.parametrize("name", ["a%2520b.txt", "a%5Cb.txt", "%2525", "x%41%2e%2E", "d/a%255Cb", "100%25"])
def test_the_name_of_a_stored_object_is_forwarded_byte_for_byte(name: str) -> None:
    operation = understand("GET", f"{STORED}/{name}")
    assert operation.path == f"/space/s1/storage/download/{name}"
    assert operation.ids[-1] == unquote(name)


@pytest.mark.parametrize(
    "name", ["a%2Fb", "a%252Fb", "%252e%252e", "..%5C..", "%25252e", "a%00", "a%2500", "%ff"]
)
def test_a_stored_name_that_hides_another_path_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        understand("GET", f"{STORED}/{name}")


def test_dots_in_a_stored_name_are_taken_out_of_it() -> None:
    assert understand("GET", f"{STORED}/a%2520/%2e%2e/b").path == "/space/s1/storage/download/b"
    # Out of the name altogether, the strict rule holds again.
    with pytest.raises(BadRequest):
        understand("GET", f"{STORED}/../../a%2520b/list")
