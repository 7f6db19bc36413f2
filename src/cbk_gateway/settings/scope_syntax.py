"""The grammar of scopes, as text: `[!]resource:action`.

    *                          everything
    bot:fetch                  one action on one type
    conversation/message:*     every action on one type; a type never implies the types below it
    dataset/*:read             `*` stands for exactly one segment
    conversation/**:read       `/**` at the end: the type and everything below it
    *:write                    every type; `read`, `write` and `stream` are effects, not actions
    bot[bot_123]:fetch         only where the path's id is this one; `*` in it stands for any characters
    contact[*]/memory:list     any id, but there must be one
    !secret:*                  a deny rule; it wins over every rule that allows

This module reads and checks; what a rule covers is decided in `tenancy.scopes`. It stands with the
settings because they refuse a malformed rule before anything runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cbk_gateway.operation import Effect

MAX_SCOPE_CHARS: Final = 512

_EFFECTS: Final = frozenset(str(effect) for effect in Effect)
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_SEGMENT: Final = re.compile(r"(?P<name>\*|[A-Za-z][A-Za-z0-9_-]{0,63})(?:\[(?P<id>[^\[\]\s]+)\])?")
_ID_PATTERN: Final = re.compile(r"\[[^\[\]]*\]")


class ScopeSyntaxError(ValueError):
    """A text that is no scope. The message says what to write."""


@dataclass(frozen=True, slots=True)
class TypeSegment:
    """One segment of a rule's type. `name` None stands for any; `id_pattern` None asks nothing of the id."""

    name: str | None
    id_pattern: str | None = None


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """A parsed rule.

    Attributes:
        text: As written.
        denies: Whether it takes away instead of giving.
        segments: The type's segments; empty when every type is meant.
        open_ended: Whether types below the last segment are meant too.
        action: An action, or None for any action, or for an effect.
        effect: An effect, or None.
    """

    text: str
    denies: bool
    segments: tuple[TypeSegment, ...]
    open_ended: bool
    action: str | None
    effect: Effect | None

    @property
    def is_everything(self) -> bool:
        """Whether it covers every operation there is."""
        return not self.segments and self.action is None and self.effect is None

    @property
    def names_ids(self) -> bool:
        """Whether it looks at ids."""
        return any(segment.id_pattern is not None for segment in self.segments)


@lru_cache(maxsize=8192)
def parse_scope(text: str) -> ScopeRule:
    """Read one rule.

    Raises:
        ScopeSyntaxError: It does not follow the grammar above.
    """
    if len(text) > MAX_SCOPE_CHARS:
        raise ScopeSyntaxError(f"A scope is at most {MAX_SCOPE_CHARS} characters long.")
    denies = text.startswith("!")
    body = text[1:] if denies else text
    if body == "*":
        return ScopeRule(text, denies, (), open_ended=True, action=None, effect=None)
    resource, action = _halves(body)
    segments, open_ended = _segments(resource)
    if action in _EFFECTS:
        return ScopeRule(text, denies, segments, open_ended, None, Effect(action))
    if action != "*" and _WORD.fullmatch(action) is None:
        raise ScopeSyntaxError("After the colon stands one action, `read`, `write`, `stream` or `*`.")
    return ScopeRule(text, denies, segments, open_ended, None if action == "*" else action, None)


def _halves(body: str) -> tuple[str, str]:
    # An id may hold a colon, so the one that counts is looked for outside the brackets.
    blank = _ID_PATTERN.sub(lambda found: "." * len(found[0]), body)
    if blank.count(":") != 1:
        raise ScopeSyntaxError("A scope reads `type:action`, for example `bot:fetch` or `bot:*`.")
    at = blank.index(":")
    return body[:at], body[at + 1 :]


def _segments(resource: str) -> tuple[tuple[TypeSegment, ...], bool]:
    if resource in {"*", "**"}:
        return (), True
    open_ended = resource.endswith("/**")
    rest = resource.removesuffix("/**")
    segments: list[TypeSegment] = []
    while rest:
        found = _SEGMENT.match(rest)
        if found is None:
            break
        segments.append(TypeSegment(None if found["name"] == "*" else found["name"], found["id"]))
        rest = rest[found.end() :]
        if rest.startswith("/") and len(rest) > 1:
            rest = rest[1:]
        elif rest:
            break
    if rest or not segments:
        raise ScopeSyntaxError(
            "A type reads `bot`, `conversation/message`, `dataset/*`, `bot[bot_123]` or `conversation/**`."
        )
    if segments[0].name is None:
        raise ScopeSyntaxError("A type begins with a name; `*` alone before the colon means every type.")
    return tuple(segments), open_ended
