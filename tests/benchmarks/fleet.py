"""Two workers against one, under the real `serve`: what each processor second of the workers serves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks import contestants, gateway_process
from benchmarks.contestants import Contestant
from benchmarks.figure import Figure
from benchmarks.ladder import BYPASS, asking
from benchmarks.load import measure
from cbk_gateway.assembly import minter
from cbk_gateway.settings.load import load

SERVED = 0.95
_START_S = 60.0
_SECRETS = {"KEY": gateway_process.SIGNING_KEY, "UPSTREAM_KEY": "sk-benchmark"}


@contextlib.contextmanager
def serving(upstream_port: int, workers: int, folder: Path) -> Iterator[Contestant]:
    """`cbk-gateway serve` with so many workers; the process is their supervisor."""
    folder.mkdir()
    document = gateway_process.settings(upstream_port, [])
    document["logging"] |= {"form": "json"}
    rate = {"rate": {"per_second": 1_000_000, "burst": 1_000_000}}
    tenant = {"id": "wide", "account": "wide", "key": "env:UPSTREAM_KEY", "scopes": ["*"], "limits": rate}
    (folder / "tenants.yaml").write_text(yaml.safe_dump({"tenants": [tenant | {"may_bypass_cache": True}]}))
    settings = folder / "gateway.yaml"
    settings.write_text(yaml.safe_dump(document))
    made = minter(load(settings, environ=_SECRETS))
    if made is None:
        message = "these settings name no issuer"
        raise RuntimeError(message)
    command = [sys.executable, "-m", "cbk_gateway", "serve", "--config", str(settings)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            cwd=folder,
            stderr=log,
            env=contestants.ENVIRONMENT | _SECRETS,
        )
    try:
        url = _url(process, folder / "log")
        yield Contestant(url, process.pid, {"wide": made.mint("wide", "bench", ("*",), 3600)})
    finally:
        process.terminate()
        process.wait(_START_S)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"fleet_ready"' in line:
                return str(json.loads(line)["url"])
        time.sleep(0.05)
    message = f"serve did not start: {log.read_text()}"
    raise RuntimeError(message)


def figures(rounds: int, seconds: int, folder: Path) -> list[Figure]:
    """Cached and forwarded reads against one worker and against two, in turn; and what nginx makes of two."""
    (port,) = contestants.free_ports(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contestants.upstream(port))
        fleets = {count: stack.enter_context(serving(port, count, folder / str(count))) for count in (1, 2)}
        asked: list[tuple[str, float | None, dict[int, Contestant], tuple[str, ...]]]
        asked = [("cached", SERVED, fleets, ()), ("forwarded", SERVED, fleets, (BYPASS,))]
        if contestants.has_nginx():
            # Generator and workers share the machine's cores: what that alone costs shows in another server.
            peers = {
                count: stack.enter_context(contestants.nginx(port, folder / f"nginx{count}", count))[0]
                for count in (1, 2)
            }
            token = fleets[1].tokens["wide"]
            known = {count: dataclasses.replace(one, tokens={"wide": token}) for count, one in peers.items()}
            asked.append(("cached, nginx+Lua", None, known, ()))
        return [
            Figure(
                f"two workers against one, served per CPU second, {name}",
                _ratios(name, processes, headers, rounds, seconds, folder),
                target,
                at_least=True,
            )
            for name, target, processes, headers in asked
        ]


def _ratios(
    name: str,
    processes: dict[int, Contestant],
    headers: tuple[str, ...],
    rounds: int,
    seconds: int,
    folder: Path,
) -> tuple[float, ...]:
    """What two workers serve per processor second, in what one does; by round."""
    # As many connections for each worker: what one finds ready at a time is what it saves by.
    loads = {
        count: dataclasses.replace(asking(one, "wide", *headers), connections=32 * count)
        for count, one in processes.items()
    }
    for count, asked in loads.items():
        measure(dataclasses.replace(asked, seconds=1), processes[count].pid, folder)
    ratios = []
    for number in range(rounds):
        cpu_us = {}
        for count in (1, 2) if number % 2 == 0 else (2, 1):
            lasting = dataclasses.replace(loads[count], seconds=seconds)
            reading = measure(lasting, processes[count].pid, folder)
            cpu_us[count] = reading.cpu_us if not reading.others else float("nan")
            sys.stderr.write(f"{number + 1}/{rounds} workers: {count}, {name:16} {reading}\n")
        ratios.append(cpu_us[1] / cpu_us[2])
    return tuple(ratios)
