from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cbk_gateway.identity import IdentityOptions, IssuerOptions, JwksOptions, VerifyKey, weaknesses
from cbk_gateway.secret import Secret

HMAC = VerifyKey("k", "HS256", Secret("x" * 32))


def issuer(**changed: Any) -> IssuerOptions:
    return IssuerOptions(
        **{"name": "one", "issuer": "one", "algorithms": ("HS256",), "keys": (HMAC,)} | changed
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: issuer(algorithms=()), "algorithms"),
        (lambda: issuer(algorithms=("none",)), "none"),
        (lambda: issuer(algorithms=("HS256", "ES256K")), "ES256K"),
        (lambda: issuer(algorithms=("HS256", "RS256")), "mixed"),
        (lambda: issuer(algorithms=("HS512",)), "HS256"),
        (lambda: issuer(keys=()), "give keys"),
        (lambda: issuer(keys=(HMAC, HMAC)), "share"),
        (lambda: issuer(jwks_url="https://a.example/k"), "HMAC"),
        (lambda: issuer(algorithms=("ES256",), keys=(), jwks_url="http://a.example/k"), "https"),
        (lambda: issuer(algorithms=("ES256",), keys=(), jwks_url="https://u:p@a.example/k"), "credentials"),
        (lambda: issuer(algorithms=("ES256",), keys=(), discovery=True, issuer=None), "URL"),
        (lambda: issuer(algorithms=("ES256",), keys=(), discovery=True, issuer="corp"), "URL"),
        (
            lambda: issuer(
                algorithms=("ES256",), keys=(), discovery=True, issuer="https://a", jwks_url="https://a/k"
            ),
            "not both",
        ),
        (lambda: issuer(leeway_s=-1), "leeway_s"),
        (lambda: issuer(max_lifetime_s=0), "max_lifetime_s"),
        (lambda: issuer(audience=()), "audience"),
        (lambda: VerifyKey("k", "HS256", "a plain text"), "secret"),
        (lambda: VerifyKey("k", "RS256", Secret("-----BEGIN PUBLIC KEY-----")), "PEM"),
        (lambda: VerifyKey("k", "none", ""), "none"),
        (lambda: JwksOptions(min_refresh_s=10, max_refresh_s=5), "min_refresh_s"),
        (lambda: JwksOptions(timeout_s=0), "timeout_s"),
        (lambda: JwksOptions(cooldown_s=-1), "cooldown_s"),
        (lambda: IdentityOptions((issuer(), issuer())), "name"),
        (lambda: IdentityOptions((issuer(), issuer(name="two"))), "iss"),
        (lambda: IdentityOptions((), max_token_chars=0), "max_token_chars"),
    ],
)
def test_a_contradiction_is_told_in_one_sentence(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_two_issuers_may_share_their_value_under_different_algorithms() -> None:
    public = issuer(name="two", algorithms=("ES256",), keys=(), jwks_url="https://a.example/k")
    assert len(IdentityOptions((issuer(), public)).issuers) == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"keys": (VerifyKey("k", "HS256", Secret("x" * 31)),)}, "shorter than 32 bytes"),
        ({"audience": ("*",)}, "other services"),
        ({"max_lifetime_s": None}, "lifetime"),
        ({"algorithms": ("ES256",), "keys": (), "jwks_url": "https://a.example/k"}, "every tenant"),
    ],
)
def test_a_risky_choice_is_named(changed: dict[str, Any], words: str) -> None:
    sound = {"audience": ("door",), "max_lifetime_s": 60.0}
    (text,) = weaknesses(IdentityOptions((issuer(**sound | changed),)))
    assert words in text
    assert weaknesses(IdentityOptions((issuer(**sound),))) == ()


def test_no_option_shows_its_secret() -> None:
    assert "xxx" not in repr(IdentityOptions((issuer(),)))
