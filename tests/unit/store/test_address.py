"""Store URLs: what they mean, and that no password is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.store import StoreShape, parse


@pytest.mark.parametrize(
    ("url", "shape", "hosts", "shown"),
    [
        ("embedded", StoreShape.EMBEDDED, (), "embedded"),
        ("unix:///run/v.sock", StoreShape.UNIX, (), "unix:///run/v.sock"),
        ("unix:///run/v.sock?db=2", StoreShape.UNIX, (), "unix:///run/v.sock?db=2"),
        ("redis://h", StoreShape.SINGLE, (("h", 6379),), "redis://h:6379/0"),
        ("rediss://u:p%40w@h:7/3", StoreShape.SINGLE, (("h", 7),), "rediss://u:***@h:7/3"),
        ("redis://:pw@[::1]:7", StoreShape.SINGLE, (("::1", 7),), "redis://:***@[::1]:7/0"),
        (
            "redis+sentinel://a,b:2/main",
            StoreShape.SENTINEL,
            (("a", 26379), ("b", 2)),
            "redis+sentinel://a:26379,b:2/main",
        ),
        (
            "redis+cluster://:pw@a:1,b:2",
            StoreShape.CLUSTER,
            (("a", 1), ("b", 2)),
            "redis+cluster://:***@a:1,b:2",
        ),
        ("rediss+cluster://a", StoreShape.CLUSTER, (("a", 6379),), "rediss+cluster://a:6379"),
    ],
)
def test_a_url_means_by_the_table(
    url: str, shape: StoreShape, hosts: tuple[tuple[str, int], ...], shown: str
) -> None:
    address = parse(url)
    assert (address.shape, address.hosts, address.shown) == (shape, hosts, shown)
    assert parse(address.shown).hosts == hosts


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://h",
        "redis://",
        "redis://h:notaport",
        "redis://h:99999",
        "redis://h/x",
        "unix://",
        "redis+sentinel://h",
        "redis+cluster://h/1",
        "memory",
    ],
)
def test_what_is_no_store_url_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(ValueError, match=r"store URL|Cluster|sentinel"):
        parse(url)


@given(st.text("abc:@/%?#[]", min_size=1, max_size=20))
def test_no_password_is_ever_shown(noise: str) -> None:
    # Invariant: a URL that is understood shows no password; one that is not gives a message without it.
    secret = "hunter2hunter2"
    shown = ""
    try:
        address = parse(f"redis://user:{secret}@{noise}")
        shown = address.shown + repr(address)
    except ValueError as exc:
        shown = str(exc)
    assert secret not in shown
