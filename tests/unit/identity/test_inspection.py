from __future__ import annotations

import pytest

from cbk_gateway.identity import Identity
from unit.identity.forge import NOW, Forge


def verdicts(identity: Identity, token: str) -> dict[str, list[str]]:
    facts = identity.inspect(token)
    return {one.issuer: [fault.reason.value for fault in one.faults] for one in facts.verdicts}


def test_a_good_token_is_accepted_by_its_issuer_and_by_no_other(identity: Identity, forge: Forge) -> None:
    facts = identity.inspect(forge.token())
    assert facts.is_accepted
    assert facts.header["kid"] == "k-RS256"
    assert facts.claims == forge.claims()
    assert verdicts(identity, forge.token()) == {
        "corp": [],
        "shared": ["unknown_issuer", "algorithm", "unknown_key", "audience"],
    }


def test_every_fault_is_listed(identity: Identity, forge: Forge) -> None:
    token = forge.token(forge.claims(exp=NOW - 100, aud="window"), key=forge.stranger)
    assert verdicts(identity, token)["corp"] == ["signature", "expired", "audience"]
    assert not identity.inspect(token).is_accepted


async def test_a_revoked_token_is_told_so(identity: Identity, forge: Forge) -> None:
    await identity.revoke(token_id="t-1")
    assert verdicts(identity, forge.token())["corp"] == ["revoked"]
    assert verdicts(identity, forge.token(forge.claims(tenant=None)))["corp"] == ["tenant"]


def test_looking_lets_nobody_in(identity: Identity, forge: Forge) -> None:
    token = forge.token()
    identity.inspect(token)
    assert identity.identify_now(f"Bearer {token}") is None


@pytest.mark.parametrize(
    ("token", "reason", "claims"),
    [
        ("", "no_token", {}),
        ("hello", "malformed_token", {}),
        ("a b", "malformed_token", {}),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.", "algorithm", {"sub": "ada"}),
        ("!!!.eyJzdWIiOiJhZGEifQ.!!!", "malformed_token", {"sub": "ada"}),
        ("e30.\u00e4.\ud800", "malformed_token", {}),
        ("[" * 9000, "token_too_large", {}),
    ],
)
def test_what_can_be_read_of_a_hopeless_token_is_shown(
    token: str, reason: str, claims: dict[str, str], identity: Identity
) -> None:
    facts = identity.inspect(token)
    assert [fault.reason.value for fault in facts.faults] == [reason]
    assert facts.claims == claims
    assert facts.verdicts == ()
    assert not facts.is_accepted
