"""What operators see and do about limits: every kind of bucket filled, shadows told apart and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from cbk_gateway.parties import Measure, Period, Quota, Rate, TenantLimits
from cbk_gateway.store import Store
from harness import running, tenant
from integration.commands_here import Command, commands
from integration.e2e_calls import change, get, look

LIST = "/api/v1/bot/list"
POOR = {"per_second": 0.001, "burst": 2}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return commands(monkeypatch)


async def test_every_bucket_a_request_draws_on_can_be_filled(
    tmp_path: Path, valkey_url: str, store: Store, command: Command
) -> None:
    tenants = (tenant("acme", limits=TenantLimits(subject_rate=Rate("each", 0.001, 2))),)
    limits = {"overall": dict(POOR), "accounts": {"acme-account": dict(POOR)}}
    async with running(tmp_path, valkey_url, tenants=tenants, limits=limits) as stage:
        headers = stage.bearer("acme")
        assert [(await get(stage, LIST, headers)).status for _ in range(3)] == [200, 200, 429]
        which = {"subject": "tester", "account": True, "overall": True}
        said = await change(stage, "/admin/limits/acme/reset", which)
        assert said.json == {"filled": ["each", "account", "overall"]}
        assert [(await get(stage, LIST, headers)).status for _ in range(3)] == [200, 200, 429]
        ran = await command(stage, "limit", "reset", "acme", "--subject", "tester", "--account", "--overall")
        assert ran.json == {"filled": ["each", "account", "overall"]}
        assert (await get(stage, LIST, headers)).status == 200
        records = [one for one in stage.journal() if one.get("change") == "limit.reset"]
        assert [{name: one[name] for name in which} for one in records] == [which, which]


async def test_a_shadow_is_told_apart_counted_and_never_enforced(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    limits = TenantLimits(
        rates=(Rate("planned", 0.001, 1, shadow=True),),
        quotas=(Quota("later", Period.DAY, Measure.REQUESTS, 1, shadow=True),),
    )
    async with running(tmp_path, valkey_url, tenants=(tenant("acme", limits=limits),)) as stage:
        headers = stage.bearer("acme")
        said = [await get(stage, LIST, headers) for _ in range(4)]
        assert [one.status for one in said] == [200] * 4
        assert all("RateLimit" not in one.headers and "X-Quota-Warning" not in one.headers for one in said)
        explained = (await look(stage, f"/admin/explain?method=GET&path={LIST}&tenant=acme")).json
        shadows = {one["policy"]: one["shadow"] for one in explained["tenant"]["limits"]}
        assert shadows == {"planned": True, "later": True}
        metrics = (await look(stage, "/metrics")).body.decode()
        assert 'cbk_gateway_limit_shadow_refusals_total{policy="planned",tenant="acme"} 3' in metrics
        assert 'cbk_gateway_limit_shadow_refusals_total{policy="later",tenant="acme"} 1' in metrics
