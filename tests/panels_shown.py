"""`make panels`: a demo, its tour's traffic, a Prometheus that scrapes it, and what every panel then shows.

Needs Prometheus on the path. Everything is gone at the end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from yarl import URL

from cbk_gateway.telemetry.panels import main as show_panels
from contract.test_metrics_prometheus import DASHBOARDS, RULES, prometheus, scrapes, wait_until

PORTS = ("--port", "0", "--admin-port", "0", "--sandbox-port", "0")
ROUND = """
for turn in 1 2 3; do
  for path in bot/list bot/list conversation/list nothing/such/as/this; do
    curl -s -o /dev/null -H "Authorization: Bearer $CBK_GATEWAY_TOKEN_ACME" "$CBK_GATEWAY_URL/api/v1/$path"
    curl -s -o /dev/null -H "Authorization: Bearer $CBK_GATEWAY_TOKEN_GLOBEX" "$CBK_GATEWAY_URL/api/v1/$path"
  done
  curl -s -o /dev/null -H "Authorization: Bearer $CBK_GATEWAY_TOKEN_ACME" \\
    --json '{"name": "Ada"}' "$CBK_GATEWAY_URL/api/v1/bot/create"
  curl -sN -o /dev/null -H "Authorization: Bearer $CBK_GATEWAY_TOKEN_ACME" -H 'Accept: application/jsonl' \\
    --json '{"messages": [{"type": "user", "text": "Hello"}]}' "$CBK_GATEWAY_URL/api/v1/conversation/complete"
  curl -s -o /dev/null "$CBK_GATEWAY_URL/api/v1/bot/list"
done
"""
"""Hits, misses, writes, a stream, and refusals, of two tenants and of nobody."""


def main() -> int:
    """Print every panel; 1 when one is at fault."""
    with tempfile.TemporaryDirectory(prefix="cbkgw-panels-") as name:
        folder, variables = Path(name), Path(name) / "demo.env"
        demo = subprocess.Popen(
            [sys.executable, "-m", "cbk_gateway", "demo", *PORTS, "--env-file", str(variables)],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(variables.exists, "the demo")
            lines = [line.removeprefix("export ") for line in variables.read_text().splitlines()]
            told = dict(line.split("=", 1) for line in lines)
            port = URL(told["CBK_GATEWAY_ADMIN_URL"].strip("'")).port
            assert port is not None
            with prometheus(folder, port) as address:

                def has_seen_traffic() -> bool:
                    subprocess.run(["bash", "-c", f". '{variables}'\n{ROUND}"], check=True)
                    return scrapes(address) >= 6

                wait_until(has_seen_traffic, "six scrapes")
                return show_panels(
                    ["--prometheus", address, "--dashboards", str(DASHBOARDS), "--rules", str(RULES)]
                )
        finally:
            demo.terminate()
            demo.wait()


if __name__ == "__main__":
    sys.exit(main())
