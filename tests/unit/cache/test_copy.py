"""How an entry becomes an answer: times, variants, validators."""

from __future__ import annotations

import pytest

from cbk_gateway.cache.copy import Copy, Form, Wish
from cbk_gateway.cache.entry import Entry
from cbk_gateway.cache.representation import compressed

PAGE = b'{"items":[' + b",".join(b'{"id":"b%d"}' % number for number in range(50)) + b"]}"


def copy(body: bytes = PAGE, status: int = 200, age_s: int = 0) -> Copy:
    """Kept ten seconds ago by the store's clock, for a minute; the store was asked at 100."""
    entry = Entry(status, "application/json", "en", '"t"', body, 0, 60_000, age_s)
    names = {"account": "acme", "digest": "d", "label": "bot /bot/list", "reads": ("bot",)}
    return Copy(entry, sent_at=100.0, now_ms=10_000, **names)  # type: ignore[arg-type]  # a table of words


def packed(form: Form, *codings: str) -> None:
    for coding in codings:
        variant = compressed(form.plain.body, coding)
        assert variant is not None
        form.add(coding, variant)


@pytest.mark.parametrize(
    ("now", "age_s", "ttl_s"), [(100.0, 10, 50), (149.9, 59, 0), (150.0, 60, 0), (150.1, 60, -1)]
)
def test_age_and_lifetime_go_on_by_the_clock_of_this_process(now: float, age_s: int, ttl_s: int) -> None:
    one = copy()
    assert (one.age_s(now), one.ttl_s(now)) == (age_s, ttl_s)
    assert copy(age_s=7).age_s(now) == age_s + 7


@pytest.mark.parametrize(
    ("prepared", "wished", "coding"),
    [
        ((), ("zstd", "gzip"), None),
        (("gzip",), ("zstd", "gzip"), "gzip"),
        (("gzip", "zstd"), ("zstd", "gzip"), "zstd"),
        (("gzip", "zstd"), ("gzip",), "gzip"),
        (("gzip", "zstd"), (), None),
    ],
)
def test_the_best_variant_that_is_there_is_sent(
    prepared: tuple[str, ...], wished: tuple[str, ...], coding: str | None
) -> None:
    one = copy()
    packed(one.form, *prepared)
    hit = one.hit(100.0, Wish(codings=wished))
    assert hit is not None
    fields = dict(hit.headers)
    assert fields.get("Content-Encoding") == coding
    assert fields["ETag"] == (f'"t-{coding}"' if coding else '"t"')
    assert (fields["Content-Type"], fields["Content-Language"]) == ("application/json", "en")
    assert fields["Age"] == "10"


@pytest.mark.parametrize(
    ("if_none_match", "wished", "tag"),
    [
        ('"t"', (), '"t"'),
        ('"t"', ("zstd",), '"t"'),
        ('"t-zstd"', ("zstd",), '"t-zstd"'),
        ('"t-gzip"', ("zstd", "gzip"), '"t-gzip"'),
        ('"t-gzip", "t-zstd"', ("zstd", "gzip"), '"t-zstd"'),
        ('"t-gzip"', ("zstd",), None),
        ('"t-gzip"', (), None),
        ("*", (), '"t"'),
        ("*", ("zstd",), '"t-zstd"'),
        (None, ("zstd",), None),
    ],
)
def test_a_client_keeps_whatever_variant_it_takes(
    if_none_match: str | None, wished: tuple[str, ...], tag: str | None
) -> None:
    one = copy()
    packed(one.form, "zstd")
    hit = one.hit(100.0, Wish(if_none_match, wished))
    assert hit is not None
    assert hit.status == (304 if tag else 200)
    if tag:
        assert hit.body == b""
        assert [name for name, _ in hit.headers] == ["Vary", "ETag", "Age"]
        assert dict(hit.headers)["ETag"] == tag


def test_a_missing_object_has_no_validator() -> None:
    hit = copy(b'{"code":"NOT_FOUND"}', 404).hit(100.0, Wish('"t"'))
    assert hit is not None
    assert (hit.status, "ETag" in dict(hit.headers)) == (404, False)


def test_json_lines_have_variants_of_their_own_and_count() -> None:
    one = copy()
    before = one.size_bytes
    wish = Wish(is_jsonl=True, take=50, codings=("gzip",))
    form = one.form_for(wish)
    assert form is not None
    assert form is one.form_for(wish)
    packed(form, "gzip")
    assert one.size_bytes == before + len(form.plain.body) + len(form.coded[0].body)
    hit = one.hit(100.0, wish)
    assert hit is not None
    assert dict(hit.headers)["Content-Type"] == "application/jsonl"
    assert one.form.coded == ()


def test_a_page_that_may_not_be_all_is_no_walk() -> None:
    full = b'{"items":[' + b",".join([b"{}"] * 100) + b"]}"
    assert copy(full).hit(100.0, Wish(is_jsonl=True)) is None
