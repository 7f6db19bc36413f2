from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.identity import IssuerOptions, JwksOptions, KeyFault
from cbk_gateway.identity.key_set import FetchFault, fresh_for_s, read_discovery, read_key_set
from cbk_gateway.identity.signatures import from_published
from unit.identity.forge import Forge

BOUNDS = JwksOptions(refresh_s=300, min_refresh_s=60, max_refresh_s=3600, max_age_s=86400)
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")


def policy(issuer: str = "https://idp.example", *algorithms: str) -> IssuerOptions:
    return IssuerOptions("idp", issuer, algorithms or ALGORITHMS, discovery=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 300),
        ({"Cache-Control": "max-age=900"}, 900),
        ({"Cache-Control": "public, MAX-AGE=900, must-revalidate"}, 900),
        ({"Cache-Control": 'max-age="900"'}, 900),
        ({"Cache-Control": "max-age=900", "Age": "100"}, 800),
        ({"Cache-Control": "max-age=1"}, 60),
        ({"Cache-Control": "max-age=99999999"}, 3600),
        ({"Cache-Control": "no-store"}, 60),
        ({"Cache-Control": "no-cache, max-age=900"}, 60),
        ({"Cache-Control": "max-age=soon"}, 300),
        ({"Cache-Control": "max-age=-5"}, 300),
        ({"Cache-Control": "s-maxage=5, private"}, 300),
    ],
)
def test_freshness_is_the_issuers_within_our_bounds(headers: dict[str, str], seconds: float) -> None:
    assert fresh_for_s(headers, BOUNDS) == seconds


def test_a_set_is_asked_for_again_before_it_is_too_old_to_be_used() -> None:
    bounds = JwksOptions(max_refresh_s=1000, max_age_s=200)
    assert fresh_for_s({"Cache-Control": "max-age=1000"}, bounds) == 100


def test_a_key_without_alg_serves_every_algorithm_of_its_kind(forge: Forge) -> None:
    jwk = forge.jwk(forge.rsa, "RS256") | {"kid": "k"}
    del jwk["alg"]
    assert {key.alg for key in from_published(jwk, ALGORITHMS)} == {"RS256", "PS256"}
    assert {key.alg for key in from_published(jwk | {"alg": "PS256"}, ALGORITHMS)} == {"PS256"}


def test_the_keys_left_out_are_told(forge: Forge) -> None:
    body = json.dumps({"keys": [forge.jwk(forge.p256, "ES256"), {"kty": "oct", "k": "AA"}, 5]}).encode()
    published = read_key_set(body, {}, policy())
    assert len(published.keys) == 1
    assert len(published.skipped) == 2
    assert not any("AA" in text for text in published.skipped)


@pytest.mark.parametrize(
    ("issuer", "document"),
    [
        ("https://idp.example", {"issuer": "https://idp.example/", "jwks_uri": "https://idp.example/k"}),
        ("https://idp.example", {"jwks_uri": "https://idp.example/k"}),
        ("https://idp.example", {"issuer": "https://idp.example"}),
        ("https://idp.example", {"issuer": "https://idp.example", "jwks_uri": 5}),
        ("https://idp.example", {"issuer": "https://idp.example", "jwks_uri": "http://idp.example/k"}),
        ("https://idp.example", {"issuer": "https://idp.example", "jwks_uri": "http://127.0.0.1/k"}),
        ("https://idp.example", {"issuer": "https://idp.example", "jwks_uri": "file:///etc/passwd"}),
        ("http://127.0.0.1", {"issuer": "http://127.0.0.1", "jwks_uri": "http://10.0.0.1/k"}),
        ("https://idp.example", []),
    ],
)
def test_a_discovery_document_must_be_the_issuers_and_lead_somewhere_safe(issuer: str, document: Any) -> None:
    with pytest.raises(FetchFault):
        read_discovery(json.dumps(document).encode(), policy(issuer))


def test_discovery_may_lead_to_another_https_host() -> None:
    document = {"issuer": "https://idp.example", "jwks_uri": "https://keys.example/k"}
    assert read_discovery(json.dumps(document).encode(), policy()) == "https://keys.example/k"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    members=st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid", "k", "d"]),
        st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "Ed448", "AQAB", "sig"])
        | json_values,
    )
)
def test_no_member_of_a_set_gives_anything_but_a_key_or_a_fault(members: dict[str, Any]) -> None:
    """Invariant: a published key is usable or a KeyFault; a set is never the end of the fetcher."""
    with contextlib.suppress(KeyFault):
        assert from_published(members, ALGORITHMS)


@given(body=st.binary() | json_values.map(lambda value: json.dumps({"keys": value}).encode()))
def test_no_body_gives_anything_but_a_set_or_a_fault(body: bytes) -> None:
    with contextlib.suppress(FetchFault):
        assert read_key_set(body, {}, policy()).keys
