"""Writes the dashboards as JSON, or checks that the committed ones are what would be written.

python -m grafana.build            write grafana/dashboards/*.json
python -m grafana.build --check    exit with 1 and name the files that differ
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from grafana.audit_store import AUDIT_STORE
from grafana.cache_upstream import CACHE_UPSTREAM
from grafana.overview import OVERVIEW
from grafana.runbook import places, runbook
from grafana.tenants import TENANTS

DIRECTORY: Final = Path(__file__).parent / "dashboards"


def built() -> dict[Path, str]:
    """The text of each dashboard's file."""
    numbers = places()
    dashboards = (OVERVIEW, TENANTS, CACHE_UPSTREAM, AUDIT_STORE, runbook())
    return {
        DIRECTORY / f"{dashboard.uid}.json": json.dumps(dashboard.document(numbers), indent=2, sort_keys=True)
        + "\n"
        for dashboard in dashboards
    }


def main(arguments: list[str]) -> int:
    """Write or check; the exit status."""
    wanted = built()
    if "--check" in arguments:
        present = {path: path.read_text() for path in DIRECTORY.glob("*.json")}
        differing = sorted(
            path.name for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path)
        )
        if differing:
            sys.stderr.write(f"not as built: {', '.join(differing)}; run python -m grafana.build\n")
        return int(bool(differing))
    DIRECTORY.mkdir(exist_ok=True)
    for path in DIRECTORY.glob("*.json"):
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
