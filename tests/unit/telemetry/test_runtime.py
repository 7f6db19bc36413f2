"""What a process knows of itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cbk_gateway.telemetry import Metrics, report_process, watch_loop_lag
from cbk_gateway.telemetry.runtime import read_resources


def test_memory_grows_with_what_is_held() -> None:
    before = read_resources()
    held = bytearray(b"x" * 50_000_000)
    after = read_resources()
    assert after.memory_bytes - before.memory_bytes > 25_000_000
    assert len(held) == 50_000_000
    assert after.cpu_s > 0


def test_an_open_file_is_counted(tmp_path: Path) -> None:
    before = read_resources().open_files
    with (tmp_path / "file").open("w"):
        assert read_resources().open_files == before + 1
    assert read_resources().open_files == before


def test_the_process_reports_its_build_and_its_use() -> None:
    metrics = Metrics(worker="3")
    metrics.before_scrape(report_process(metrics.runtime, "1.2.3", 1000.0))
    text = metrics.exposition()[0].decode()
    assert 'version="1.2.3"' in text
    value = metrics.registry.get_sample_value
    assert value("cbk_gateway_start_timestamp_seconds") == 1000
    assert value("cbk_gateway_worker_up", {"worker": "3"}) == 1
    assert (value("cbk_gateway_resident_memory_bytes", {"worker": "3"}) or 0) > 1_000_000
    assert (value("cbk_gateway_cpu_seconds_total", {"worker": "3"}) or 0) > 0


async def test_a_loop_that_is_held_up_is_noticed() -> None:
    lags: list[float] = []
    reported = asyncio.Event()

    def report(seconds: float) -> None:
        lags.append(seconds)
        if seconds > 0.02:
            reported.set()

    watching = asyncio.create_task(watch_loop_lag(report, 0.001))
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 - holding up the loop is the point
    await asyncio.wait_for(reported.wait(), 20)
    watching.cancel()
    assert min(lags) >= 0
