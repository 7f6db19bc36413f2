"""The keys of one issuer at one moment, and which of them a token's header leads to.

A `Keyring` never changes; a new set is a new ring. Where keys come from is `key_source`'s business. A key id
is a lookup key and nothing else, whatever it contains: no path, no query, no URL (RFC 8725 section 3.10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cbk_gateway.identity.signatures import SignatureKey


class Keyring:
    """An immutable set of keys, found by key id and algorithm."""

    __slots__ = ("_by_kid", "_nameless", "_only", "_thumbprints")

    def __init__(self, keys: Iterable[SignatureKey]) -> None:
        self._by_kid: dict[tuple[str, str], SignatureKey] = {}
        by_alg: dict[str, list[SignatureKey]] = {}
        for key in keys:
            if key.kid is not None and (key.kid, key.alg) in self._by_kid:
                # The first wins: a second key under one id would double the price of every bad signature.
                continue
            if key.kid is not None:
                self._by_kid[key.kid, key.alg] = key
            by_alg.setdefault(key.alg, []).append(key)
        self._only = _singles(by_alg)
        self._nameless = _singles(
            {alg: [key for key in keys if key.kid is None] for alg, keys in by_alg.items()}
        )
        self._thumbprints = frozenset(key.thumbprint for keys in by_alg.values() for key in keys)

    def find(self, kid: str | None, alg: str) -> SignatureKey | None:
        """The one key a token with this header may be checked with.

        A token without key id gets the key of its algorithm if there is exactly one. A token with one gets
        the key of that id, or else the only key that has no id. So a token costs one verification at most.
        """
        if kid is None:
            return self._only.get(alg)
        named = self._by_kid.get((kid, alg))
        return named if named is not None else self._nameless.get(alg)

    @property
    def thumbprints(self) -> frozenset[str]:
        """The thumbprints of its keys."""
        return self._thumbprints

    def __len__(self) -> int:
        return len(self._thumbprints)

    def __repr__(self) -> str:
        return f"<Keyring {len(self)} keys>"


def _singles(by_alg: Mapping[str, list[SignatureKey]]) -> dict[str, SignatureKey]:
    return {alg: keys[0] for alg, keys in by_alg.items() if len(keys) == 1}
