"""`make bench`: the feature ladder, the peers, latency, streams, workers, store and memory, in rounds.

    python -m benchmarks [--rounds N] [--seconds S] [--requests N] [--parts PART ...] [--only WORD ...]
                         [--commit]

Writes `bench-results/`; `--commit` also writes the table, the picture and the ratios kept beside the code.
Exit status 1 says that a figure is more than a tenth worse than the committed one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks import (
    contestants,
    fleet,
    ladder,
    latency,
    memory,
    plot,
    report,
    scale,
    store_calls,
    streams,
)
from benchmarks.figure import Figure

PARTS = ("ladder", "latency", "streams", "workers", "store", "memory")


def run(asked: argparse.Namespace, folder: Path) -> tuple[report.Rounds, list[Figure]]:
    """Measure what was asked for and can be measured here."""
    rounds, seconds, parts = asked.rounds, asked.seconds, asked.parts
    has_wrk = shutil.which("wrk") is not None
    found: report.Rounds = {}
    figures: list[Figure] = []
    if "ladder" in parts and has_wrk:
        found = ladder.climb(rounds, seconds, asked.only, folder, asked.results.resolve() / "node")
        figures += report.ratios(found)
    if "latency" in parts:
        figures += latency.figures(rounds, seconds)
    if "streams" in parts:
        figures += streams.figures(rounds)
    if "workers" in parts and has_wrk:
        figures += fleet.figures(rounds, max(1, seconds // 2), folder)
    if "store" in parts:
        figures += store_calls.figures(min(rounds, 3), seconds)
    if "memory" in parts:
        figures += memory.figures(asked.requests, folder, has_wrk=has_wrk)
    return found, figures


def main() -> int:
    """Measure, print, write, compare."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement in a round")
    parser.add_argument("--requests", type=int, default=50_000, help="over which memory is watched")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--only", nargs="*", default=[], help="words in the names of the ladder's rungs")
    parser.add_argument("--commit", action="store_true", help="keep the results beside the code")
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    asked = parser.parse_args()
    notes = contestants.missing()
    for note in notes:
        sys.stderr.write(f"{note}\n")
    with tempfile.TemporaryDirectory(prefix="cbkgw-bench-") as folder:
        found, figures = run(asked, Path(folder))
    picture = plot.drawn(found, figures)
    text = report.table(found, figures, notes, report.PLOT.name)
    asked.results.mkdir(exist_ok=True)
    readings = {"ladder": found, "figures": [asdict(one) for one in figures]}
    (asked.results / "readings.json").write_text(json.dumps(readings, indent=1))
    (asked.results / report.RESULTS.name).write_text(text)
    (asked.results / report.PLOT.name).write_bytes(picture)
    sys.stdout.write(text)
    worse = report.regressions(figures)
    for line in worse:
        sys.stdout.write(f"worse: {line}\n")
    if asked.commit and not set(scale.WORK) <= found.keys():
        sys.stderr.write("not committed: the ladder was not measured\n")
    elif asked.commit:
        report.commit(figures, text, picture)
        scale.GUIDE.write_text(scale.renewed(scale.GUIDE.read_text()))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
