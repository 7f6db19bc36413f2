"""What the journal needs besides writes: retention, sinks, questions about doubts, the configuration.

Started after the upstream, because questions are asked there, and stopped before it. Every process of a
gateway runs this over the one journal. Retention and the sinks of all chains belong to the process that
holds their lock, and to another one once it has ended; each process asks about its own doubts in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson
import structlog

from cbk_gateway import __version__
from cbk_gateway.audit import Journal
from cbk_gateway.audit.resolver import Evidence, Question, Resolver
from cbk_gateway.audit.upkeep import Upkeep
from cbk_gateway.parties import Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.settings.gateway import GatewaySettings
from cbk_gateway.telemetry import new_request_id
from cbk_gateway.tenancy import Change
from cbk_gateway.upstream import Call, StreamBroken, UpstreamFault, outgoing_headers
from cbk_gateway.upstream.answer import AnswerTooLarge

SETTLE_S: Final = 5.0
"""Between a doubt and the question: the outcome must be on disk, and the upstream done with the write."""
AGAIN_S: Final = 60.0
TURN_EVERY_S: Final = 5.0
"""Between two looks whether the process that sweeps and ships has ended."""
LOOK_BACK: Final = timedelta(days=7)
MAX_OBJECT_BYTES: Final = 4 * 1024**2
_MOST_NAMED: Final = 100

_log = structlog.get_logger(__name__)


class Aftercare:
    """Keeps a journal in order while its gateway runs.

    Args:
        parts: What questions are asked with.
        journal: The journal; started.
        make_upkeep: Makes what sweeps and ships, once it is this process's turn: how far the sinks have come
            is read then.
        settle_s: See `SETTLE_S`.
        turn_every_s: See `TURN_EVERY_S`.

    Attributes:
        has_turn: Whether this process sweeps and ships.
    """

    def __init__(
        self,
        parts: Parts,
        journal: Journal,
        make_upkeep: Callable[[], Upkeep],
        *,
        settle_s: float = SETTLE_S,
        turn_every_s: float = TURN_EVERY_S,
    ) -> None:
        self._parts = parts
        self._journal = journal
        self._make_upkeep = make_upkeep
        self._settle_s = settle_s
        self._turn_every_s = turn_every_s
        self._must_ask_again = False
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.has_turn = False

    async def start(self) -> None:
        """Begin. What dead processes left open is asked about first."""
        if self._journal.recovered:
            self._parts.doubts.set()
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._keep_up()), loop.create_task(self._resolve_on()))

    async def stop(self) -> None:
        """End; a sweep that is under way is waited for, questions are not."""
        tasks, self._tasks = self._tasks, ()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def resolve(self) -> int:
        """One round of questions; returns the verdicts written. None are while another process asks."""
        directory = self._journal.options.directory
        since = (datetime.now(UTC) - LOOK_BACK).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._must_ask_again = False
        with _exclusively(directory / ".resolve.lock") as is_ours:
            if not is_ours:
                self._must_ask_again = True
                return 0
            return await Resolver(self._journal, self.ask).resolve_open(directory, since=since)

    async def ask(self, question: Question) -> Evidence | None:
        """Read the object under its tenant's key; see `audit.resolver.Ask`.

        Where it is not sure that the read would see the account that was written to, nothing is asked.
        """
        tenant = self._parts.registry.get(question.tenant)
        if tenant is None or tenant.disabled or tenant.may_run_as:
            return Evidence(0)
        evidence = await self._fetched(tenant, question)
        if evidence is None:
            self._must_ask_again = True
        return evidence

    async def _fetched(self, tenant: Tenant, question: Question) -> Evidence | None:
        parts, operation = self._parts, question.operation
        call = Call(
            operation=operation,
            headers=outgoing_headers(
                (("Accept", "application/json"),),
                key=parts.credentials.credential_for(tenant, operation).key,
                run_as=tenant.run_as,
                host=parts.upstream.host,
                request_id=new_request_id(),
                client_may_run_as=False,
                identity_encoding=True,
            ),
            account=tenant.account,
            tenant=tenant.id,
        )
        try:
            async with await parts.upstream.send(call) as answer:
                if answer.status == 429 or answer.status >= 500:
                    return None
                body = orjson.loads(await answer.read(MAX_OBJECT_BYTES))
        except (UpstreamFault, StreamBroken):
            return None
        except (AnswerTooLarge, orjson.JSONDecodeError):
            return Evidence(0)
        return Evidence(answer.status, body if isinstance(body, dict) else None)

    async def _keep_up(self) -> None:
        lock = self._journal.options.directory / ".upkeep.lock"
        while True:
            with _exclusively(lock) as self.has_turn:
                if self.has_turn:
                    upkeep = self._make_upkeep()
                    await upkeep.start()
                    try:
                        await asyncio.Event().wait()
                    finally:
                        await upkeep.stop()
            await asyncio.sleep(self._turn_every_s)

    async def _resolve_on(self) -> None:
        doubts = self._parts.doubts
        while True:
            await doubts.wait()
            await asyncio.sleep(self._settle_s)
            doubts.clear()
            try:
                settled = await self.resolve()
            except Exception:  # noqa: BLE001 - a defect here must not end the asking, and harms no request
                _log.exception("audit_resolver_failed")
                continue
            if settled:
                _log.info("audit_outcomes_resolved", count=settled)
            if self._must_ask_again:
                await asyncio.sleep(AGAIN_S)
                doubts.set()


def started(settings: GatewaySettings, tenants: int) -> dict[str, object]:
    """What is recorded of a start: the version, and a digest by which two configurations are told apart."""
    document = orjson.dumps(settings.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return {
        "what": "started",
        "version": __version__,
        "settings_sha256": hashlib.sha256(document).hexdigest(),
        "tenants": tenants,
    }


def tenants_changed(change: Change) -> dict[str, object]:
    """What is recorded of a change of the tenants: which, at most a hundred of each."""
    groups = {"added": change.added, "changed": change.changed, "removed": change.removed}
    named = {name: sorted(group)[:_MOST_NAMED] for name, group in groups.items() if group}
    return {"what": "tenants", "version": change.version, **named}


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[bool]:
    """Hold a lock among processes, or say that another one has it. It goes with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = True
        except BlockingIOError:
            is_ours = False
        yield is_ours
    finally:
        os.close(descriptor)
