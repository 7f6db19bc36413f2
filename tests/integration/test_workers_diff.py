"""`config diff`: what a reload would change, before it is asked for."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import yaml

from fleet_stage import ENVIRONMENT, serving
from harness import ADMIN_TOKEN


async def diff(folder: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cbk_gateway", "config", "diff", *arguments),
        cwd=folder,
        env=os.environ | ENVIRONMENT | {"CBK_GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_new_file_is_compared_with_the_running_gateway_and_with_another_file(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=1) as stage:
        remote = ("--admin-url", stage.admin_url)
        assert await diff(tmp_path, "--config", "gateway.yaml", *remote) == (0, "")
        document = yaml.safe_load((tmp_path / "gateway.yaml").read_text())
        document["store"] = {"url": "redis://user:hunter2@127.0.0.1:1/0"}
        document["cache"] = {"config_s": 5}
        (tmp_path / "new.yaml").write_text(yaml.safe_dump(document))
        for arguments in (remote, ("gateway.yaml",)):
            code, said = await diff(tmp_path, *arguments, "--config", "new.yaml")
            assert code == 1
            assert "cache.config_s: 60.0 -> 5.0\n" in said
            assert "store.url: embedded -> redis://***@127.0.0.1:1/0 (needs a restart)\n" in said
            assert "hunter2" not in said
        (tmp_path / "new.yaml").write_text("listen: {prot: 1}\n")
        code, said = await diff(tmp_path, "--config", "new.yaml", *remote)
        assert (code, "listen.prot" in said) == (3, True)
