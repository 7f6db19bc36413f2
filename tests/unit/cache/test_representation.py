"""Validators, codings and JSON Lines, as tables."""

from __future__ import annotations

import gzip
import sys

import pytest

from cbk_gateway.cache import representation as rep
from cbk_gateway.operation import understand

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNPACKED = {"gzip": gzip.decompress, "zstd": zstd.decompress}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ("*", True),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", W/"a"', True),
        ('"b"', False),
        ('"a-gzip"', False),
        ("a", False),
        ('"b"a"', False),
    ],
)
def test_if_none_match_compares_weakly(header: str | None, expected: bool) -> None:
    assert rep.matches(header, '"a"') is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ()),
        ("", ()),
        ("gzip", ("gzip",)),
        ("x-gzip", ("gzip",)),
        ("GZIP, br", ("gzip",)),
        ("zstd", ("zstd",)),
        ("gzip, deflate, br, zstd", ("zstd", "gzip")),
        ("gzip, zstd;q=0.9", ("gzip", "zstd")),
        ("gzip;q=0.001, zstd;q=0", ("gzip",)),
        ("br;q=1.0, gzip;q=0.5", ("gzip",)),
        ("gzip;q=0.5, identity", ()),
        ("gzip;q=0.5, zstd, identity;q=0.8", ("zstd",)),
        ("gzip, identity", ("gzip",)),
        ("gzip ; q=0.5 , identity;q=0", ("gzip",)),
        ("gzip;q=0", ()),
        ("gzip;q=0.0, *", ("zstd",)),
        ("*", ("zstd", "gzip")),
        ("*;q=0", ()),
        ("identity", ()),
        ("gzip;q=x", ()),
        ("gzip;q=nan", ()),
        ("gzip;q=1e3", ()),
        ("gzip;q=2", ()),
        ("gzipped", ()),
    ],
)
def test_codings_are_taken_in_the_order_that_the_client_likes(
    header: str | None, expected: tuple[str, ...]
) -> None:
    assert rep.codings(header) == expected


def test_entity_tags_differ_by_body_type_and_coding() -> None:
    tags = {
        rep.entity_tag(b"a", "application/json"),
        rep.entity_tag(b"b", "application/json"),
        rep.entity_tag(b"a", "application/jsonl"),
        rep.coded_tag(rep.entity_tag(b"a", "application/json"), "gzip"),
    }
    assert len(tags) == 4
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)
    # A constant of the wire: clients keep it over restarts and upgrades of the gateway.
    assert rep.entity_tag(b"a", "application/json") == '"pOIFLg0NsUON1zwegCxwfA"'


@pytest.mark.parametrize("coding", rep.CODINGS)
def test_compression_is_reproducible_and_pays_or_is_left(coding: str) -> None:
    body = b"x" * 5000
    packed = rep.compressed(body, coding)
    assert packed is not None
    assert packed == rep.compressed(body, coding)
    assert UNPACKED[coding](packed) == body
    assert rep.compressed(b"x", coding) is None


def test_a_client_need_not_remember_more_than_eight_mebibytes_to_unpack_zstd() -> None:
    packed = rep.compressed(bytes(range(256)) * (9 << 12), "zstd")
    assert packed is not None
    eight_mebibytes = {int(zstd.DecompressionParameter.window_log_max): 23}
    assert len(zstd.decompress(packed, options=eight_mebibytes)) == 9 << 20


@pytest.mark.parametrize(
    ("query", "take"),
    [
        ("", None),
        ("take=5", 5),
        ("take=100", 100),
        ("take=101", None),
        ("take=0", None),
        ("take=5&take=9", 5),
        ("take=x&take=9", None),
        ("order=asc&take=7", 7),
    ],
)
def test_the_page_size_is_read_as_the_api_reads_it(query: str, take: int | None) -> None:
    assert rep.take_of(query) == take


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/bot/list", True),
        ("/contact/c1/task/list", True),
        ("/platform/model/list", False),
        ("/dataset/d1/file/list", False),
        ("/bot/b1/fetch", False),
    ],
)
def test_which_lists_a_page_can_speak_for(path: str, expected: bool) -> None:
    assert rep.can_walk_in_one_page(understand("GET", f"/v1{path}")) is expected


@pytest.mark.parametrize(
    ("page", "take", "lines"),
    [
        (b'{"items":[]}', None, b""),
        (b'{"items":[{"a":"\xc3\xa9"}]}', None, b'{"type":"item","data":{"a":"\xc3\xa9"}}\n'),
        (b'{"items":[1,2,3]}', 2, b'{"type":"item","data":1}\n{"type":"item","data":2}\n'),
        (b'{"items":[' + b",".join([b"1"] * 100) + b"]}", None, None),
        (b'{"items":[' + b",".join([b"1"] * 100) + b"]}", 100, b'{"type":"item","data":1}\n' * 100),
        (b'{"id":1}', None, None),
        (b"[]", None, None),
        (b"{", None, None),
    ],
)
def test_a_page_as_json_lines(page: bytes, take: int | None, lines: bytes | None) -> None:
    assert rep.as_jsonl(page, take) == lines
