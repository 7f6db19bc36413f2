"""Requests made from the API's own description, right ones and wrong ones: no 5xx is ever the gateway's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from cbk_gateway.store import Store
from harness import running

ACCEPTS = ("application/json", "application/jsonl", "*/*")


@dataclass
class Seen:
    """What came back: how many answers of each status, and those that should not have come."""

    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def operations(document: dict[str, Any]) -> Iterator[APIOperation[Any, Any, Any, Any]]:
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok), result
        yield result.ok()


@dataclass
class Trial:
    """Tries operations out; blocking, for a thread of its own."""

    url: str
    headers: dict[str, str]
    seen: Seen = field(default_factory=Seen)

    def run(self, document: dict[str, Any], *, every: int, examples: int) -> Seen:
        for operation in list(operations(document))[::every]:
            self._try(operation, examples)
        return self.seen

    def _try(self, operation: APIOperation[Any, Any, Any, Any], examples: int) -> None:
        kinds = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

        @given(case=st.one_of(kinds), accept=st.sampled_from(ACCEPTS))
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any, accept: str) -> None:
            answer = case.call(base_url=self.url, headers={**self.headers, "Accept": accept}, timeout=30)
            self.seen.statuses[answer.status_code] = self.seen.statuses.get(answer.status_code, 0) + 1
            if answer.status_code >= 500:
                self.seen.failures.append(f"{operation.label}: {answer.status_code} {answer.text[:200]}")

        ask()


@pytest.mark.parametrize(
    ("every", "examples"),
    [
        pytest.param(9, 3, id="some"),
        pytest.param(1, 25, id="all", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
async def test_what_the_description_allows_and_forbids_is_never_a_failure_of_the_gateway(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, every: int, examples: int
) -> None:
    async with running(tmp_path, valkey_url) as stage:
        async with client.get(f"{stage.url}/api/v1/spec/fetch", headers=stage.bearer()) as answer:
            document = await answer.json()
        assert len(document["paths"]) > 200
        trial = Trial(f"{stage.url}/api/v1", stage.bearer())
        seen = await asyncio.to_thread(trial.run, document, every=every, examples=examples)
        print(f"{sum(seen.statuses.values())} requests: {dict(sorted(seen.statuses.items()))}")  # noqa: T201
        assert not seen.failures
        # It was a trial: much was let through, much was refused.
        assert seen.statuses[200] > 0
        assert seen.statuses[400] > 0
        assert not stage.gateway.parts.doubts.is_set()
