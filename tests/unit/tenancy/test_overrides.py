"""What operators change on top of a definition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.tenancy.overrides import (
    NO_OVERRIDE,
    Override,
    applied,
    decode,
    digest,
    dropping,
    promotion,
    rotation_to,
)

ONE, TWO, THREE = Secret("sk-1"), Secret("sk-2"), Secret("sk-3")
ACME = Tenant(id="acme", account="a", key=ONE)
ROTATING = replace(ACME, next_key=TWO)


def unseal(text: str, tenant: str, name: str) -> Secret:
    """A seal that shows its content: what is under test is where it is opened."""
    assert (tenant, name) in {("acme", "key"), ("acme", "next_key")}
    return Secret(text.removeprefix(f"{name}="))


def test_no_override_changes_nothing() -> None:
    assert applied(ROTATING, NO_OVERRIDE, unseal) is ROTATING


@pytest.mark.parametrize(
    "override",
    [
        NO_OVERRIDE,
        Override(disabled=True, token_not_before=5, key="k", dropped="d"),
        Override(key="k", replaces="r", key_expires=1, next_key="n", next_key_expires=2),
    ],
)
def test_an_override_is_stored_and_read_back(override: Override) -> None:
    assert decode(override.encoded()) == override


@pytest.mark.parametrize(
    "octets", [b"", b"[]", b"null", b'{"token_not_before": "x"}', b'{"token_not_before": true}']
)
def test_what_is_no_override_is_an_error(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(octets)


def test_an_override_of_a_later_version_is_still_read() -> None:
    assert decode(b'{"disabled": true, "colour": "red"}') == Override(disabled=True)


@pytest.mark.parametrize(
    ("by_file", "by_override", "result"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_either_can_disable_and_neither_can_overrule(by_file: bool, by_override: bool, result: bool) -> None:
    tenant = replace(ACME, disabled=by_file)
    assert applied(tenant, Override(disabled=by_override, token_not_before=1), unseal).disabled is result


def test_the_later_moment_counts() -> None:
    assert (
        applied(replace(ACME, token_not_before=9), Override(token_not_before=5), unseal).token_not_before == 9
    )
    assert (
        applied(replace(ACME, token_not_before=9), Override(token_not_before=15), unseal).token_not_before
        == 15
    )


def test_a_promoted_key_is_the_current_one() -> None:
    promoted = applied(ROTATING, promotion(ROTATING, NO_OVERRIDE), unseal)
    assert (promoted.key, promoted.next_key) == (TWO, None)


def test_a_dropped_key_is_not_used() -> None:
    dropped = applied(ROTATING, dropping(ROTATING, NO_OVERRIDE), unseal)
    assert (dropped.key, dropped.next_key) == (ONE, None)


def test_without_a_next_key_there_is_nothing_to_promote_or_drop() -> None:
    for change in (promotion, dropping):
        with pytest.raises(ValueError, match="no next key"):
            change(ACME, NO_OVERRIDE)


def test_the_file_has_the_last_word_after_a_promotion() -> None:
    override = promotion(ROTATING, NO_OVERRIDE)
    cleaned = replace(ACME, key=TWO)
    again = replace(ACME, key=TWO, next_key=THREE)
    assert applied(cleaned, override, unseal) == cleaned
    assert applied(again, override, unseal) == again


def test_a_whole_rotation_by_operators_and_another_after_it() -> None:
    first = rotation_to(ACME, ACME, NO_OVERRIDE, "key=sk-1", "next_key=sk-2")
    in_force = applied(ACME, first, unseal)
    assert (in_force.key, in_force.next_key) == (ONE, TWO)
    promoted = promotion(in_force, first)
    in_force = applied(ACME, promoted, unseal)
    assert (in_force.key, in_force.next_key) == (TWO, None)
    second = rotation_to(ACME, in_force, promoted, "key=sk-2", "next_key=sk-3")
    in_force = applied(ACME, second, unseal)
    assert (in_force.key, in_force.next_key) == (TWO, THREE)
    in_force = applied(ACME, promotion(in_force, second), unseal)
    assert (in_force.key, in_force.next_key) == (THREE, None)


def test_a_stored_key_lapses_when_the_definitions_key_changes() -> None:
    override = Override(key="key=sk-2", replaces=digest(ONE))
    assert applied(ACME, override, unseal).key == TWO
    assert applied(replace(ACME, key=THREE), override, unseal).key == THREE


def test_a_digest_does_not_show_the_key() -> None:
    assert "sk-1" not in digest(ONE)
    assert digest(ONE) == digest(Secret("sk-1")) != digest(TWO)
