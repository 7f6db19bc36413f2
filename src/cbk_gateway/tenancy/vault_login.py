"""The gateway's login at Vault, and how long it lasts. Pure: answers of Vault and the time come in.

What Vault says of a token is read by the rules of its token and auth APIs: `lookup-self`, `renew-self` and
`login`. Asking it, and when, is `vault.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cbk_gateway.secret import Secret

RENEW_AT: Final = 0.4
"""Part of a login's life after which it is renewed or made anew: before half of it is over."""
_SHORTEST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Login:
    """A token that Vault should accept.

    Attributes:
        token: The token.
        ends_at: When it ends, by the caller's steady clock; None for never, or where that is not known.
        renew_at: When something has to be done about it, likewise.
        can_renew: Whether Vault says that it can be renewed.
    """

    token: Secret
    ends_at: float | None = None
    renew_at: float | None = None
    can_renew: bool = False

    def is_due(self, now: float) -> bool:
        """Whether it should be renewed or made anew."""
        return self.renew_at is not None and now >= self.renew_at

    def is_over(self, now: float) -> bool:
        """Whether it cannot be used any more."""
        return self.ends_at is not None and now >= self.ends_at

    def put_off(self, now: float) -> Login:
        """The same login, due again in a while: sooner the nearer its end."""
        left_s = self.ends_at - now if self.ends_at is not None else _LONGEST_PAUSE_S
        pause_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, left_s / 5))
        return Login(self.token, self.ends_at, now + pause_s, self.can_renew)


def granted(token: Secret, life_s: object, *, can_renew: object, now: float) -> Login:
    """A login as Vault grants it; no life, or one of 0 seconds, is a login without end."""
    if not isinstance(life_s, int) or isinstance(life_s, bool) or life_s <= 0:
        return Login(token)
    return Login(token, now + life_s, now + life_s * RENEW_AT, can_renew is True)


def member(document: object, name: str) -> object:
    """The member of a JSON object, or None where there is none."""
    return document.get(name) if isinstance(document, dict) else None
