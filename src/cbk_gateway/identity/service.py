"""Who is calling: the two calls the pipeline makes, and the life of everything behind them.

This module puts the parts together and holds no rule of its own: tokens are taken apart in `jws`, judged in
`verdict` and `claims`, remembered in `remembered`; keys come from `key_source`, revocations from
`revocation_feed`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from hashlib import sha256

import structlog

from cbk_gateway.breaks import Breaks
from cbk_gateway.errors import Refusal, ServiceUnavailable
from cbk_gateway.identity.bearer import bearer_token
from cbk_gateway.identity.claims import accepted_until, principal_of
from cbk_gateway.identity.inspection import inspect_token
from cbk_gateway.identity.jws import Compact, take_apart
from cbk_gateway.identity.key_fetch import KeyFetcher
from cbk_gateway.identity.key_source import KeySource
from cbk_gateway.identity.observer import IdentityObserver, SilentObserver
from cbk_gateway.identity.options import IdentityOptions, IssuerOptions
from cbk_gateway.identity.reasons import Reason
from cbk_gateway.identity.remembered import Remembered, RememberedTokens, digest_of
from cbk_gateway.identity.revocation import Revocation, revocation_of
from cbk_gateway.identity.revocation_feed import RevocationFeed
from cbk_gateway.identity.signatures import SignatureKey
from cbk_gateway.identity.verdict import (
    REVOKED,
    UNKNOWN_ISSUER,
    UNKNOWN_KEY,
    WRONG_ALGORITHM,
    TokenFacts,
    header_faults,
    verified_faults,
)
from cbk_gateway.parties import Principal
from cbk_gateway.store import Store

_log = structlog.get_logger(__name__)


class Identity:
    """Verifies tokens.

    Args:
        options: Issuers, bounds, revocation.
        store: Where revocations are kept for all processes; None keeps them in this process alone.
        observer: Gets the events.
        clock: Epoch seconds, for the tokens' times.
        monotonic: Monotonic seconds, for the age of keys and of the list of revocations.

    Raises:
        KeyFault: A configured key cannot be used.
    """

    def __init__(
        self,
        options: IdentityOptions,
        store: Store | None = None,
        observer: IdentityObserver | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        breaks: Breaks | None = None,
    ) -> None:
        self._options = options
        self._breaks = breaks if breaks is not None else Breaks()
        self._observer = observer if observer is not None else SilentObserver()
        self._clock = clock
        self._remembered = RememberedTokens(options.remembered_tokens)
        self._listeners: list[Callable[[Revocation], None]] = []
        self._feed = RevocationFeed(
            store,
            self._revoked,
            self._observer,
            clock=clock,
            monotonic=monotonic,
            poll_s=options.revocation_poll_s,
            max_age_s=options.max_revocation_age_s,
            breaks=self._breaks,
        )
        self._fetcher = KeyFetcher(monotonic)
        self._issuers = tuple(
            KeySource(policy, self._fetcher, self._observer, monotonic, self._keys_withdrawn)
            for policy in options.issuers
        )
        self._by_header = {
            (issuer.policy.issuer, alg): issuer
            for issuer in self._issuers
            for alg in issuer.policy.algorithms
        }
        self._known_values = {issuer.policy.issuer for issuer in self._issuers}

    async def start(self) -> None:
        """Fetch keys and revocations, and keep them fresh from now on.

        Issuers and a store that are away are logged and asked again; they do not stop a start.
        """
        if any(issuer.policy.has_remote_keys for issuer in self._issuers):
            self._fetcher.open()
        await asyncio.gather(self._feed.start(), *(issuer.start() for issuer in self._issuers))

    async def stop(self) -> None:
        """End everything `start` began. The store stays open: it is the caller's."""
        await asyncio.gather(self._feed.stop(), *(issuer.stop() for issuer in self._issuers))
        await self._fetcher.close()

    def identify_now(self, authorization_value: str) -> Principal | None:
        """The principal of a remembered, unexpired, unrevoked token; None means: ask `identify`.

        Args:
            authorization_value: The value of the request's only `Authorization` header.
        """
        try:
            digest = sha256(authorization_value.encode()).digest()
        except UnicodeEncodeError:
            return None
        return self._remembered.get(digest, self._clock()) if self._feed.is_usable else None

    def name_of(self, authorization: Sequence[str]) -> bytes:
        """What `recall` knows the token of a request by.

        Args:
            authorization: The values of all its `Authorization` headers, as received.

        Raises:
            NotAuthenticated: They hold no bearer token.
        """
        return digest_of(bearer_token(authorization, self._options.max_token_chars))

    def recall(self, name: bytes) -> Principal | None:
        """Like `identify_now`, for a caller who keeps the token's name. Counts nothing."""
        return self._remembered.get(name, self._clock()) if self._feed.is_usable else None

    def lasts_s(self, name: bytes) -> float:
        """Seconds until the token that `recall` knows by this name expires; 0 when it knows none.

        What ends its life earlier is noted in `Breaks`.
        """
        until = self._remembered.until(name)
        return max(0.0, until - self._clock()) if self._feed.is_usable else 0.0

    async def identify(self, authorization: Sequence[str]) -> Principal:
        """Who is calling. Once per request.

        Args:
            authorization: The values of all its `Authorization` headers, as received.

        Raises:
            NotAuthenticated: Nobody is known to be calling; `reason` is one of `Reason`.
            ServiceUnavailable: It cannot be known now.
        """
        try:
            token = bearer_token(authorization, self._options.max_token_chars)
            self._require_revocations()
            digest = digest_of(token)
            principal = self._remembered.get(digest, self._clock())
            if principal is None:
                return await self._first_sight(token, digest)
        except Refusal as refusal:
            self._observer.token_refused(refusal.reason)
            raise
        self._observer.token_remembered(principal.issuer)
        return principal

    async def revoke(
        self,
        *,
        token_id: str | None = None,
        subject: tuple[str, str] | None = None,
        tenant: str | None = None,
        issued_before: int | None = None,
        expires_at: int | None = None,
        note: str = "",
    ) -> Revocation:
        """Revoke one token, or those issued up to now (or before a time) to a subject, a tenant or everybody.

        Raises:
            ValueError: No target, or more than one (see `revocation.revocation_of`).
            StoreFault: The store gave no answer, so the revocation may not be in force; repeat it.
        """
        return await self._feed.revoke(
            revocation_of(
                now=self._clock(),
                keep_s=_longest_life(self._options),
                token_id=token_id,
                subject=subject,
                tenant=tenant,
                issued_before=issued_before,
                expires_at=expires_at,
                note=note,
            )
        )

    async def lift(self, revocation_id: str) -> bool:
        """Take a revocation back everywhere; False if there is none of that id.

        Raises:
            StoreFault: The store gave no answer; it may still be in force.
        """
        return await self._feed.lift(revocation_id)

    async def revocations(self) -> tuple[Revocation, ...]:
        """Those in force, newest first.

        Raises:
            StoreFault: The store gave no answer.
        """
        return await self._feed.listing()

    def is_revoked(self, principal: Principal) -> bool:
        """Whether a token accepted before has been revoked since, as far as this process knows."""
        return self._feed.known.find(principal) is not None

    def on_revoked(self, callback: Callable[[Revocation], None]) -> Callable[[], None]:
        """Hear of every revocation that takes effect in this process, from any process.

        The callback runs on the event loop and asks `revocation.matches(principal)` of each open stream.
        Calling what is returned ends the subscription.
        """
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def inspect(self, token: str) -> TokenFacts:
        """What a token says, and what every configured issuer would refuse it for. Nothing is fetched."""
        issuers = [(issuer.policy, issuer.ring) for issuer in self._issuers]
        return inspect_token(
            token, issuers, self._feed.known, now=self._clock(), max_chars=self._options.max_token_chars
        )

    async def _first_sight(self, token: str, digest: bytes) -> Principal:
        parts = take_apart(token)
        issuer = self._issuer_of(parts)
        key = await issuer.find(parts.kid, parts.alg)
        if key is None:
            raise UNKNOWN_KEY.refusal()
        principal = self._judge(parts, issuer.policy, key, token)
        until = accepted_until(parts.claims, issuer.policy)
        self._remembered.put(digest, Remembered(until, principal, key.thumbprint))
        self._observer.token_verified(issuer.policy.name, parts.alg)
        return principal

    def _issuer_of(self, parts: Compact) -> KeySource:
        value = parts.claims.get("iss")
        if value is not None and not isinstance(value, str):
            raise UNKNOWN_ISSUER.refusal()
        issuer = self._by_header.get((value, parts.alg))
        if issuer is None:
            raise (WRONG_ALGORITHM if value in self._known_values else UNKNOWN_ISSUER).refusal()
        return issuer

    def _judge(self, parts: Compact, policy: IssuerOptions, key: SignatureKey, token: str) -> Principal:
        for fault in header_faults(parts, policy):
            raise fault.refusal()
        for fault in verified_faults(parts, policy, key, self._clock()):
            raise fault.refusal()
        principal = principal_of(parts.claims, policy, sha256(token.encode()).hexdigest())
        if self._feed.known.find(principal) is not None:
            raise REVOKED.refusal()
        return principal

    def _require_revocations(self) -> None:
        if not self._feed.is_usable:
            raise ServiceUnavailable(
                "Tokens cannot be verified at the moment.", reason=Reason.REVOCATIONS_UNKNOWN
            )

    def _revoked(self, revocation: Revocation) -> None:
        self._breaks.note()
        self._remembered.forget(lambda entry: revocation.matches(entry.principal))
        for listener in tuple(self._listeners):
            try:
                listener(revocation)
            except Exception:  # noqa: BLE001 - one's defect must not keep it from the others or end the feed
                _log.exception("revocation_listener_failed", revocation=revocation.id)

    def _keys_withdrawn(self, issuer: KeySource) -> None:
        self._breaks.note()
        name, in_force = issuer.policy.name, issuer.ring.thumbprints
        self._remembered.forget(
            lambda entry: entry.principal.issuer == name and entry.thumbprint not in in_force
        )

    def __repr__(self) -> str:
        return f"<Identity {len(self._issuers)} issuers, {len(self._remembered)} tokens remembered>"


def _longest_life(options: IdentityOptions) -> float | None:
    """The longest life of any accepted token in seconds, leeway included; None if that is not known."""
    if not options.issuers:
        # Somebody who only revokes, for gateways whose issuers it does not know.
        return None
    longest = 0.0
    for issuer in options.issuers:
        if issuer.max_lifetime_s is None:
            return None
        longest = max(longest, issuer.max_lifetime_s + issuer.leeway_s)
    return longest
