"""The limiter: what a tenant may take now, decided by the store or by what the store gave in advance.

Here decisions are put together: plan, lease, question, pace, refusal. The rule itself is `admit.lua`; what
happens without the store is `outage.py`; what happens after the request is `bookkeeping.py`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

import structlog

from cbk_gateway.errors import Refusal, TooManyRequests
from cbk_gateway.limits import answers, inspection
from cbk_gateway.limits.bookkeeping import Bookkeeping
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.claim import Claim
from cbk_gateway.limits.decision import Request, Taken, quota_refusal, slot_refusal
from cbk_gateway.limits.desk import Held, Views
from cbk_gateway.limits.grant import Grant, Usage
from cbk_gateway.limits.inquiry import Inquiry
from cbk_gateway.limits.inspection import Filling, LimitsStanding, QuotaStanding
from cbk_gateway.limits.options import LimiterObserver, LimiterOptions, Mode, SilentObserver
from cbk_gateway.limits.outage import decide_locally
from cbk_gateway.limits.pacing import Pacer
from cbk_gateway.limits.plan import Plan, plan_for
from cbk_gateway.limits.reservation import standings
from cbk_gateway.operation import Operation, Route
from cbk_gateway.parties import Tenant
from cbk_gateway.store import Store, StoreFault

_log = structlog.get_logger(__name__)

_MOST_PLANS = 50_000


class Limiter:
    """Admits requests. One per process; `start()` before use, `stop()` after.

    Args:
        store: Where the limits are kept.
        options: See `LimiterOptions`.
        observer: Told of every decision.
        clock: Monotonic seconds of this process.
    """

    def __init__(
        self,
        store: Store,
        options: LimiterOptions | None = None,
        observer: LimiterObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options or LimiterOptions()
        self._observer: LimiterObserver = observer or SilentObserver()
        self._now = clock
        self._books = Bookkeeping(store, self._options, self._observer, clock)
        self._pacer = Pacer(self._options.max_waiting)
        self._deciding: set[asyncio.Task[Taken]] = set()
        self._asking: dict[BucketView, asyncio.Task[Grant | None]] = {}
        self._refunding: set[asyncio.Task[None]] = set()
        self._plans: dict[tuple[str, str, int, bool], tuple[Views, Route]] = {}

    @property
    def now(self) -> Callable[[], float]:
        """The limiter's clock, for those who draw on claims."""
        return self._now

    @property
    def mode(self) -> Mode:
        """Whether the store rules, or each worker its share."""
        return self._books.mode

    @property
    def workers(self) -> int:
        """Workers among which limits are shared while the store is away."""
        return self._books.workers

    async def start(self) -> None:
        """Sign on and begin to keep the books. A store that is away is no error here."""
        await self._books.start()

    async def stop(self) -> None:
        """Give leases back, settle what is open, sign off."""
        if self._deciding:
            await asyncio.wait(self._deciding)
        if self._asking:
            await asyncio.wait(self._asking.values())
        if self._refunding:
            await asyncio.wait(self._refunding)
        await self._books.stop()

    def admit_now(self, tenant: Tenant, subject: str, operation: Operation) -> Grant | None:
        """Decide without waiting, when leases or a remembered refusal can: the fast path for reads.

        Returns:
            A grant, to be settled like any other; or None when only `admit` can tell.

        Raises:
            TooManyRequests: The store refused a moment ago and nothing can have changed since; or this
                worker alone has as many requests open as the tenant may have.
            LimitsReached: The same of a quota.
        """
        views = self._views(tenant, subject, operation, is_stream=False)
        may_pace = tenant.limits.max_wait_s > 0
        if may_pace and self._pacer.has_queue(tenant.id):
            # Nobody passes those who wait.
            return None
        return self._decide_now(views, operation, may_pace=may_pace)

    def claim(self, tenant: Tenant, subject: str, operation: Operation) -> Claim | None:
        """What `admit_now` would draw on, for a caller who admits the same request again and again.

        Good for as long as the tenant is this very object. None when leases alone do not decide it.
        """
        views = self._views(tenant, subject, operation, is_stream=False)
        draws = views.draws
        if not views.plan.needs_no_store or len(draws) > 1:
            return None
        queues = self._pacer.queues if tenant.limits.max_wait_s > 0 else None
        view, cost = draws[0] if draws else (None, 0.0)
        return Claim(view, cost, Request(views, operation), queues)

    async def admit(
        self, tenant: Tenant, subject: str, operation: Operation, *, is_stream: bool = False
    ) -> Grant:
        """Decide whether a request may go on; waits for a token when the tenant's policy allows that.

        Args:
            tenant: Who pays.
            subject: The token's subject.
            operation: What is asked.
            is_stream: Whether the answer will be a stream.

        Raises:
            TooManyRequests: A rate or the bound on open requests is reached.
            LimitsReached: A quota is used up.
            ServiceUnavailable: The store is away and a limit says that nothing passes unchecked then.
        """
        views = self._views(tenant, subject, operation, is_stream=is_stream)
        may_pace = tenant.limits.max_wait_s > 0 and (not is_stream or self._options.pace_streams)
        if not (may_pace and self._pacer.has_queue(tenant.id)):
            grant = self._decide_now(views, operation, may_pace=may_pace)
            if grant is not None:
                return grant
        request = Request(views, operation)
        if not may_pace:
            return self._granted(request, await self._decide(request))
        return await self._admit_paced(request)

    async def _admit_paced(self, request: Request) -> Grant:
        tenant = request.plan.tenant
        began = self._now()
        deadline = began + tenant.limits.max_wait_s
        if not self._pacer.has_queue(tenant.id):
            taken = await self._decide(request, is_final=False)
            if taken.refusal is None or not self._pacer.may_wait(tenant.id, taken, deadline - self._now()):
                return self._granted(request, self._final(request, taken))
        async with self._pacer.turn(tenant.id, deadline - self._now()) as has_turn:
            taken = await self._decide(request, is_final=False)
            while has_turn and taken.refusal is not None and 0 < taken.wait_s <= deadline - self._now():
                await asyncio.sleep(taken.wait_s)
                taken = await self._decide(request, is_final=False)
        grant = self._granted(request, self._final(request, taken))
        self._observer.paced(tenant.id, self._now() - began)
        return grant

    def _decide_now(self, views: Views, operation: Operation, *, may_pace: bool) -> Grant | None:
        """Leases and remembered refusals only."""
        now = self._now()
        name = operation.route.audit_name
        held = self._books.amounts(views, name) if views.held is None else views.held
        if not views.take(held, now):
            self._refuse_now(views, held, now, may_pace=may_pace)
            return None
        for view, cost in views.draws:
            view.note(cost, now)
        if held or views.slots:
            views.asked.note(1.0, now)
        self._observer.decided(views.plan.tenant.id, "admitted", "")
        return Grant(self, views.plan, name, drawn=views.draws, reserved=held, slots=views.slots)

    def _refuse_now(self, views: Views, held: Held, now: float, *, may_pace: bool) -> None:
        """Refuse what was refused a moment ago, when nothing can have changed since."""
        for view, cost in views.draws:
            if not may_pace and now < view.blocked.get(cost, 0.0) and not view.covers(cost, now):
                view.note(cost, now)
                raise self._remembered_refusal(views.plan, view, view.blocked[cost] - now, now)
        for quota, amount in held:
            if quota.blocks(amount, now) and not quota.covers(amount, now):
                now_us, timezone = self._books.server_now_us(now), views.plan.tenant.timezone
                raise self._refused(views.plan, quota_refusal(quota, now_us, timezone))
        for slot in views.slots:
            if slot.own >= slot.most:
                raise self._refused(views.plan, slot_refusal(slot))

    def _remembered_refusal(self, plan: Plan, view: BucketView, wait_s: float, now: float) -> Refusal:
        self._observer.decided(plan.tenant.id, "rate", view.policy)
        seconds = max(1, math.ceil(wait_s))
        known = view.last_refusal
        if known is None or known.headers["Retry-After"] != str(seconds):
            standing = answers.standing_of(view.ref.rate, view.estimate(now))
            known = view.last_refusal = answers.rate_refusal(standing, seconds, (standing,))
        # A flood is refused in the same words for a second; an exception itself is never raised twice.
        return TooManyRequests(
            known.message,
            retry_after_s=seconds,
            reason=known.reason,
            headers=known.headers,
            details=known.details,
        )

    async def _decide(self, request: Request, *, is_final: bool = True) -> Taken:
        """Ask the store, or decide by this worker's share when it is away."""
        if self._books.mode is Mode.STORE:
            try:
                taken = await self._shielded(request)
            except StoreFault:
                self._books.note_failure()
                taken = decide_locally(request, self._books, self._now())
        else:
            taken = decide_locally(request, self._books, self._now())
        return self._final(request, taken) if is_final else taken

    async def _shielded(self, request: Request) -> Taken:
        """Decide in a task of its own: what a vanished client was given is given back, not lost."""
        work = Inquiry(request, self._books, self._options, self._now).decide()
        task = asyncio.get_running_loop().create_task(work)
        self._deciding.add(task)
        task.add_done_callback(self._deciding.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                task.add_done_callback(lambda done: self._abandon(request, done))
            raise

    def _abandon(self, request: Request, done: asyncio.Task[Taken]) -> None:
        if done.cancelled() or done.exception() is not None or done.result().refusal is not None:
            return
        task = asyncio.get_running_loop().create_task(self._granted(request, done.result()).refund())
        self._refunding.add(task)
        task.add_done_callback(self._refunding.discard)

    def _final(self, request: Request, taken: Taken) -> Taken:
        """Report a decision; raise it when it is a refusal."""
        if taken.refusal is not None:
            raise self._refused(request.plan, taken)
        self._observer.decided(request.plan.tenant.id, taken.outcome, taken.policy)
        return taken

    def _refused(self, plan: Plan, taken: Taken) -> Exception:
        """Report a refusal; returns what to raise."""
        self._observer.decided(plan.tenant.id, taken.outcome, taken.policy)
        assert taken.refusal is not None  # noqa: S101 - callers looked
        return taken.refusal

    def _granted(self, request: Request, taken: Taken) -> Grant:
        return Grant(
            self, request.plan, request.name, drawn=taken.drawn, reserved=taken.reserved, slots=taken.slots
        )

    def _views(self, tenant: Tenant, subject: str, operation: Operation, *, is_stream: bool) -> Views:
        """The limits of a request with this worker's views of them; both are remembered."""
        route = operation.route
        # Subjects matter to plans only through the bucket of their own.
        who = subject if tenant.limits.subject_rate is not None else ""
        key = (tenant.id, who, id(route), is_stream)
        known = self._plans.get(key)
        # A reloaded tenant is another object; a route's id may be used again once the route is gone.
        if known is not None and known[0].plan.tenant is tenant and known[1] is route:
            return known[0]
        plan = plan_for(
            tenant,
            subject,
            operation,
            is_stream=is_stream,
            global_rate=self._options.global_rate,
            account_rates=self._options.account_rates,
        )
        views = self._books.desk.views(plan, self._books.server_now_us(self._now()))
        if len(self._plans) >= _MOST_PLANS or self._books.desk.has_forgotten():
            # A view the desk forgot must not live on in a plan: there would be two of one bucket.
            self._plans.clear()
        elif route.known:
            self._plans[key] = (views, route)
        return views

    def give_back(self, claim: Claim) -> None:
        """Return what the last `draw` of a claim took: nothing came of it."""
        claim.drawn -= 1
        if claim.view is not None:
            self._books.give_back(((claim.view, claim.cost),))

    def ask_for(self, claim: Claim) -> asyncio.Task[Grant | None] | None:
        """Ask the store for a claim that could not be drawn on, once for all who wait for the answer.

        Returns:
            Its result is a grant for one of them, or None; in either case the others should `draw` again,
            for a slice may have come with it, or see whether they are refused. None instead of a task when
            there is no store to ask.
        """
        view = claim.view
        if view is None or self._books.mode is not Mode.STORE:
            return None
        tenant = claim.request.plan.tenant
        if tenant.limits.max_wait_s > 0 and self._pacer.has_queue(tenant.id):
            return None
        task = self._asking.get(view)
        if task is None:
            task = self._asking[view] = asyncio.get_running_loop().create_task(self._ask_for(claim.request))
            task.add_done_callback(lambda _: self._asking.pop(view, None))
        return task

    async def _ask_for(self, request: Request) -> Grant | None:
        try:
            taken = await Inquiry(request, self._books, self._options, self._now).decide()
        except StoreFault:
            self._books.note_failure()
            return None
        except Exception:  # noqa: BLE001 - a defect is logged; whoever waits goes the usual way
            _log.exception("limits_question_failed")
            return None
        return self._granted(request, taken) if taken.refusal is None else None

    # For operators.

    async def show(self, tenant: Tenant) -> LimitsStanding:
        """A tenant's limits as they stand. Raises `StoreFault` when the store does not answer."""
        return await inspection.show(tenant, self._books, self._options)

    async def reset(self, tenant: Tenant, filling: Filling = Filling()) -> tuple[str, ...]:  # noqa: B008 - a value
        """Fill a tenant's buckets; returns their names. Raises `KeyError`, `StoreFault`."""
        return await inspection.reset(tenant, self._books, self._options, filling)

    async def quota_show(self, tenant: Tenant) -> tuple[QuotaStanding, ...]:
        """A tenant's quotas as they stand. Raises `StoreFault`."""
        return await inspection.quota_show(tenant, self._books)

    async def quota_grant(self, tenant: Tenant, policy: str, amount: int) -> QuotaStanding:
        """Let a tenant use `amount` more in the present period. Raises `KeyError`, `StoreFault`."""
        return await inspection.quota_add(tenant, self._books, policy, -amount)

    async def quota_reset(self, tenant: Tenant, policy: str) -> QuotaStanding:
        """Forget what was used in the present period. Raises `KeyError`, `StoreFault`."""
        return await inspection.quota_add(tenant, self._books, policy, None)

    # For `Grant`.

    def headers_of(self, grant: Grant) -> Mapping[str, str]:
        """Rate headers of a grant as things stand now."""
        now = self._now()
        if len(grant.drawn) == 1 and not grant.reserved:
            return grant.drawn[0][0].headers(now)
        everything = standings(grant.drawn, grant.reserved, self._books.server_now_us(now), now)
        if not everything:
            return {}
        tightest = min(everything, key=lambda one: one.remaining / one.limit if one.limit else 0.0)
        passed = {view.quota.name: view.warning_percent for view, _ in grant.reserved if view.warning_percent}
        return answers.rate_headers(tightest, everything) | answers.quota_warning(passed)

    async def settle(self, grant: Grant, usage: Usage) -> None:
        """Correct a grant's reservations; see `Grant.settle`."""
        await self._books.settle(grant, usage)

    def settle_now(self, grant: Grant, usage: Usage) -> None:
        """Correct a grant's reservations; see `Grant.settle_now`."""
        self._books.settle_now(grant, usage)

    async def refund(self, grant: Grant) -> None:
        """Give a grant back; see `Grant.refund`."""
        await self._books.refund(grant)
