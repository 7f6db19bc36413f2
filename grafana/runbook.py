"""The runbook as a dashboard, so that a panel can link to the paragraph of its alert."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from grafana.blocks import COLUMNS, RUNBOOK_UID, Dashboard, Panel

SOURCE: Final = Path(__file__).parents[1] / "deploy" / "prometheus" / "runbook.md"
_SECTION: Final = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """The paragraph of each alert, in the order of the runbook."""
    return {found[1]: found[2].strip() for found in _SECTION.finditer(SOURCE.read_text())}


def places() -> dict[str, int]:
    """The number of the panel that holds the paragraph of each alert."""
    return {alert: number for number, alert in enumerate(sections(), start=1)}


def runbook() -> Dashboard:
    """One text panel per alert."""
    panels = tuple(
        Panel("text", alert, content=text, width=COLUMNS, height=6) for alert, text in sections().items()
    )
    return Dashboard(RUNBOOK_UID, "CBK gateway: runbook", "What each alert means and what to do.", panels)
