"""A secret shows itself to nobody who does not ask by name."""

import copy
import json
import pickle
from collections.abc import Callable

import orjson
import pytest

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret, account_fingerprint

VALUE = "sk-0123456789abcdef"
SECRET = Secret(VALUE)


WAYS: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "an f-string": lambda secret: f"{secret}",
    "a padded f-string": lambda secret: f"{secret:>40}",
    "the old way": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - that way of formatting too
    "inside a list": lambda secret: repr([secret]),
    "inside a tenant": lambda secret: repr(Tenant("acme", "a", secret, next_key=secret)),
    "JSON": lambda secret: json.dumps({"key": secret}, default=str),
    "quick JSON": lambda secret: orjson.dumps({"key": secret}, default=str).decode(),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_never_printed(way: str) -> None:
    shown = WAYS[way](SECRET)
    assert VALUE not in shown
    assert VALUE[3:] not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_leaves_the_process_is_its_fingerprint(protocol: int) -> None:
    octets = pickle.dumps({"key": SECRET, "tenant": Tenant("acme", "a", SECRET).key}, protocol)
    assert VALUE[3:].encode() not in octets
    assert pickle.loads(octets) == {"key": repr(SECRET), "tenant": repr(SECRET)}


def test_a_copy_is_the_same_secret() -> None:
    assert copy.copy(SECRET) is SECRET
    assert copy.deepcopy([SECRET])[0] is SECRET


def test_equal_secrets_are_equal_and_named_alike() -> None:
    assert Secret(VALUE) == SECRET
    assert hash(Secret(VALUE)) == hash(SECRET)
    assert Secret(VALUE).fingerprint() == SECRET.fingerprint()
    assert Secret("other") != SECRET
    assert SECRET != VALUE


def test_a_stable_fingerprint_depends_on_its_key() -> None:
    assert SECRET.stable_fingerprint(b"one") == Secret(VALUE).stable_fingerprint(b"one")
    assert SECRET.stable_fingerprint(b"one") != SECRET.stable_fingerprint(b"two")


def test_children_of_one_key_are_accounts_of_their_own() -> None:
    names = {account_fingerprint(SECRET, child) for child in (None, "a", "b")}
    assert len(names) == 3
    assert account_fingerprint(Secret(VALUE), "a") in names
