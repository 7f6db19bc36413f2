"""A real Prometheus scrapes real metrics, and every panel and alert is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from cbk_gateway.telemetry import Ledger, Metrics, report_process
from cbk_gateway.telemetry.panel_queries import NOT_FIRING, Verdict
from cbk_gateway.telemetry.panels import ask, main, queries_of, report, show
from harness import Stage

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "grafana" / "dashboards"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DEADLINE_S = 60.0

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None and "CI" not in os.environ,
    reason="needs Prometheus (Debian: prometheus)",
)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll with a deadline; the pause only keeps the machine free for Prometheus."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def endpoint(expose: Callable[[str], tuple[bytes, str]]) -> Iterator[int]:
    """Serves `/metrics` on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, content_type = expose(self.headers.get("Accept", ""))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def prometheus(directory: Path, target: int) -> Iterator[str]:
    """Runs Prometheus with the shipped rules against one target; gives its address."""
    job: dict[str, Any] = {
        "job_name": "cbk-gateway",
        "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
    }
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "500ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [job],
    }
    # JSON is YAML.
    (directory / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--enable-feature=exemplar-storage",
                "--storage.tsdb.retention.size=64MB",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: process.poll() is not None or is_ready(address), "Prometheus")
        assert process.poll() is None, (directory / "log").read_text()[-2000:]
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def fetch(url: str, **parameters: str) -> Any:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=20) as response:
        return json.loads(response.read())["data"]


def everything_happens(metrics: Metrics) -> None:
    """One of each event, in words the packages use."""
    for tenant in ("acme", "globex"):
        for cache, upstream_s in (("hit", None), ("miss", 0.2)):
            metrics.request(tenant, "bot", "list", 200, cache, 0.21, upstream_s, request_id=f"id-of-{tenant}")
        metrics.request(tenant, "bot", "create", 503, "none", 0.3, 0.2, effect="write")
        metrics.refusal("rate", 429, tenant)
        metrics.bodies(tenant, 100, 2000)
        metrics.model_tokens(tenant, 50)
        metrics.limits.decided(tenant, "admitted", "")
        metrics.limits.decided(tenant, "rate", "default")
        metrics.limits.shadow_refused(tenant, "trial")
        metrics.limits.configured(tenant, "default", 5)
        metrics.limits.use(tenant, "default", 0.5)
        metrics.limits.quota_reached(tenant, "month", 80)
        metrics.limits.quota_use(tenant, "month", 0.8)
        metrics.tenancy.key_refused(tenant, "next")
        metrics.tenancy.health_changed(tenant, is_healthy=True)
        metrics.tenancy.next_key_ready(tenant)
        metrics.tenancy.rotation_ended(tenant, "promoted", "gateway")
        metrics.tenancy.foreign_object(tenant, refused=True)
    metrics.request_started()
    metrics.connections_open(1)
    metrics.stream_opened("acme")
    metrics.stream_opened("acme")
    metrics.stream_first_byte(0.1)
    metrics.stream_ended("acme", "complete", 3)
    metrics.limits.asked_store(1)
    metrics.limits.paced("acme", 0.1)
    metrics.limits.mode_changed("store")
    for tier in ("l1", "l2"):
        metrics.cache.hit(tier)
    metrics.cache.missed("miss")
    metrics.cache.passed("bypass")
    metrics.cache.collapsed()
    metrics.cache.stored(500)
    metrics.cache.unstored("too-large")
    metrics.cache.invalidated("write")
    metrics.cache.stale_served("revalidate")
    metrics.cache.evicted("l1", 2)
    metrics.cache.memory(10, 5000)
    metrics.cache.feed_lag(0.01)
    metrics.cache.feed_live(is_live=True)
    metrics.cache.write_waited(0.002)
    metrics.audit.committed(3, 900, 0.004)
    metrics.audit.intent_waited(0.005)
    metrics.audit.refused("deadline")
    metrics.audit.allowed("deadline")
    metrics.audit.dropped("outcome")
    metrics.audit.segment_opened("rotated")
    metrics.audit.recovered(1)
    metrics.audit.write_begun()
    metrics.audit.write_ended("answered")
    metrics.audit.health(is_healthy=True, waiting=1, last_sync_age_s=0.2)
    metrics.upstream.connection_opened(0.01)
    metrics.upstream.connection_failed("connect")
    metrics.upstream.answered("read", 200, 0.1, 1)
    metrics.upstream.answered("read", 503, 0.1, 2)
    metrics.upstream.faulted("write", "closed", "unknown", 1)
    metrics.upstream.retried("connect", paid=False)
    metrics.upstream.breaker_changed("upstream", "half_open")
    metrics.upstream.breaker_changed("upstream", "closed")
    metrics.upstream.concurrency_changed(64)
    metrics.upstream.queued(0.01, admitted=True)
    metrics.upstream.stream_ended("complete")
    metrics.upstream.shielded("proceed")
    metrics.upstream.reachable(is_reachable=True)
    metrics.store.answered(0.0004)
    metrics.store.failed("timeout")
    metrics.store.available(is_available=True)
    metrics.identity.token_verified("main", "ES256")
    metrics.identity.token_remembered("main")
    metrics.identity.token_refused("expired")
    metrics.identity.keys_fetched("main", "fetched")
    metrics.identity.keys_in_force("main", 2)
    metrics.identity.revocation_applied("token")
    metrics.identity.revocations_confirmed(3, is_confirmed=True)
    metrics.tenancy.tenants_changed(2, 7)
    metrics.tenancy.source_recovered("file")
    metrics.tenancy.key_expires("tls", "api", time.time() + 30 * 86400)
    metrics.runtime.worker_restarted("rolled")
    metrics.runtime.loop_lag(0.001)
    metrics.runtime.reload("applied", time.time())


def busy_gateway() -> Callable[[str], tuple[bytes, str]]:
    """Two workers behind a ledger; everything happens anew before each scrape."""
    workers = [Metrics(worker=str(number)) for number in range(2)]
    for metrics in workers:
        metrics.before_scrape(report_process(metrics.runtime, "1.2.3", time.time()))
    ledger = Ledger()

    def expose(accept: str) -> tuple[bytes, str]:
        for metrics in workers:
            everything_happens(metrics)
            ledger.update(metrics.snapshot())
        return ledger.exposition(accept)

    return expose


def idle_gateway() -> Callable[[str], tuple[bytes, str]]:
    """A gateway which has just started and was asked nothing."""
    metrics = Metrics()
    metrics.before_scrape(report_process(metrics.runtime, "1.2.3", time.time()))
    return metrics.exposition


def scrapes(address: str) -> float:
    found = ask(address, 'count_over_time(up{job="cbk-gateway"}[1m])')["data"]["result"]
    return float(found[0]["value"][1]) if found else 0


def test_every_panel_shows_data_when_everything_happens(tmp_path: Path) -> None:
    with endpoint(busy_gateway()) as port, prometheus(tmp_path, port) as address:
        wait_until(lambda: scrapes(address) >= 4, "four scrapes")
        shown = [show(address, query, "1m") for query in queries_of(DASHBOARDS, RULES)]
        panels = [one for one in shown if one.query.source not in {"alerts", "records"}]
        lacking = [
            (one.query.title, one.query.expr, one.lines) for one in panels if one.verdict != Verdict.FOUND
        ]
        assert not lacking
        assert not [one.lines for one in shown if one.verdict == Verdict.REFUSED]

        # Exemplars lead from a bucket to a request.
        found = fetch(
            f"{address}/api/v1/query_exemplars",
            query="cbk_gateway_request_duration_seconds_bucket",
            start=str(time.time() - 60),
            end=str(time.time() + 60),
        )
        ids = {one["labels"]["request_id"] for series in found for one in series["exemplars"]}
        assert ids == {"id-of-globex"}  # the last of each bucket

        # Errors, lost outcomes and the like did happen, so these must have been noticed.
        wait_until(lambda: fetch(f"{address}/api/v1/alerts")["alerts"], "alerts")
        rules = [rule for group in fetch(f"{address}/api/v1/rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}


def test_every_panel_of_an_idle_gateway_has_data_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with endpoint(idle_gateway()) as port, prometheus(tmp_path, port) as address:
        wait_until(lambda: scrapes(address) >= 4, "four scrapes")
        arguments = ["--prometheus", address, "--dashboards", str(DASHBOARDS), "--rules", str(RULES)]
        status = main(arguments)
        printed = capsys.readouterr().out
        assert status == 0, [line for line in printed.splitlines() if line.endswith(("EMPTY", "REFUSED"))]
        assert "0 at fault" in printed
        assert NOT_FIRING in printed
        assert "FIRES" not in printed


async def test_every_panel_of_a_real_gateway_has_data_or_says_why_not(
    tmp_path: Path, stage: Stage, client: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = stage.bearer("acme")

    async def traffic() -> None:
        """A write, a miss, a hit, a stream, a refusal of each kind."""
        api = f"{stage.url}/api/v1"
        async with client.post(f"{api}/bot/create", headers=headers, json={"name": "a"}) as answer:
            assert answer.status == 200
        for _ in range(2):
            async with client.get(f"{api}/bot/list", headers=headers) as answer:
                assert answer.status == 200
                await answer.read()
        for path, sent in (("/bot/list", {}), ("/no/such/path/at/all/here", headers)):
            async with client.get(api + path, headers=sent) as answer:
                assert answer.status in {401, 404}

    folder = tmp_path / "prometheus"
    folder.mkdir()
    port = URL(stage.admin_url).port
    assert port is not None
    await traffic()
    with prometheus(folder, port) as address:
        deadline = time.monotonic() + DEADLINE_S
        while await asyncio.to_thread(scrapes, address) < 6:
            assert time.monotonic() < deadline
            await traffic()
        arguments = ["--prometheus", address, "--dashboards", str(DASHBOARDS), "--rules", str(RULES)]
        status = await asyncio.to_thread(main, arguments)
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, [line for line in lines if line.endswith(("EMPTY", "REFUSED"))]
    for title in (
        "Requests by status",
        "Requests by cache",
        "Refusals by reason",
        "Hits by tier",
        "Hit ratio",
    ):
        assert any(line.startswith(title) and line.endswith(": data") for line in lines), title


def test_a_query_that_is_refused_or_finds_nothing_unannounced_is_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard = {
        "title": "Odd",
        "panels": [
            {"title": "Wrong", "targets": [{"refId": "A", "expr": "sum(("}]},
            {"title": "Unannounced", "targets": [{"refId": "A", "expr": "no_such_metric"}]},
            {"title": "Nothing by nothing", "targets": [{"refId": "A", "expr": "vector(0) / vector(0)"}]},
            {"title": "Fine", "targets": [{"refId": "A", "expr": "vector(1)"}]},
        ],
    }
    (tmp_path / "odd.json").write_text(json.dumps(dashboard))
    with endpoint(idle_gateway()) as port, prometheus(tmp_path, port) as address:
        status = main(["--prometheus", address, "--dashboards", str(tmp_path), "--rules", str(RULES)])
    lines = capsys.readouterr().out.splitlines()
    assert status == 1
    for line in ("Wrong: REFUSED", "Unannounced: EMPTY", "Nothing by nothing: EMPTY", "Fine: data"):
        assert line in lines


def test_a_prometheus_that_is_not_there_is_said_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert main(["--prometheus", address, "--dashboards", str(DASHBOARDS), "--rules", str(RULES)]) == 3
    assert "refused" in capsys.readouterr().err


def test_what_is_not_prometheus_is_said_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert main(["--prometheus", address, "--dashboards", str(DASHBOARDS), "--rules", str(RULES)]) == 3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "is not Prometheus" in capsys.readouterr().err


def test_the_report_names_each_dashboard_once() -> None:
    queries = queries_of(DASHBOARDS, RULES)
    lines = report([])
    assert lines == []
    assert {query.source for query in queries} >= {"CBK gateway: overview", "alerts", "records"}


@pytest.mark.long
def test_one_command_prints_what_every_panel_shows_of_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    import panels_shown  # noqa: PLC0415 - it takes its means from here

    assert panels_shown.main() == 0
    lines = capsys.readouterr().out.splitlines()
    for title in ("Requests by status", "Hit ratio", "Records made durable", "Streams ended"):
        assert any(line.startswith(title) and line.endswith(": data") for line in lines), title
    assert lines[-1].endswith("0 at fault")
