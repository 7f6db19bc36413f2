"""The access log of a running gateway: what is sampled, what is always there, what ties lines to the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet_stage import FleetStage, serving, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SLOW_S = 0.3


async def ask(stage: FleetStage, path: str) -> tuple[int, str]:
    """Status and request id of a GET that belongs to a trace."""
    headers = {**stage.bearer(), "traceparent": PARENT}
    async with stage.session.get(stage.url + path, headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers["X-Request-Id"]


def lines(stage: FleetStage) -> dict[str, dict[str, Any]]:
    """The access lines so far, by request id."""
    return {one["request_id"]: one for one in stage.events if one["event"] == "request"}


@pytest.mark.parametrize("sample", [0, 1])
async def test_failures_and_slow_requests_are_logged_whatever_the_sample(tmp_path: Path, sample: int) -> None:
    logging = {"access": True, "access_sample": sample, "slow_s": SLOW_S, "form": "json"}
    async with serving(tmp_path, workers=1, logging=logging) as stage:
        stage.sandbox.add_fault("/v1/dataset/list", "latency", value=SLOW_S * 1000)
        stage.sandbox.add_fault("/v1/skillset/list", "status", value=503)
        _, usual = await ask(stage, "/api/v1/bot/list")
        _, slow = await ask(stage, "/api/v1/dataset/list")
        status, failed = await ask(stage, "/api/v1/skillset/list")
        assert status == 503

        async def has_both() -> bool:
            return {slow, failed} <= lines(stage).keys()

        await until(has_both)
        assert (usual in lines(stage)) == (sample == 1)
        for name in (slow, failed):
            line = lines(stage)[name]
            assert (line["trace_id"], line["tenant"], line["method"]) == (TRACE, "acme", "GET")
        assert lines(stage)[failed]["status"] == 503
        assert lines(stage)[slow]["total_ms"] >= SLOW_S * 1000


async def test_what_is_answered_from_its_bytes_has_its_line_too(tmp_path: Path) -> None:
    logging = {"access": True, "access_sample": 1, "slow_s": SLOW_S, "form": "json"}
    async with serving(tmp_path, workers=1, logging=logging) as stage:
        headers, sent = stage.bearer(), {}
        # More than it takes until the worker's own memory answers.
        for _ in range(300):
            async with stage.session.get(f"{stage.url}/api/v1/bot/list", headers=headers) as answer:
                sent[answer.headers["X-Request-Id"]] = len(await answer.read())

        async def has_all() -> bool:
            return sent.keys() <= lines(stage).keys()

        await until(has_all)
        found = [lines(stage)[name] for name in sent]
    assert len(sent) == 300
    assert {(one["tenant"], one["method"], one["status"]) for one in found} == {("acme", "GET", 200)}
    assert [one["sent_bytes"] for one in found] == list(sent.values())
    assert {one["client"] for one in found} == {"127.0.0.1"}
    assert sum(one["cache"] == "hit" for one in found) > 200
