from __future__ import annotations

import pytest

from cbk_gateway.identity.addresses import discovery_address, fault_of_key_address, redirect_target


@pytest.mark.parametrize(
    "address",
    [
        "https://idp.example/keys",
        "https://idp.example:8443/a/b?c=d",
        "http://127.0.0.1:8080/keys",
        "http://127.9.9.9/keys",
        "http://[::1]/keys",
        "http://localhost/keys",
    ],
)
def test_https_and_loopback_are_accepted(address: str) -> None:
    assert fault_of_key_address(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "http://idp.example/keys",
        "http://10.0.0.1/keys",
        "http://169.254.169.254/latest",
        "http://localhost.evil.example/keys",
        "http://127.0.0.1.evil.example/keys",
        "http://2130706433/keys",
        "file:///etc/passwd",
        "ftp://idp.example/keys",
        "data:application/json,{}",
        "https:///keys",
        "//idp.example/keys",
        "idp.example/keys",
        "",
        "https://user:word@idp.example/keys",
        "https://idp.example:99999/keys",
        "https://[::1/keys",
        "https://idp.example/keys#one",
    ],
)
def test_anything_else_is_a_fault(address: str) -> None:
    assert fault_of_key_address(address)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/other", "https://idp.example/other"),
        ("other", "https://idp.example/other"),
        ("https://idp.example/other", "https://idp.example/other"),
        ("https://IDP.example/other", "https://IDP.example/other"),
        ("https://evil.example/keys", None),
        ("//evil.example/keys", None),
        ("http://idp.example/keys", None),
        ("https://idp.example:444/keys", None),
        ("https://idp.example@evil.example/keys", None),
        ("https://u:p@idp.example/keys", None),
        ("file:///etc/passwd", None),
        ("https://[/keys", None),
    ],
)
def test_a_redirect_stays_on_its_host(location: str, target: str | None) -> None:
    assert redirect_target("https://idp.example/keys", location) == target


def test_discovery_is_below_the_issuer() -> None:
    expected = "https://idp.example/realm/.well-known/openid-configuration"
    assert discovery_address("https://idp.example/realm") == expected
    assert discovery_address("https://idp.example/realm/") == expected
