"""Run-as headers in every spelling."""

from __future__ import annotations

import pytest

from cbk_gateway.errors import BadRequest
from cbk_gateway.parties import RunAs, RunAsForm, Tenant
from cbk_gateway.secret import Secret, account_fingerprint
from cbk_gateway.tenancy.headers import account_acted_on, is_run_as_header, requested_run_as


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("X-RunAs-User-ID", True),
        ("x-runas-user-id", True),
        ("X-RunAs-UserId", True),
        ("X_RUNAS_USER_ID", True),
        ("X-Run-As-User-ID", True),
        ("x-runas_child-user_email", True),
        ("HTTP_X_RUNAS_USER_ID", True),
        ("RunAs-User-ID", True),
        ("X-RunAs", True),
        ("X-Request-Id", False),
        ("X-Run-Time", False),
        ("Authorization", False),
        ("Y-X-RunAs", False),
    ],
)
def test_every_spelling_is_recognised(name: str, expected: bool) -> None:
    assert is_run_as_header(name) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("Accept", "*/*")], None),
        ([("x-runas-user-id", " u1 ")], RunAs(RunAsForm.USER_ID, "u1")),
        ([("X-RunAs-UserId", "u1")], RunAs(RunAsForm.USER_ID, "u1")),
        ([("X-RunAs-Child-User-Email", "a@b.c")], RunAs(RunAsForm.CHILD_EMAIL, "a@b.c")),
    ],
)
def test_a_clients_choice_is_read(headers: list[tuple[str, str]], expected: RunAs | None) -> None:
    assert requested_run_as(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [("X-RunAs-User-ID", "u1"), ("X-RunAs-User-ID", "u2")],
        [("X-RunAs-User-ID", "u1"), ("X-RunAs-Child-User-Email", "a@b.c")],
        [("X-RunAs-Group", "g1")],
        [("X-RunAs-User-ID", "")],
        [("X-RunAs-User-ID", "u 1")],
        [("X-RunAs-User-ID", "ü")],
        [("X-RunAs-User-ID", "u" * 300)],
    ],
)
def test_a_choice_that_could_be_read_in_two_ways_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(BadRequest):
        requested_run_as(headers)


def test_the_account_acted_on_is_the_childs_where_the_client_chose_one() -> None:
    tenant = Tenant(id="p", account="partner", key=Secret("sk-1"), may_run_as=True)
    assert account_acted_on(tenant, None) == "partner"
    child = RunAs(RunAsForm.USER_ID, "u1")
    assert account_acted_on(tenant, child) == account_fingerprint(Secret("sk-1"), "u1")
