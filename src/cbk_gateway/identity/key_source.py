"""The keys of one issuer over time: configured ones for ever, published ones kept fresh.

One fetch at a time, shared by all who wait; the last good set serves while the issuer is away, up to a stated
age; a withdrawn key ends at the next fetch. The rules of time are in `key_schedule`, the requests in
`key_fetch`. Tokens are not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from cbk_gateway.errors import ServiceUnavailable
from cbk_gateway.identity.key_fetch import KeyFetcher
from cbk_gateway.identity.key_schedule import KeySchedule
from cbk_gateway.identity.key_set import FetchFault, PublishedSet
from cbk_gateway.identity.keyring import Keyring
from cbk_gateway.identity.observer import IdentityObserver
from cbk_gateway.identity.options import IssuerOptions
from cbk_gateway.identity.reasons import Reason
from cbk_gateway.identity.signatures import SignatureKey, from_configuration

_log = structlog.get_logger(__name__)


class KeySource:
    """The keys of one issuer.

    Args:
        policy: The issuer.
        fetcher: Used if it publishes its keys.
        observer: Gets the events.
        clock: Monotonic seconds.
        on_change: Called with this source whenever a key went out of force.

    Raises:
        KeyFault: A configured key cannot be used.
    """

    def __init__(
        self,
        policy: IssuerOptions,
        fetcher: KeyFetcher,
        observer: IdentityObserver,
        clock: Callable[[], float],
        on_change: Callable[[KeySource], None],
    ) -> None:
        self.policy = policy
        self._fetcher = fetcher
        self._observer = observer
        self._clock = clock
        self._on_change = on_change
        self._configured = tuple(from_configuration(key) for key in policy.keys)
        self._published: tuple[SignatureKey, ...] = ()
        self._ring = Keyring(self._configured)
        self._schedule = KeySchedule(policy.jwks)
        self._flight: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def ring(self) -> Keyring:
        """The keys in force."""
        return self._ring

    async def find(self, kid: str | None, alg: str) -> SignatureKey | None:
        """The key for a token's header; waits for one fetch if it is unknown and the issuer may be asked.

        Raises:
            ServiceUnavailable: The issuer's keys cannot be had, so the token cannot be judged.
        """
        self._drop_overaged()
        key = self._ring.find(kid, alg)
        if key is not None or not self.policy.has_remote_keys:
            return key
        if self._flight is not None or self._schedule.may_ask_for(kid, alg, self._clock()):
            before = self._schedule.succeeded_at
            await self._shared_fetch()
            key = self._ring.find(kid, alg)
            if key is None and self._schedule.succeeded_at != before:
                self._schedule.not_found(kid, alg, self._clock())
        if key is None and not self._schedule.is_usable(self._clock()):
            raise ServiceUnavailable(
                "The token cannot be verified at the moment.", reason=Reason.KEYS_UNAVAILABLE
            )
        return key

    async def start(self) -> None:
        """Fetch for the first time, and keep fresh from now on. An issuer that is away stops nothing."""
        if self.policy.has_remote_keys and self._keeper is None:
            await self._shared_fetch()
            self._keeper = asyncio.create_task(self._keep_fresh(), name=f"keys of {self.policy.name}")

    async def stop(self) -> None:
        """End the background work."""
        for task in (self._keeper, self._flight):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._keeper = self._flight = None

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._schedule.wait_s(self._clock()))
            if self._clock() >= self._schedule.refresh_at:
                await self._shared_fetch()
            self._drop_overaged()

    async def _shared_fetch(self) -> None:
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch(), name=f"key fetch of {self.policy.name}")
            self._flight.add_done_callback(self._landed)
        # A caller that goes away must not take the others' fetch with it.
        await asyncio.shield(self._flight)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        if self._flight is flight:
            self._flight = None

    async def _fetch(self) -> None:
        self._schedule.attempted(self._clock())
        try:
            published = await self._fetcher.fetch(self.policy)
        except FetchFault as fault:
            self._schedule.failed(self._clock())
            self._observer.keys_fetched(self.policy.name, fault.reason)
            _log.warning(
                "issuer_keys_unavailable", issuer=self.policy.name, reason=fault.reason, detail=str(fault)
            )
            return
        # Spreading work over time needs no secrecy.
        self._schedule.succeeded(self._clock(), published.fresh_s, random.random())  # noqa: S311
        self._observer.keys_fetched(self.policy.name, "fetched")
        self._take_over(published)

    def _take_over(self, published: PublishedSet) -> None:
        before = self._ring
        self._put_in_force(published.keys)
        if before.thumbprints != self._ring.thumbprints:
            _log.info(
                "issuer_keys_changed",
                issuer=self.policy.name,
                keys=len(self._ring),
                skipped=list(published.skipped),
            )

    def _drop_overaged(self) -> None:
        if self._published and not self._schedule.is_usable(self._clock()):
            _log.warning("issuer_keys_too_old", issuer=self.policy.name)
            self._put_in_force(())

    def _put_in_force(self, published: tuple[SignatureKey, ...]) -> None:
        self._published = published
        before, self._ring = self._ring, Keyring((*self._configured, *published))
        if before.thumbprints != self._ring.thumbprints:
            self._observer.keys_in_force(self.policy.name, len(self._ring))
        if not before.thumbprints <= self._ring.thumbprints:
            self._on_change(self)

    def __repr__(self) -> str:
        return f"<KeySource {self.policy.name} {self._ring!r}>"
