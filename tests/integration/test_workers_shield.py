"""A write repeated over another worker's connection: the processes share what they know of its first try."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from fleet_stage import serving
from integration.test_workers_together import lines_to_both_workers


async def test_a_create_whose_answer_was_lost_is_done_once_by_all_workers(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, workers=2) as stage, AsyncExitStack() as stack:
        lines = await lines_to_both_workers(stage, stack)
        fields = {**stage.bearer(), "Idempotency-Key": "one"}
        stage.sandbox.add_fault("/v1/bot/create", "status", value={"status": 502, "after_effect": True})
        status, _ = await lines[0].ask("POST", "/api/v1/bot/create", fields, {"name": "Ada"})
        assert status == 502
        # Some of these lines belong to the worker that made the first try, and some to the other one.
        repeated = [await line.ask("POST", "/api/v1/bot/create", fields, {"name": "Ada"}) for line in lines]
        assert {status for status, _ in repeated} == {200}
        bots = [row.id for row in stage.sandbox.world.store.all_rows() if row.kind == "bot"]
        assert [{"id": one} for one in bots] == [repeated[0][1]]
        assert all(body == repeated[0][1] for _, body in repeated)
