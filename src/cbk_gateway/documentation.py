"""Writes the generated parts of the documentation, between markers that name their source.

`python -m cbk_gateway.documentation README.md` renews a file in place; with `--check` it only says whether
the file is up to date. What the parts say is written where it is defined: in the metrics' catalogue.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cbk_gateway.telemetry import metrics_markdown

PARTS: Final[Mapping[str, Callable[[], str]]] = {"metrics": metrics_markdown}
_PART: Final = re.compile(r"(<!-- generated: (?P<name>\w+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def renewed(text: str) -> str:
    """The text with each generated part as the code has it now.

    Raises:
        KeyError: A marker names a part that does not exist.
    """
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part['name']]().strip()}\n{part[3]}", text)


def main(arguments: list[str]) -> int:
    """Renew or check files; 1 when a checked one is out of date."""
    stale = []
    for name in (one for one in arguments if one != "--check"):
        file = Path(name)
        text = file.read_text()
        if renewed(text) == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            file.write_text(renewed(text))
    if "--check" in arguments and stale:
        sys.stderr.write(f"out of date, run `make docs`: {', '.join(stale)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
