"""A secret shows itself to nobody who does not ask by name."""

import copy
import json
import pickle

import orjson
import pytest

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret, account_fingerprint

VALUE = "sk-0123456789abcdef"
SECRET = Secret(VALUE)


@pytest.mark.parametrize(
    "shown",
    [
        repr(SECRET),
        str(SECRET),
        f"{SECRET}",
        f"{SECRET:>40}",
        "%s %r" % (SECRET, SECRET),  # noqa: UP031 - that way of formatting too
        repr([SECRET]),
        repr(Tenant("acme", "a", SECRET, next_key=SECRET)),
        json.dumps({"key": SECRET}, default=str),
        orjson.dumps({"key": SECRET}, default=str).decode(),
    ],
)
def test_it_is_never_printed(shown: str) -> None:
    assert VALUE not in shown
    assert VALUE[3:] not in shown


def test_it_cannot_leave_its_process() -> None:
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leave(SECRET)


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
