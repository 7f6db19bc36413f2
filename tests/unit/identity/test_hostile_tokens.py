"""Hostile tokens after RFC 7515, 7519 and 8725: each is refused and leaves no trace in memory."""

from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity import Identity
from unit.identity.forge import SECRET, Forge
from unit.identity.hostile import CASES, CLAIM_CASES


async def refusal(identity: Identity, token: str) -> NotAuthenticated:
    with pytest.raises(NotAuthenticated) as caught:
        await identity.identify([f"Bearer {token}"])
    assert identity.identify_now(f"Bearer {token}") is None
    assert "0 tokens remembered" in repr(identity)
    return caught.value


@pytest.mark.parametrize("name", CASES)
async def test_a_hostile_token_is_refused(name: str, identity: Identity, forge: Forge) -> None:
    reason, make = CASES[name]
    refused = await refusal(identity, make(forge))
    assert refused.reason == reason
    assert refused.status == 401


@pytest.mark.parametrize("name", CLAIM_CASES)
async def test_hostile_claims_are_refused_though_correctly_signed(
    name: str, identity: Identity, forge: Forge
) -> None:
    reason, changed = CLAIM_CASES[name]
    assert (await refusal(identity, forge.token(forge.claims(**changed)))).reason == reason


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES512", "EdDSA"])
async def test_the_same_claims_unspoilt_are_accepted(alg: str, identity: Identity, forge: Forge) -> None:
    principal = await identity.identify([f"Bearer {forge.token(alg=alg)}"])
    assert (principal.tenant, principal.subject, principal.issuer) == ("acme", "ada", "corp")
    assert principal.scopes == ("bot:fetch", "*:read")


async def test_no_refusal_says_what_would_have_been_right(identity: Identity, forge: Forge) -> None:
    spoilt = [make(forge) for _, make in CASES.values()]
    spoilt += [forge.token(forge.claims(**changed)) for _, changed in CLAIM_CASES.values()]
    for token in spoilt:
        refused = await refusal(identity, token)
        answer = refused.body().decode() + str(refused.headers)
        for ours in ("corp", "https://", "door", "k-RS256", "RS256", "3600", SECRET, token):
            assert ours not in answer


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(position=st.integers(min_value=0), letter=st.sampled_from("AQgwBz_-09."))
def test_no_other_spelling_of_a_good_token_is_accepted(
    position: int, letter: str, identity: Identity, forge: Forge
) -> None:
    """Invariant: one signature, one text. A change of any character is refused, or changed nothing."""
    token = forge.token(alg="EdDSA")
    at = position % len(token)
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token:
        assert outcome(identity, changed) is NotAuthenticated


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(value=st.one_of(st.text(), st.from_regex(r"(?i)bearer +[A-Za-z0-9_.-]*"), st.binary().map(str)))
@example(value="Bearer " + "\udcff" * 3)
@example(value="Bearer " + base64.b64encode(bytes(99)).decode())
def test_no_header_value_gives_anything_but_a_refusal(value: str, identity: Identity) -> None:
    """Invariant: a principal, or NotAuthenticated; never another exception."""
    assert outcome(identity, None, value) is NotAuthenticated
    assert identity.identify_now(value) is None


def outcome(identity: Identity, token: str | None, value: str = "") -> type[Exception] | None:
    """How `identify` ends, run to its end without a loop: with configured keys it never waits."""
    call = identity.identify([value if token is None else f"Bearer {token}"])
    try:
        call.send(None)
    except StopIteration:
        return None
    except Exception as error:  # noqa: BLE001 - the type is what the test is about
        return type(error)
    finally:
        call.close()
    return RuntimeError
