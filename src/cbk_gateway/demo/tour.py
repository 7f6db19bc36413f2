"""The tour: a client's view of everything the gateway promises, each step checked as it goes.

It speaks plain HTTP to the running demo, as any client would, and looks at nothing inside the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from cbk_gateway.demo.stage import Stage

FLOOD = 25
JOURNAL_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was to happen, whether it did, and what was seen."""

    name: str
    held: bool
    saw: str


class Tour:
    """A tour of one demo."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._session: aiohttp.ClientSession
        self._bot = ""

    async def steps(self) -> AsyncIterator[Step]:
        """Take the steps in order; one that fails does not end the tour."""
        async with aiohttp.ClientSession(self._stage.gateway.url) as self._session:
            for step in (
                self._create,
                self._miss_then_hit,
                self._update_invalidates,
                self._stream,
                self._exceed,
                self._foreign_scope,
                self._metrics,
                self._journal,
            ):
                yield await step()

    async def _create(self) -> Step:
        status, _, body = await self._post("acme", "/api/v1/bot/create", {"name": "Ada"})
        self._bot = str(body.get("id", ""))
        return Step("create a bot", status == 200 and bool(self._bot), f"{status}, id {self._bot}")

    async def _miss_then_hit(self) -> Step:
        seen = [(await self._get("acme", "/api/v1/bot/list"))[1].get("Cache-Status", "") for _ in range(2)]
        held = "fwd=" in seen[0] and "; hit" in seen[1]
        return Step("list twice: miss, then hit", held, " | ".join(seen))

    async def _update_invalidates(self) -> Step:
        await self._post("acme", f"/api/v1/bot/{self._bot}/update", {"name": "Grace"})
        _, headers, body = await self._get("acme", "/api/v1/bot/list")
        names = [item.get("name") for item in body.get("items", [])]
        said = headers.get("Cache-Status", "")
        return Step(
            "update it: the list is fresh", "Grace" in names and "; hit" not in said, f"{names}, {said}"
        )

    async def _stream(self) -> Step:
        request = {"messages": [{"type": "user", "text": "Say hello"}], "model": "gpt-4o"}
        headers = self._bearer("globex") | {"Accept": "application/jsonl"}
        async with self._session.post(
            "/api/v1/conversation/complete", json=request, headers=headers
        ) as answer:
            events = [orjson.loads(line) async for line in answer.content if line.strip()]
        kinds = [str(event.get("type")) for event in events]
        held = answer.status == 200 and "token" in kinds and kinds[-1] == "result"
        saw = f"{answer.status}, {len(events)} events, the last is {kinds[-1] if kinds else None}"
        return Step("stream a completion", held, saw)

    async def _exceed(self) -> Step:
        answers = await asyncio.gather(*(self._get("globex", "/api/v1/bot/list") for _ in range(FLOOD)))
        refused = [headers for status, headers, _ in answers if status == 429]
        admitted = sum(1 for status, _, _ in answers if status == 200)
        wait = refused[0].get("Retry-After", "") if refused else ""
        held = bool(refused) and wait.isdigit() and int(wait) >= 1 and admitted + len(refused) == FLOOD
        return Step(
            "exceed a limit", held, f"{admitted} admitted, {len(refused)} refused, Retry-After {wait}"
        )

    async def _foreign_scope(self) -> Step:
        status, _, body = await self._post("globex", "/api/v1/bot/create", {"name": "Eve"})
        code = str(body.get("code"))
        return Step(
            "be refused a foreign scope", (status, code) == (403, "NOT_AUTHORIZED"), f"{status} {code}"
        )

    async def _metrics(self) -> Step:
        async with self._session.get(self._stage.gateway.admin_url + "/metrics") as answer:
            text = await answer.text()
        counted = [line for line in text.splitlines() if line.startswith("cbk_gateway_requests_total{")]
        held = answer.status == 200 and any('tenant="acme"' in line for line in counted)
        return Step("read the metrics", held, f"{len(counted)} request series")

    async def _journal(self) -> Step:
        wanted = {("intent", "bot.create"), ("outcome", "bot.create"), ("refused", "bot.create")}
        lines: list[dict[str, object]] = []
        seen: set[tuple[str, str]] = set()
        # Intents are on disk before their write; outcomes and refusals follow within a moment.
        until = time.monotonic() + JOURNAL_PATIENCE_S
        while not wanted <= seen and time.monotonic() < until:
            lines = await asyncio.to_thread(read_journal, self._stage.audit_directory)
            seen = {(str(line.get("kind")), str(line.get("operation"))) for line in lines}
        return Step("read the audit journal", wanted <= seen, f"{len(lines)} records")

    async def _get(
        self, tenant: str, path: str
    ) -> tuple[int, dict[str, str], dict[str, list[dict[str, str]]]]:
        async with self._session.get(path, headers=self._bearer(tenant)) as answer:
            return answer.status, dict(answer.headers), orjson.loads(await answer.read())

    async def _post(
        self, tenant: str, path: str, body: dict[str, object]
    ) -> tuple[int, dict[str, str], dict[str, object]]:
        async with self._session.post(path, json=body, headers=self._bearer(tenant)) as answer:
            return answer.status, dict(answer.headers), orjson.loads(await answer.read())

    def _bearer(self, tenant: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._stage.tokens[tenant]}"}


def read_journal(directory: Path) -> list[dict[str, object]]:
    """Every record of the journal's open and closed segments."""
    lines = [line for file in sorted(directory.rglob("*.jsonl")) for line in file.read_bytes().splitlines()]
    return [orjson.loads(line) for line in lines if line.strip()]
