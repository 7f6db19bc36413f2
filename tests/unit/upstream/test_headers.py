"""Which header fields cross, in every spelling somebody may try."""

from __future__ import annotations

import pytest

from cbk_gateway.errors import BadRequest, NotAuthorized
from cbk_gateway.parties import RunAs, RunAsForm
from cbk_gateway.secret import Secret
from cbk_gateway.upstream import answer_headers, is_run_as_field, outgoing_headers

Pairs = list[tuple[str, str]]


def sent(
    incoming: Pairs, *, run_as: RunAs | None = None, may: bool = False, identity: bool = False
) -> dict[str, str]:
    fields = outgoing_headers(
        incoming,
        key=Secret("sk-upstream"),
        run_as=run_as,
        host="api.test",
        request_id="r-1",
        client_may_run_as=may,
        identity_encoding=identity,
    )
    names = [name.lower() for name, _ in fields]
    assert len(names) == len(set(names))
    return dict(fields)


BASE = {"Host": "api.test", "Authorization": "Bearer sk-upstream", "X-Request-Id": "r-1"}


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "AUTHORIZATION",
        "Cookie",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Proxy-Authorization",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "x_forwarded_proto",
        "X-Real-IP",
        "X-ChatBotKit-Internal-Key",
        "X-ChatBotKit-Assertion-User",
        "X-CBK-Cache",
        "X-Request-Id",
        "Idempotency-Key",
        "If-None-Match",
        "Cache-Control",
        "Content_Type",
        "X-Anything",
        "authorization\t",
    ],
)
def test_what_is_not_allowed_does_not_cross(name: str) -> None:
    assert sent([(name, "v")]) == BASE


@pytest.mark.parametrize(
    "name",
    [
        "Accept",
        "accept-language",
        "ACCEPT-ENCODING",
        "Content-Type",
        "content-encoding",
        "X-Timezone",
        "User-Agent",
        "Range",
        "If-Range",
        "Content-Disposition",
        "traceparent",
    ],
)
def test_what_is_allowed_crosses_in_any_case(name: str) -> None:
    fields = {key.lower(): value for key, value in sent([(name, "v-1")]).items()}
    assert fields[name.lower()] == "v-1"


def test_what_connection_names_does_not_cross() -> None:
    assert "User-Agent" not in sent([("User-Agent", "x"), ("Connection", "close, user-agent")])


def test_single_valued_fields_may_not_be_repeated() -> None:
    with pytest.raises(BadRequest):
        sent([("Content-Type", "application/json"), ("content-type", "text/plain")])


def test_lists_may_be_repeated_and_become_one() -> None:
    assert sent([("Accept", "a/b"), ("accept", "c/d")])["Accept"] == "a/b, c/d"


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a\x7f", "x" * 9000])
def test_values_that_would_break_a_head_are_refused(value: str) -> None:
    with pytest.raises(BadRequest):
        sent([("Accept", value)])


RUN_AS_SPELLINGS = [
    "X-RunAs-User-ID",
    "x-runas-userid",
    "X_RunAs_User_ID",
    "x-runas_user-id",
    "X-RunAs-Child-User-Email",
    "x_runas_child_user_email",
]


@pytest.mark.parametrize("name", RUN_AS_SPELLINGS)
def test_a_client_that_may_not_choose_its_account_is_refused_in_any_spelling(name: str) -> None:
    assert is_run_as_field(name)
    with pytest.raises(NotAuthorized):
        sent([(name, "child")])
    with pytest.raises(NotAuthorized):
        sent([(name, "child")], run_as=RunAs(RunAsForm.USER_ID, "forced"), may=True)


def test_a_client_that_may_choose_its_account_chooses_once() -> None:
    assert sent([("x-runas-userid", "child")], may=True)["X-RunAs-User-ID"] == "child"
    with pytest.raises(BadRequest):
        sent([("X-RunAs-User-ID", "a"), ("X-RunAs-Child-User-Email", "b@c")], may=True)


def test_a_forced_account_is_sent() -> None:
    assert sent([], run_as=RunAs(RunAsForm.CHILD_EMAIL, "a@b"))["X-RunAs-Child-User-Email"] == "a@b"


def test_an_uncoded_answer_is_asked_for_when_the_gateway_reads_it() -> None:
    assert sent([("Accept-Encoding", "br")], identity=True)["Accept-Encoding"] == "identity"
    assert "Accept-Encoding" not in sent([])


def test_answers_lose_what_is_of_the_hop_or_of_the_upstream() -> None:
    fields = [
        (b"Content-Type", b"application/json"),
        (b"content-length", b"2"),
        (b"Set-Cookie", b"a=b"),
        (b"SERVER", b"x"),
        (b"Via", b"1.1 edge"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"1"),
        (b"X-ChatBotKit-Internal-Node", b"7"),
        (b"X-CBK-Trace", b"7"),
        (b"X_CBK_Trace", b"7"),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"X-Failure-Code", b"F"),
        (b"Retry-After", b"3"),
    ]
    assert answer_headers(fields) == (
        ("Content-Type", "application/json"),
        ("content-length", "2"),
        ("X-Failure-Code", "F"),
        ("Retry-After", "3"),
    )


def test_connection_cannot_take_the_length_away() -> None:
    fields = [(b"Content-Length", b"2"), (b"Connection", b"content-length")]
    assert answer_headers(fields) == (("Content-Length", "2"),)


def test_values_that_are_not_utf8_can_still_be_encoded() -> None:
    ((_, value),) = answer_headers([(b"Content-Disposition", b'attachment; filename="\xe9"')])
    assert value.encode().decode() == 'attachment; filename="é"'
