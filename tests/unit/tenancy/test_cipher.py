"""Keys at rest."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.secret import Secret
from cbk_gateway.tenancy.cipher import CipherFault, MasterKeys, master_keys

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
KEYS = MasterKeys({"1": ONE})


@given(text=st.text(), tenant=st.text(), name=st.text())
def test_what_was_sealed_opens_in_its_place(text: str, tenant: str, name: str) -> None:
    sealed = KEYS.seal(Secret(text), tenant=tenant, name=name)
    assert KEYS.open(sealed, tenant=tenant, name=name).reveal() == text


@pytest.mark.parametrize(
    ("tenant", "name"), [("globex", "key"), ("acme", "next_key"), ("acmek", "ey"), ("", "acmekey")]
)
def test_a_sealed_key_opens_for_no_other_tenant_or_name(tenant: str, name: str) -> None:
    sealed = KEYS.seal(Secret("sk-1"), tenant="acme", name="key")
    with pytest.raises(CipherFault):
        KEYS.open(sealed, tenant=tenant, name=name)


def test_every_altered_character_is_noticed() -> None:
    sealed = KEYS.seal(Secret("sk-1"), tenant="acme", name="key")
    start = sealed.rindex(":") + 1
    body = base64.urlsafe_b64decode(sealed[start:])
    for at in range(len(body)):
        altered = bytes([*body[:at], body[at] ^ 1, *body[at + 1 :]])
        with pytest.raises(CipherFault):
            KEYS.open(sealed[:start] + base64.urlsafe_b64encode(altered).decode(), tenant="acme", name="key")


@pytest.mark.parametrize(
    "text", ["", "sk-1", "sealed:", "sealed:1:", "sealed:1:!!", "sealed:1:AAAA", "sealed:9:AAAA"]
)
def test_what_is_not_sealed_does_not_open(text: str) -> None:
    with pytest.raises(CipherFault):
        KEYS.open(text, tenant="acme", name="key")


def test_the_first_key_seals_and_all_open() -> None:
    old = KEYS.seal(Secret("sk-1"), tenant="acme", name="key")
    both = MasterKeys({"2": TWO, "1": ONE})
    new = both.seal(Secret("sk-1"), tenant="acme", name="key")
    assert both.open(old, tenant="acme", name="key").reveal() == "sk-1"
    assert (both.is_current(old), both.is_current(new)) == (False, True)
    with pytest.raises(CipherFault, match="'2' is not configured"):
        KEYS.open(new, tenant="acme", name="key")


def test_one_key_id_does_not_stand_for_another() -> None:
    """The id is part of what is authenticated, so that a row cannot claim an older key."""
    same = MasterKeys({"a": ONE, "b": ONE})
    sealed = same.seal(Secret("sk-1"), tenant="acme", name="key")
    with pytest.raises(CipherFault):
        same.open(sealed.replace("sealed:a:", "sealed:b:"), tenant="acme", name="key")


def test_equal_keys_are_sealed_differently_each_time() -> None:
    seals = {KEYS.seal(Secret("sk-1"), tenant="acme", name="key") for _ in range(20)}
    assert len(seals) == 20
    assert not any("sk-1" in one for one in seals)


def test_master_keys_are_read_as_configured() -> None:
    one, two = base64.b64encode(ONE).decode(), base64.urlsafe_b64encode(TWO).decode().rstrip("=")
    assert master_keys(Secret(one)).sealing_id == "1"
    keys = master_keys(Secret(f"2026:{two}, 2025:{one}"))
    assert keys.sealing_id == "2026"
    assert repr(keys) == "<MasterKeys 2026 2025>"


@pytest.mark.parametrize(
    "text", ["", "short", "1:AAAA", "a b:" + "A" * 43, "1:" + "A" * 43 + ",1:" + "B" * 43]
)
def test_a_master_key_of_another_form_is_refused_unseen(text: str) -> None:
    with pytest.raises(CipherFault) as caught:
        master_keys(Secret(text))
    assert "AAAA" not in str(caught.value)
