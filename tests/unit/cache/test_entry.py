"""Entries at rest: what goes in comes out, and only for who may open it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.cache.entry import Entry, EntryCodec

ENTRY = Entry(200, "application/json", "en", '"tag"', b'{"a":\n1}', 1000, 61_000, 3)


@given(st.binary(max_size=200), st.sampled_from([None, b"k" * 32]))
def test_what_goes_in_comes_out(body: bytes, key: bytes | None) -> None:
    codec = EntryCodec(key)
    entry = Entry(200, "application/json", "", '"t"', body, 5, 6)
    assert codec.decode(codec.encode(entry, "name"), "name", 5, 6) == entry


@pytest.mark.parametrize(
    ("written", "read", "name"),
    [
        (b"k" * 32, b"x" * 32, "name"),
        (b"k" * 32, None, "name"),
        (None, b"k" * 32, "name"),
        (b"k" * 32, b"k" * 32, "another"),
    ],
)
def test_an_entry_opens_only_under_its_key_and_its_name(
    written: bytes | None, read: bytes | None, name: str
) -> None:
    at_rest = EntryCodec(written).encode(ENTRY, "name")
    assert EntryCodec(read).decode(at_rest, name, 0, 1) is None


@pytest.mark.parametrize("position", [0, 1, 13, 20, -1])
def test_a_changed_byte_opens_nothing(position: int) -> None:
    codec = EntryCodec(b"k" * 32)
    at_rest = bytearray(codec.encode(ENTRY, "name"))
    at_rest[position] ^= 1
    assert codec.decode(bytes(at_rest), "name", 0, 1) is None


@pytest.mark.parametrize("at_rest", [b"", b"\x00", b"\x00[]\nx", b"\x00nonsense", b"\x02x", b"\x01short"])
def test_what_is_no_entry_opens_as_nothing(at_rest: bytes) -> None:
    assert EntryCodec(None).decode(at_rest, "name", 0, 1) is None
    assert EntryCodec(b"k" * 32).decode(at_rest, "name", 0, 1) is None


def test_two_sealings_of_one_entry_differ() -> None:
    codec = EntryCodec(b"k" * 32)
    assert codec.encode(ENTRY, "name") != codec.encode(ENTRY, "name")


@pytest.mark.parametrize(("now_ms", "age_s"), [(1000, 3), (1999, 3), (2000, 4), (0, 3)])
def test_age_counts_from_the_upstream(now_ms: int, age_s: int) -> None:
    assert ENTRY.age_s(now_ms) == age_s
