from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cbk_gateway.identity import Revocation, RevocationKind
from cbk_gateway.identity.revocation import RevocationList, revocation_of
from cbk_gateway.parties import Principal

ADA = Principal("acme", "ada", "t-1", "corp", (), 1000, 2000, "f")


def revoke(**target: Any) -> Revocation:
    return revocation_of(**{"now": 1000.5, "keep_s": 600.0} | target)


@pytest.mark.parametrize(
    ("target", "hits"),
    [
        ({"token_id": "t-1"}, True),
        ({"token_id": "t-2"}, False),
        ({"subject": ("acme", "ada")}, True),
        ({"subject": ("acme", "bob")}, False),
        ({"subject": ("globex", "ada")}, False),
        ({"tenant": "acme"}, True),
        ({"tenant": "globex"}, False),
        ({"issued_before": 1001}, True),
        ({"issued_before": 1000}, False),
        ({"tenant": "acme", "issued_before": 1000}, False),
        ({"subject": ("acme", "ada"), "issued_before": 1001}, True),
    ],
)
def test_a_revocation_hits_what_it_names(target: dict[str, Any], hits: bool) -> None:
    revocation = revoke(**target)
    known = RevocationList()
    known.put(revocation)
    assert revocation.matches(ADA) is hits
    assert (known.find(ADA) is revocation) is hits


def test_now_takes_the_running_second_with_it_and_spares_the_next() -> None:
    revocation = revoke(subject=("acme", "ada"))
    assert revocation.matches(replace(ADA, issued_at=1000))
    assert not revocation.matches(replace(ADA, issued_at=1001))


def test_a_token_without_issue_time_is_older_than_anything() -> None:
    assert revoke(issued_before=1).matches(replace(ADA, issued_at=0))


def test_a_token_without_id_is_not_hit_by_ids() -> None:
    known = RevocationList()
    known.put(revoke(token_id="None"))
    assert known.find(replace(ADA, token_id=None)) is None


@pytest.mark.parametrize(
    "target",
    [
        {},
        {"token_id": "t", "tenant": "acme"},
        {"tenant": "acme", "subject": ("acme", "ada")},
        {"token_id": "t", "issued_before": 5},
    ],
)
def test_a_revocation_needs_one_target(target: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        revoke(**target)


@pytest.mark.parametrize(
    ("target", "expires_at"),
    [
        ({"token_id": "t"}, 1602),
        ({"tenant": "acme", "issued_before": 5000}, 5601),
        ({"token_id": "t", "expires_at": 1234}, 1234),
        ({"token_id": "t", "keep_s": None}, None),
    ],
)
def test_it_is_kept_until_its_tokens_have_expired(target: dict[str, Any], expires_at: int | None) -> None:
    revocation = revoke(**target)
    assert revocation.expires_at == expires_at
    assert not revocation.has_expired(1100)
    assert revocation.has_expired(10_000) is (expires_at is not None)


@pytest.mark.parametrize(
    "target", [{"token_id": "t"}, {"subject": ("acme", "\u00e4")}, {"tenant": "acme"}, {"issued_before": 9}]
)
def test_a_record_reads_back_as_it_was(target: dict[str, Any]) -> None:
    revocation = revoke(**target, note="why \u2013 because")
    assert Revocation.from_record(revocation.as_record()) == revocation


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"kind": "other"}', b"\xff"])
def test_a_record_that_is_not_ours_is_an_error(record: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        Revocation.from_record(record)


def test_the_name_is_the_targets_so_repeating_renews() -> None:
    assert revoke(tenant="acme").id == revoke(tenant="acme", now=5000.0, note="again").id
    targets: list[dict[str, Any]] = [
        {"tenant": "a"}, {"tenant": "b"}, {"token_id": "a"}, {"subject": ("a", "b")},
        {"subject": ("a", "a")}, {"issued_before": 5},
    ]  # fmt: skip
    assert len({revoke(**target).id for target in targets}) == len(targets)


def test_a_list_takes_over_drops_and_prunes() -> None:
    known = RevocationList()
    old, new = revoke(tenant="old"), revoke(tenant="new", now=2000.0)
    assert known.put(old)
    assert not known.put(old)
    assert known.replace([old, new]) == (new,)
    assert known.entries() == (new, old)
    assert known.replace([new]) == ()
    assert old.id not in known
    known.prune(2_000_000.0)
    assert len(known) == 0
    assert known.drop(new.id) is None


def test_kinds_are_told_apart() -> None:
    targets: list[dict[str, Any]] = [{"token_id": "t"}, {"tenant": "t"}, {"issued_before": 1}]
    expected = [RevocationKind.TOKEN, RevocationKind.TENANT, RevocationKind.EVERYTHING]
    assert [revoke(**target).kind for target in targets] == expected
