"""What a scope covers: matching rules of `settings.scope_syntax` against operations.

Pure and synchronous. Three decisions:

- A type does not imply the types below it: `conversation:*` leaves `conversation/message` alone, and
  `conversation/**:*` takes both.
- A deny rule wins over every rule that allows, whatever their order.
- Doubt denies. An id in a path may be an alias, and a path may be one the table does not know; a rule that
  allows needs a certain match, a rule that denies is content with a possible one. GraphQL reaches every
  type in one request: it is allowed by a rule that names it, or by rules for every type (`*`, `*:read`) that
  have no deny rule beside them.

An id pattern sees the ids of the path. Ids in bodies and queries are not scopes' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cbk_gateway.operation import Effect, Operation
from cbk_gateway.settings.scope_syntax import ScopeRule, ScopeSyntaxError, TypeSegment, parse_scope

MAX_RULES: Final = 500
"""Rules of one token or tenant that are read; a token with more is treated as allowing nothing."""

_GRAPHQL: Final = "graphql"
_DENY_EVERYTHING: Final = parse_scope("!*")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a set of rules allows an operation.

    Attributes:
        allowed: The answer.
        rule: The rule that decided, as written; None when no rule matched.
    """

    allowed: bool
    rule: str | None


_NO_RULE: Final = Verdict(allowed=False, rule=None)


class ScopeSet:
    """The rules of one tenant or token, compiled. Build it with `scope_set`, which remembers.

    Verdicts of routes on which no rule looks at ids are remembered: the table bounds their number.
    """

    __slots__ = ("_allows", "_candidates", "_denies", "_reads_everything", "_verdicts", "ignored", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts: tuple[str, ...] = tuple(texts)
        rules, self.ignored = _readable(self.texts)
        self._denies = tuple(rule for rule in rules if rule.denies)
        self._allows = tuple(rule for rule in rules if not rule.denies)
        self._reads_everything = any(
            not rule.segments and rule.action is None and rule.effect in {None, Effect.READ}
            for rule in self._allows
        )
        self._verdicts: dict[tuple[str, str, Effect], Verdict] = {}
        self._candidates: dict[
            tuple[str, str, Effect], tuple[tuple[ScopeRule, ...], tuple[ScopeRule, ...]]
        ] = {}

    def __repr__(self) -> str:
        return f"<ScopeSet {' '.join(self.texts)}>"

    def allows(self, operation: Operation) -> Verdict:
        """Whether the rules allow an operation, and the rule that decided."""
        route = operation.route
        if not route.known:
            return _decide(operation, *self._matching_type(operation))
        # These three words name all that rules without ids can see; the table bounds their number.
        place = (route.resource, route.action, route.effect)
        verdict = self._verdicts.get(place)
        if verdict is not None:
            return verdict
        candidates = self._candidates.get(place)
        if candidates is None:
            candidates = self._matching_type(operation)
            denies, allows = candidates
            if not any(rule.names_ids for rule in (*denies, *allows)):
                self._verdicts[place] = verdict = _decide(operation, denies, allows)
                return verdict
            self._candidates[place] = candidates
        return _decide(operation, *candidates)

    def _matching_type(self, operation: Operation) -> tuple[tuple[ScopeRule, ...], tuple[ScopeRule, ...]]:
        """Deny and allow rules that fit an operation's type, action and effect; ids are left open."""
        denies = tuple(
            rule for rule in self._denies if _fits_action(rule, operation) and _may_fit(rule, operation)
        )
        allows = tuple(
            rule
            for rule in self._allows
            if _fits_action(rule, operation)
            and _surely_fits(rule, operation)
            and self._reaches(rule, operation)
        )
        return denies, allows

    def _reaches(self, rule: ScopeRule, operation: Operation) -> bool:
        """Whether a rule is meant when the operation is GraphQL, which reaches every type at once."""
        if operation.resource != _GRAPHQL or _names_graphql(rule):
            return True
        if rule.segments or rule.action is not None or self._denies:
            return False
        # A mutation's answer shows objects, so the right to write alone is not enough.
        return operation.effect is Effect.READ or rule.effect is None or self._reads_everything


@lru_cache(maxsize=4096)
def scope_set(texts: tuple[str, ...]) -> ScopeSet:
    """The compiled set for these texts; the last few thousand are remembered."""
    return ScopeSet(texts)


def covers(pattern: str, operation: Operation) -> bool:
    """Whether a limit's pattern counts an operation; ids play no part in it.

    A path the table does not know matches by its first segment: counting too much errs on the safe side.

    Raises:
        ScopeSyntaxError: The pattern is malformed.
    """
    rule = parse_scope(pattern)
    if not _fits_action(rule, operation):
        return False
    if operation.route.known or not rule.segments:
        return _surely_fits(rule, operation)
    return rule.segments[0].name in {None, operation.scope_resource}


def needed_scope(operation: Operation) -> str:
    """The narrowest scope, without ids, that would allow an operation."""
    if not operation.route.known and len(operation.ids) > 1:
        return f"{operation.scope_resource}/**:{_needed_action(operation)}"
    return f"{operation.scope_resource}:{_needed_action(operation)}"


def _needed_action(operation: Operation) -> str:
    # An unknown action may be called like an effect; only the effect then grants it.
    return (
        operation.effect if operation.scope_action in {"read", "write", "stream"} else operation.scope_action
    )


def _readable(texts: Sequence[str]) -> tuple[list[ScopeRule], tuple[str, ...]]:
    """The rules among the texts. Tokens carry foreign scopes (`openid`): those grant nothing.

    A deny rule that cannot be read denies everything, because what it meant to take away is unknown.
    """
    if len(texts) > MAX_RULES:
        return [_DENY_EVERYTHING], ()
    rules: list[ScopeRule] = []
    ignored: list[str] = []
    for text in texts:
        try:
            rules.append(parse_scope(text))
        except ScopeSyntaxError:
            ignored.append(text)
            if text.startswith("!"):
                rules.append(_DENY_EVERYTHING)
    return rules, tuple(ignored)


def _decide(operation: Operation, denies: Sequence[ScopeRule], allows: Sequence[ScopeRule]) -> Verdict:
    for rule in denies:
        if _may_fit_ids(rule, operation):
            return Verdict(allowed=False, rule=rule.text)
    for rule in allows:
        if _surely_fits_ids(rule, operation):
            return Verdict(allowed=True, rule=rule.text)
    return _NO_RULE


def _fits_action(rule: ScopeRule, operation: Operation) -> bool:
    if rule.effect is not None:
        return rule.effect is operation.effect
    return rule.action is None or rule.action == operation.scope_action


def _names_graphql(rule: ScopeRule) -> bool:
    return bool(rule.segments) and rule.segments[0].name == _GRAPHQL


def _surely_fits(rule: ScopeRule, operation: Operation) -> bool:
    """Whether a rule's type is certainly an operation's type."""
    if not rule.segments:
        return True
    if operation.route.known:
        return _type_fits(rule, _parts(operation.scope_resource))
    # An unknown path is known by its first segment; one with more than an id behind it lies below that type.
    if len(rule.segments) > 1 or rule.segments[0].name not in {None, operation.scope_resource}:
        return False
    return rule.open_ended or len(operation.ids) <= 1


def _may_fit(rule: ScopeRule, operation: Operation) -> bool:
    """Whether a rule's type is possibly an operation's type: for deny rules."""
    if not rule.segments or operation.route.known:
        return _surely_fits(rule, operation)
    if rule.segments[0].name not in {None, operation.scope_resource}:
        return False
    # What an unknown path is about stands somewhere in its middle: names in the rule's order suffice.
    middle = iter(operation.ids)
    return all(segment.name is None or segment.name in middle for segment in rule.segments[1:])


def _type_fits(rule: ScopeRule, parts: tuple[str, ...]) -> bool:
    wanted = rule.segments
    if len(parts) < len(wanted) or (len(parts) > len(wanted) and not rule.open_ended):
        return False
    return all(
        segment.name is None or segment.name == part for segment, part in zip(wanted, parts, strict=False)
    )


def _surely_fits_ids(rule: ScopeRule, operation: Operation) -> bool:
    for position, segment in enumerate(rule.segments):
        if segment.id_pattern is None:
            continue
        identifier = _id_at(operation, position)
        if identifier is None or not _fits_id(segment.id_pattern, identifier):
            return False
    return True


def _may_fit_ids(rule: ScopeRule, operation: Operation) -> bool:
    for position, segment in enumerate(rule.segments):
        if segment.id_pattern is not None and not _may_be(segment, operation, position):
            return False
    return True


def _may_be(segment: TypeSegment, operation: Operation, position: int) -> bool:
    pattern = segment.id_pattern or "*"
    if not operation.route.known:
        return any(is_indirect(one) or _fits_id(pattern, one) for one in operation.ids)
    identifier = _id_at(operation, position)
    return identifier is not None and (is_indirect(identifier) or _fits_id(pattern, identifier))


def is_indirect(identifier: str) -> bool:
    """Whether an id names its object by alias or by name, so that the object itself is not known here."""
    return identifier.startswith(("@", "("))


def _id_at(operation: Operation, position: int) -> str | None:
    if not operation.route.known:
        return operation.ids[0] if position == 0 and operation.ids else None
    for owner, identifier in zip(id_owners(operation.route.template), operation.ids, strict=False):
        if owner == position:
            return identifier
    return None


@lru_cache(maxsize=4096)
def id_owners(template: str) -> tuple[int, ...]:
    """For each parameter of a route, the position in its type's name of the segment whose id it is.

    `/integration/extract/{a}/item/{b}/fetch` gives (1, 2). The rest of a storage path belongs to the last
    segment of the type, though an action stands between.
    """
    owners: list[int] = []
    names = 0
    for part in template.strip("/").split("/"):
        if part.startswith("{"):
            owners.append(names - 2 if part.endswith("...}") else names - 1)
        else:
            names += 1
    return tuple(owners)


@lru_cache(maxsize=1024)
def _parts(resource: str) -> tuple[str, ...]:
    return tuple(resource.split("/"))


@lru_cache(maxsize=8192)
def _pieces(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.split("*"))


def _fits_id(pattern: str, identifier: str) -> bool:
    """Whether an id fits a pattern in which `*` stands for any characters.

    Piece by piece from the left, which is right when stars are the only wildcard, and takes linear time;
    a regular expression of many stars would take time without bound for an id made to fail it.
    """
    first, *middle = _pieces(pattern)
    if not middle:
        return identifier == first
    last = middle.pop()
    at, end = len(first), len(identifier) - len(last)
    if end < at or not identifier.startswith(first) or not identifier.endswith(last):
        return False
    for piece in middle:
        found = identifier.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
