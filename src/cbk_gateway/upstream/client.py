"""Calls to the upstream: attempts until there is an answer or a fault with a known outcome.

Ties pool, retry rule and observer together. What a request looks like is `framing.py`'s, what may be
retried `outcomes.py`'s, what a tenant may do nobody's here.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from time import monotonic

from cbk_gateway.upstream.answer import Answer
from cbk_gateway.upstream.exchange import Call, Exchange
from cbk_gateway.upstream.framing import request_head
from cbk_gateway.upstream.guard import LONG_CLASSES, Guard, ProbeFields
from cbk_gateway.upstream.headers import answer_headers
from cbk_gateway.upstream.observer import SilentObserver, UpstreamObserver
from cbk_gateway.upstream.options import UpstreamOptions, parse_origin
from cbk_gateway.upstream.outcomes import (
    Cause,
    Failure,
    Outcome,
    RetryBudget,
    UpstreamFault,
    Verdict,
    judge,
    wait_before,
)
from cbk_gateway.upstream.pacing import sane_retry_after, whole_seconds
from cbk_gateway.upstream.pool import Pool
from cbk_gateway.upstream.probing import ACCOUNT_PATH, PUBLIC_PATH, ask
from cbk_gateway.upstream.swift import Lane, Swift
from cbk_gateway.upstream.trust import client_context


class Upstream:
    """The API behind the gateway.

    Args:
        options: See `UpstreamOptions`.
        observer: Told of what happens; nobody by default.

    Raises:
        ValueError: The URL in the options is not one.
    """

    def __init__(self, options: UpstreamOptions, observer: UpstreamObserver | None = None) -> None:
        self._options = options
        self._observer = observer if observer is not None else SilentObserver()
        self._origin = parse_origin(options.url)
        self._prefix = options.path_prefix.rstrip("/")
        self._budget = RetryBudget(options.retry)
        self._pool: Pool | None = None
        self._guard: Guard | None = None
        self._random = random.Random()  # noqa: S311 - jitter, not a secret

    @property
    def host(self) -> str:
        """Authority of the upstream, for `outgoing_headers`."""
        return self._origin.authority

    @property
    def pool(self) -> Pool:
        """The open connections.

        Raises:
            UpstreamFault: Not started, or stopped.
        """
        if self._pool is None:
            raise UpstreamFault(Cause.STOPPED, Outcome.NOT_SENT, "not running")
        return self._pool

    async def start(self) -> None:
        """Load certificates and make ready; no connection is opened.

        Raises:
            OSError: A certificate file cannot be read.
            ssl.SSLError: A certificate file is not one.
        """
        context = client_context(self._options) if self._origin.secure else None
        loop = asyncio.get_running_loop()
        self._pool = Pool(loop, self._origin, self._options, context, self._observer)
        self._guard = Guard(self._options, self._observer, self._probe_for_breaker)

    async def stop(self) -> None:
        """Close every connection; calls under way fail."""
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.stop()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def send(self, call: Call) -> Answer:
        """Make a call and return its answer as soon as the head is here.

        Being cancelled closes the connection, so that the upstream stops working for nobody.

        Raises:
            UpstreamFault: No answer; `outcome` says what is known, `refusal()` what to tell the client.
            ValueError: A header or path would break the request's head.
        """
        guard = self._guard
        if guard is None:
            raise UpstreamFault(Cause.STOPPED, Outcome.NOT_SENT, "not running")
        self._budget.record_call()
        began_at = time.monotonic()
        queue = None
        try:
            queue = await guard.admit(call)
            answer = await self._attempts(call)
        except UpstreamFault as fault:
            route = call.operation.route
            fault.effect = route.effect
            self._observer.faulted(route.cost_class, fault.cause, fault.outcome, fault.attempts)
            if queue is not None:
                queue.leave()
                guard.faulted(call, fault, time.monotonic() - began_at)
            raise
        except BaseException:
            if queue is not None:
                queue.leave()
            raise
        answer.on_end(queue.leave)
        self._learn(guard, call, answer)
        return answer

    def head_of(self, call: Call) -> bytes:
        """The head of a call without a body, as it goes over the wire.

        Raises:
            ValueError: A header or path would break it.
        """
        return request_head(call.operation, self._prefix, call.headers, None, has_body=False)

    def lane(self, call: Call) -> Lane:
        """What calls like this one have in common, for `send_now`; to be kept by who repeats them."""
        cost_class = call.operation.route.cost_class
        return Lane(call, self._options.timeouts_of(cost_class), is_long=cost_class in LONG_CLASSES)

    def send_now(self, swift: Swift, request: bytes) -> bool:
        """Send a read at once, if nothing is in the way and a connection is at hand; see `swift.py`.

        Args:
            swift: Told of the answer, in a later turn of the loop.
            request: The head of the request, whole, with the headers of its call.

        Returns:
            Whether it is under way; if not, it must be made by `send`, and then nothing was done.
        """
        guard, pool = self._guard, self._pool
        if guard is None or pool is None:
            return False
        queue = guard.admit_now(swift.lane)
        if queue is None:
            return False
        connection = pool.at_hand()
        if connection is None:
            queue.leave()
            return False
        if not self._budget.is_full:
            self._budget.record_call()
        swift.guard, swift.queue, swift.connection = guard, queue, connection
        swift.began_at = monotonic()
        connection.ask(request, swift)
        return True

    def _learn(self, guard: Guard, call: Call, answer: Answer) -> None:
        """Feed the guard; give a 429 the `Retry-After` that the API leaves out."""
        if answer.status != 429:
            guard.answered(call, answer.status, answer.first_byte_s, None)
            return
        longest_s = self._options.longest_retry_after_s
        asked_s = sane_retry_after(answer.header("retry-after"), longest_s)
        wait_s = guard.answered(call, 429, answer.first_byte_s, asked_s)
        answer.set_header("Retry-After", str(whole_seconds(min(wait_s or 1.0, longest_s))))

    def is_open(self, account: str) -> bool:
        """Whether a breaker holds calls of this account back: reads may be served stale, writes refused."""
        return self._guard is not None and self._guard.is_open(account)

    def report_failure(self, account: str, code: str) -> None:
        """Tell the breaker that a 200 of this account was a failure with this code of the API's."""
        if self._guard is not None:
            self._guard.report_failure(account, code)

    async def probe(self) -> bool:
        """Whether the upstream takes a connection and answers: one HEAD without credentials."""
        target = self._prefix + PUBLIC_PATH
        pool = self._pool
        status = None
        if pool is not None:
            fields = [("Host", self.host)]
            status = await ask(pool, "HEAD", target, fields, self._options.connect_timeout_s)
        healthy = status is not None and status < 500
        self._observer.reachable(is_reachable=healthy)
        return healthy

    async def _probe_for_breaker(self, credential: ProbeFields) -> bool:
        """A cheap GET of our own, as the account whose breaker asks, or as nobody."""
        if self._pool is None:
            return False
        fields = [("Host", self.host), *((name, value.reveal()) for name, value in credential)]
        target = self._prefix + (ACCOUNT_PATH if credential else PUBLIC_PATH)
        status = await ask(self._pool, "GET", target, fields, self._options.connect_timeout_s)
        return status is not None and status < 500

    async def _attempts(self, call: Call) -> Answer:
        loop = asyncio.get_running_loop()
        started = loop.time()
        timeouts = self._options.timeouts_of(call.operation.route.cost_class)
        total_at = math.inf if timeouts.total_s is None else started + timeouts.total_s
        connect_until = started + self._options.connect_timeout_s
        exchange = Exchange(call, self._prefix, timeouts, total_at)
        attempts = 0
        while True:
            attempts += 1
            # After a reused connection failed twice, a fresh one settles the matter.
            connection = self.pool.reuse() if attempts <= 2 else None
            connect_s = 0.0
            was_reused = connection is not None
            began_at = time.monotonic()
            try:
                if connection is None:
                    connection, connect_s = await self.pool.open(connect_until)
                    was_reused = connection.served > 0
                head = await exchange.run(connection, loop)
            except UpstreamFault as fault:
                fault.attempts = attempts
                failure = Failure(
                    fault.outcome,
                    call.operation.effect,
                    exchange.is_replayable,
                    attempts,
                    was_reused,
                    fault.timed_out,
                )
                await self._await_turn(fault, failure, connect_until)
                if not fault.is_unreachable:
                    # It was reached, so reaching it again has its own time.
                    connect_until = loop.time() + self._options.connect_timeout_s
                continue
            first_byte_s = head.arrived_at - began_at
            self._observer.answered(call.operation.route.cost_class, head.status, first_byte_s, attempts)
            return Answer(
                connection,
                head.body,
                status=head.status,
                headers=answer_headers(head.fields),
                attempts=attempts,
                first_byte_s=first_byte_s,
                connect_s=connect_s,
            )

    async def _await_turn(self, fault: UpstreamFault, failure: Failure, connect_until: float) -> None:
        """Return when the call may be tried again, or raise the fault."""
        verdict = judge(failure, self._options.retry)
        if verdict is Verdict.AGAIN_NOW:
            self._observer.retried(fault.cause, paid=False)
            return
        if verdict is Verdict.GIVE_UP or not self._budget.withdraw():
            raise fault
        wait_s = wait_before(failure.attempts + 1, self._random.random(), self._options.retry)
        if fault.is_unreachable and asyncio.get_running_loop().time() + wait_s >= connect_until:
            raise fault
        self._observer.retried(fault.cause, paid=True)
        await asyncio.sleep(wait_s)
