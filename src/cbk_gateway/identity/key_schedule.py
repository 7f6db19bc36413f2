"""When an issuer may be asked for its keys, and how long an old answer serves. Pure: time is an argument.

At most one fetch per cooldown, whatever asks for it, so nobody can use the gateway to flood an issuer. A key
id that was not found is not asked for again for a while, so that one client with a withdrawn key does not
cost a fetch per cooldown for ever. All times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from cbk_gateway.identity.options import JwksOptions

_MAX_ABSENT: Final = 1024
_JITTER: Final = 0.1


@dataclass(slots=True)
class KeySchedule:
    """The times that matter for one issuer's published keys."""

    options: JwksOptions
    attempted_at: float | None = None
    succeeded_at: float | None = None
    refresh_at: float = 0.0
    _absent_until: OrderedDict[tuple[str | None, str], float] = field(default_factory=OrderedDict)

    def attempted(self, now: float) -> None:
        """A fetch begins, or ended: the cooldown runs from the later of both."""
        self.attempted_at = now

    def succeeded(self, now: float, fresh_s: float, spread: float) -> None:
        """A set arrived. `spread` (0 to 1) moves the next fetch forward, so that workers do not march."""
        self.attempted(now)
        self.succeeded_at = now
        self.refresh_at = now + fresh_s * (1 - _JITTER * spread)
        # A key id that was looked for in vain may be in the new set; if not, it is entered again.
        self._absent_until.clear()

    def failed(self, now: float) -> None:
        """A fetch gave nothing: the next scheduled one is a cooldown away."""
        self.attempted(now)
        self.refresh_at = now + max(self.options.cooldown_s, 0.05)

    def not_found(self, kid: str | None, alg: str, now: float) -> None:
        """A key was looked for in a set that had just arrived and was not in it."""
        self._absent_until[kid, alg] = now + self.options.unknown_kid_s
        while len(self._absent_until) > _MAX_ABSENT:
            self._absent_until.popitem(last=False)

    def may_ask_for(self, kid: str | None, alg: str, now: float) -> bool:
        """Whether an unknown key justifies a fetch now."""
        if self.attempted_at is not None and now - self.attempted_at < self.options.cooldown_s:
            return False
        return now >= self._absent_until.get((kid, alg), now)

    def is_usable(self, now: float) -> bool:
        """Whether the last good set may still be used."""
        return self.succeeded_at is not None and now - self.succeeded_at < self.options.max_age_s

    def wait_s(self, now: float) -> float:
        """Seconds until something is due: the next fetch, or the end of the last good set."""
        due = self.refresh_at
        if self.is_usable(now) and self.succeeded_at is not None:
            due = min(due, self.succeeded_at + self.options.max_age_s)
        return max(0.0, due - now)
