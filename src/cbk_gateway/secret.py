"""The one type that holds a secret in memory: upstream keys, tokens, signing keys.

No other module may keep a credential in a plain `str`. Whatever prints, serialises or pickles a `Secret`
gets its fingerprint: the first twelve hex digits of a SHA-256 under a per-process random key, so that
equal secrets can be told apart in one run's logs and nobody can test guesses against them later.
`stable_fingerprint` is for records that outlive the process; it is keyed by the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, Self

_PROCESS_KEY: Final = secrets.token_bytes(32)


class Secret:
    """A secret text. `reveal()` is the only way to its value, so every use can be found by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself. Callers hand it to the wire or to a cipher and to nothing else."""
        return self._value

    def fingerprint(self) -> str:
        """Twelve hex digits which are equal for equal secrets within this process."""
        return hmac.digest(_PROCESS_KEY, self._value.encode(), "sha256").hex()[:12]

    def stable_fingerprint(self, key: bytes) -> str:
        """Sixteen hex digits which are equal for equal secrets under the same `key`, in any process."""
        return hmac.digest(key, self._value.encode(), "sha256").hex()[:16]

    def __repr__(self) -> str:
        return f"<Secret {self.fingerprint()}>"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # Whoever unpickles gets the text of the fingerprint: the secret itself leaves no process.
        return str, (repr(self),)


def account_fingerprint(key: Secret, run_as: str | None) -> str:
    """Name the upstream account behind a credential when none is configured.

    Equal credentials acting as the same child give equal names in every process, which is what a cache
    shared by several gateways needs. SHA-256 of 32 random bytes cannot be guessed back.
    """
    digest = hashlib.sha256(b"cbk-gateway account\0" + key.reveal().encode())
    if run_as is not None:
        digest.update(b"\0" + run_as.encode())
    return "acct-" + digest.hexdigest()[:16]
