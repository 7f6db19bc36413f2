"""The line format: what is sealed can be taken apart, and nothing else can."""

from __future__ import annotations

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.audit import chain

MAC_KEY = b"m" * 32


def test_a_sealed_line_is_one_json_object_with_its_chain_fields_last() -> None:
    line, head = chain.seal(b'{"time":"t","kind":"intent"}', chain.Head(), MAC_KEY)
    assert line.count(b"\n") == 1
    record = orjson.loads(line)
    assert list(record) == ["time", "kind", "seq", "prev", "mac", "hash"]
    assert (record["seq"], record["prev"], record["hash"]) == (1, chain.GENESIS, head.digest)


def test_each_line_carries_the_digest_of_the_one_before() -> None:
    first, head = chain.seal(b'{"n":1}', chain.Head(), MAC_KEY)
    second, _ = chain.seal(b'{"n":2}', head, MAC_KEY)
    assert orjson.loads(second)["prev"] == orjson.loads(first)["hash"]


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53), min_size=1))
def test_no_content_can_pose_as_chain_fields(fields: dict[str, object]) -> None:
    """Whatever stands in a record, the fields that count are the ones the chain wrote."""
    body = orjson.dumps({"time": "t", **{f"x{name}": value for name, value in fields.items()}})
    line, head = chain.seal(body, chain.Head(41, "a" * 64), MAC_KEY)
    link = chain.take_apart(line)
    assert link is not None
    assert (link.seq, link.prev, link.digest) == (42, "a" * 64, head.digest)
    assert chain.is_intact(line, link)
    assert chain.is_ours(line, link, MAC_KEY)


def test_a_text_that_looks_like_a_tail_is_not_taken_for_one() -> None:
    fake = ',"seq":9,"prev":"' + "0" * 64 + '","mac":"' + "0" * 32 + '","hash":"' + "0" * 64 + '"}\n'
    line, _ = chain.seal(orjson.dumps({"name": fake}), chain.Head(), MAC_KEY)
    link = chain.take_apart(line)
    assert link is not None
    assert link.seq == 1


@pytest.mark.parametrize("signed", [False, True])
def test_every_single_byte_flip_of_a_line_shows(signed: bool) -> None:
    key = Ed25519PrivateKey.generate()
    sign = key.sign if signed else None
    line, _ = chain.seal(b'{"time":"t","kind":"seal"}', chain.Head(), MAC_KEY, sign)
    for position in range(len(line)):
        for bit in range(8):
            altered = bytearray(line)
            altered[position] ^= 1 << bit
            link = chain.take_apart(bytes(altered))
            assert link is None or not chain.is_intact(bytes(altered), link), (position, bit)


def test_a_line_made_without_the_key_is_not_ours() -> None:
    line, _ = chain.seal(b'{"n":1}', chain.Head(), b"another key")
    link = chain.take_apart(line)
    assert link is not None
    assert chain.is_intact(line, link)
    assert not chain.is_ours(line, link, MAC_KEY)


def test_a_signature_covers_the_line_up_to_it() -> None:
    key = Ed25519PrivateKey.generate()
    line, _ = chain.seal(b'{"n":1}', chain.Head(), MAC_KEY, key.sign)
    link = chain.take_apart(line)
    assert link is not None
    assert link.sig is not None
    key.public_key().verify(bytes.fromhex(link.sig), chain.message_of(line))
    assert chain.is_ours(line, link, MAC_KEY)


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b'{"seq":1}\n', b"\x00" * 500, b'{"a":1,"seq":0,"prev":""}\n']
)
def test_what_is_no_sealed_line_has_no_link(line: bytes) -> None:
    assert chain.take_apart(line) is None
