"""Validators, codings and JSON Lines, as tables."""

from __future__ import annotations

import gzip

import pytest

from cbk_gateway.cache import representation as rep
from cbk_gateway.operation import understand


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
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP, br", True),
        ("br;q=1.0, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("gzip;q=x", False),
        ("gzipped", False),
    ],
)
def test_gzip_is_chosen_only_where_it_is_acceptable(header: str | None, expected: bool) -> None:
    assert rep.accepts_gzip(header) is expected


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


def test_compression_is_reproducible_and_pays_or_is_left() -> None:
    body = b"x" * 5000
    packed = rep.compressed(body)
    assert packed is not None
    assert packed == rep.compressed(body)
    assert gzip.decompress(packed) == body
    assert rep.compressed(b"x") is None


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
