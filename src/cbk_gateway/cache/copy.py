"""An entry in this process: its local times, its prepared variants, and how it becomes an answer.

Knows nothing of other entries, nor of the store. The clock is an argument everywhere.

Times: `sent_at` is this process's clock just *before* it asked the store, `now_ms` the store's clock when it
answered. Taking them for the same instant makes the local view of the store's clock run ahead by at most the
round trip, so a lifetime ends here never later than it does there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cbk_gateway.cache import representation, status
from cbk_gateway.cache.answers import Headers, Hit
from cbk_gateway.cache.entry import Entry
from cbk_gateway.cache.keys import JSON, JSONL

_VARY: Final = ("Vary", representation.VARY)


@dataclass(frozen=True, slots=True)
class Wish:
    """How one request wants the answer.

    Attributes:
        if_none_match: Its header of that name.
        codings: The content codings it takes, the best first: see `representation.codings`.
        is_jsonl: Whether a stored JSON page is to be sent as JSON Lines.
        take: The page size its query names, for that.
    """

    if_none_match: str | None = None
    codings: tuple[str, ...] = ()
    is_jsonl: bool = False
    take: int | None = None


class Variant:
    """One sequence of bytes that may be sent, with its header fields."""

    __slots__ = ("body", "coding", "etag", "headers")

    def __init__(self, entry: Entry, body: bytes, etag: str, content_type: str, coding: str) -> None:
        self.body = body
        self.coding = coding
        self.etag = etag
        fields = [("Content-Type", content_type), _VARY]
        if entry.language:
            fields.append(("Content-Language", entry.language))
        if entry.status == 200:
            fields.append(("ETag", etag))
        if coding:
            fields.append(("Content-Encoding", coding))
        self.headers: Headers = tuple(fields)


class Form:
    """One representation of an entry: its plain variant and, once prepared, its compressed ones.

    Attributes:
        coded: The compressed variants; another tuple whenever there is one more.
        tried: Codings that are being prepared, are there, or were found not to pay.
    """

    __slots__ = ("_entry", "coded", "media_type", "plain", "tried")

    def __init__(self, entry: Entry, body: bytes, media_type: str, content_type: str, etag: str) -> None:
        self._entry = entry
        self.media_type = media_type
        self.plain = Variant(entry, body, etag, content_type, "")
        self.coded: tuple[Variant, ...] = ()
        self.tried: set[str] = set()

    def add(self, coding: str, packed: bytes) -> None:
        """Take a compressed body, made elsewhere."""
        content_type = next(value for name, value in self.plain.headers if name == "Content-Type")
        tag = representation.coded_tag(self.plain.etag, coding)
        self.coded = (*self.coded, Variant(self._entry, packed, tag, content_type, coding))

    def variant(self, codings: tuple[str, ...]) -> Variant:
        """The best of these variants that is there, else the plain one."""
        for coding in codings:
            for one in self.coded:
                if one.coding == coding:
                    return one
        return self.plain

    def tag_held(self, wish: Wish) -> str | None:
        """The validator by which a client that sent `If-None-Match` holds this answer already.

        Any variant that it takes will do, whether this process has prepared that one or not: a restart must
        not cost every client its copy.
        """
        if wish.if_none_match is None:
            return None
        plain = self.plain.etag
        coded = (representation.coded_tag(plain, one) for one in wish.codings)
        tags = (self.variant(wish.codings).etag, *coded, plain)
        return next((tag for tag in tags if representation.matches(wish.if_none_match, tag)), None)


class Copy:
    """An entry that this process can answer with.

    Attributes:
        account: Whose it is.
        digest: Its name.
        label: What it is: its type, path and query.
        reads: Types whose writes make it old.
        fresh_until: When its lifetime ends, by this process's clock.
        frequency: How often it was used lately; the memory's business.
    """

    __slots__ = (
        "_born",
        "_jsonl",
        "account",
        "digest",
        "entry",
        "form",
        "frequency",
        "fresh_until",
        "label",
        "reads",
    )

    def __init__(
        self,
        entry: Entry,
        *,
        account: str,
        digest: str,
        label: str,
        reads: tuple[str, ...],
        sent_at: float,
        now_ms: int,
    ) -> None:
        self.entry = entry
        self.account = account
        self.digest = digest
        self.label = label
        self.reads = reads
        self.fresh_until = sent_at + (entry.fresh_until_ms - now_ms) / 1000
        self.frequency = 0
        self._born = sent_at - (now_ms - entry.stored_at_ms) / 1000 - entry.initial_age_s
        media_type = entry.content_type.partition(";")[0].strip().lower()
        self.form = Form(entry, entry.body, media_type, entry.content_type, entry.etag)
        self._jsonl: Form | None = None

    @property
    def size_bytes(self) -> int:
        """Memory it takes with its variants."""
        size = self.entry.size_bytes
        for form in (self.form, self._jsonl):
            if form is not None:
                size += sum(len(one.body) for one in form.coded)
                size += len(form.plain.body) if form is not self.form else 0
        return size

    def age_s(self, now: float) -> int:
        """Seconds since the upstream made it."""
        return max(0, int(now - self._born))

    def ttl_s(self, now: float) -> int:
        """Seconds left, rounded down; negative past its lifetime."""
        return int((self.fresh_until - now) // 1)

    def turns_at(self, now: float) -> float:
        """When its age or its lifetime, in whole seconds, will be another."""
        age, left = now - self._born, self.fresh_until - now
        return now + min(1.0 - age % 1.0, left % 1.0 or 1.0)

    def form_for(self, wish: Wish) -> Form | None:
        """The representation a request wants; None when this entry cannot say it exactly."""
        if not wish.is_jsonl or self.form.media_type != JSON or self.entry.status != 200:
            return self.form
        if self._jsonl is None:
            body = representation.as_jsonl(self.entry.body, wish.take)
            if body is None:
                return None
            self._jsonl = Form(self.entry, body, JSONL, JSONL, representation.entity_tag(body, JSONL))
        return self._jsonl

    def hit(self, now: float, wish: Wish, cache_status: str | None = None) -> Hit | None:
        """The answer to one request; None when this entry cannot say it exactly.

        Args:
            now: This process's clock.
            wish: How the request wants it.
            cache_status: The `Cache-Status` value; None for that of a plain hit.
        """
        form = self.form_for(wish)
        if form is None:
            return None
        age_s = self.age_s(now)
        said = cache_status if cache_status is not None else status.hit(self.ttl_s(now))
        tag = form.tag_held(wish) if self.entry.status == 200 else None
        if tag is not None:
            # RFC 9110 section 15.4.5: what a 200 would say, without what only describes the body.
            return Hit(304, (_VARY, ("ETag", tag), ("Age", str(age_s))), b"", said, age_s)
        chosen = form.variant(wish.codings)
        return Hit(self.entry.status, (*chosen.headers, ("Age", str(age_s))), chosen.body, said, age_s)
