"""Readings of several rounds made into ratios, a table, and a comparison with the ratios committed before."""

from __future__ import annotations

import json
import math
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figure import Figure

RATIOS = Path(__file__).parent / "ratios.json"
RESULTS = Path(__file__).parent / "RESULTS.md"
PLOT = Path(__file__).parent / "RESULTS.svg"

Rounds = dict[str, list[dict[str, float]]]
"""By rung: what each round read, by name of the measure."""


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio between two rungs of the ladder, and what it should be.

    Attributes:
        name: What is compared.
        rung, against: Names of the two measurements.
        measure: `cpu` (smaller is better) or `rate` (larger is better).
        bound: The ratio wanted, at most or at least; None where nothing is asked.
    """

    name: str
    rung: str
    against: str
    measure: str
    bound: float | None

    def figure(self, rounds: Rounds) -> Figure:
        """The ratio of each round; numerators meet their own round."""
        key = "cpu_us" if self.measure == "cpu" else "per_second"
        pairs = zip(rounds[self.rung], rounds[self.against], strict=True)
        is_sound = sound(self.rung, rounds[self.rung]) and sound(self.against, rounds[self.against])
        values = tuple(
            one[key] / other[key] if is_sound and one[key] and other[key] else math.nan
            for one, other in pairs
        )
        return Figure(f"{self.name} ({self.measure})", values, self.bound, at_least=self.measure == "rate")


TARGETS = (
    Target("cached GET against nginx+Lua cached", "cached", "nginx cached", "cpu", 0.7),
    Target("forwarded GET against nginx+Lua forwarded", "forwarded", "nginx forwarded", "cpu", 3.0),
    Target("forwarded GET against fastify", "forwarded", "fastify", "cpu", 1.0),
    Target("cached GET counted against uncounted", "cached", "cached, no metrics", "cpu", 1.1),
    Target("forwarded GET counted against uncounted", "forwarded", "forwarded, no metrics", "cpu", 1.1),
    Target("refusal 429 against a cached hit", "refused 429", "cached", "cpu", 1.0),
    Target("refusal 401 against a cached hit", "refused 401", "cached", "cpu", 1.0),
    Target("audited write against unaudited, 64 connections", "write audited", "write", "rate", 0.7),
    Target("cached GET against the bare library", "cached", "bare", "cpu", None),
    Target(
        "cached GET on the full path against the bare library", "cached, hot path off", "bare", "cpu", None
    ),
    Target("limit against token only", "token and limit", "token only", "cpu", None),
    Target(
        "hit in the store against a hit in memory", "hit in the store", "cached, hot path off", "cpu", None
    ),
    Target("miss against a hit in the store", "miss", "hit in the store", "cpu", None),
    Target(
        "forwarded GET, new each time, against fastify", "forwarded, new each time", "fastify", "cpu", None
    ),
    Target(
        "cached GET with its line in the log against without",
        "cached, a line in the log each",
        "cached",
        "cpu",
        None,
    ),
    Target("cached GET traced, one in ten, against untraced", "cached, traced", "cached", "cpu", None),
    Target(
        "forwarded GET traced against untraced", "forwarded, traced", "forwarded, new each time", "cpu", None
    ),
)


def sound(rung: str, each: list[dict[str, float]]) -> bool:
    """Whether the answers of a rung were those that it is about."""
    count, others = (sum(one[key] for one in each) for key in ("count", "others"))
    share = others / count if count else math.nan
    return share > 0.9 if rung.startswith("refused") else share < 0.01


def ratios(rounds: Rounds) -> list[Figure]:
    """What the rungs say of one another, as far as they were measured."""
    return [one.figure(rounds) for one in TARGETS if one.rung in rounds and one.against in rounds]


def table(rounds: Rounds, figures: list[Figure], notes: list[str], plot: str = "") -> str:
    """The results in Markdown.

    Args:
        rounds: The ladder's readings.
        figures: All figures.
        notes: What could not be measured.
        plot: Name of the picture beside the text, if there is one.
    """
    count = max((len(one.values) for one in figures), default=0)
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`: loopback, one wrk thread, a 1.6 kB JSON list, HS256 tokens, one rate per",
        "tenant. CPU time is that of the process and its children, without the embedded store. Nobody logs",
        "requests but where that is said. Ratios are",
        f"medians of {count} alternating rounds, with the smallest and largest; they carry over between",
        "machines far better than times do.",
        "",
        "| figure | median | spread | target | met |",
        "| --- | --- | --- | --- | --- |",
        *(one.row() for one in figures),
    ]
    if rounds:
        lines += [
            "",
            "| work | CPU us/request | requests/s | p50 us | p99 us |",
            "| --- | --- | --- | --- | --- |",
        ]
    for rung, each in rounds.items():
        middle = {key: statistics.median(one[key] for one in each) for key in each[0]}
        flaw = "" if sound(rung, each) else " (other answers than meant)"
        lines.append(
            f"| {rung}{flaw} | {middle['cpu_us']:.1f} | {middle['per_second']:.0f} "
            f"| {middle['p50_us']:.0f} | {middle['p99_us']:.0f} |"
        )
    if plot:
        lines += ["", f"![The same as a picture]({plot})"]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    machine = f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}"
    return "\n".join([*lines, "", f"Taken with {machine}.", ""])


def regressions(figures: list[Figure]) -> list[str]:
    """What became more than a tenth worse than what is committed."""
    before = _committed()
    return [
        f"{one.name}: {one.median:.3f}, was {before[one.name]:.3f}"
        for one in figures
        if one.is_kept and one.name in before and one.is_worse_than(before[one.name])
    ]


def commit(figures: list[Figure], text: str, plot: bytes) -> None:
    """Write the table, the picture and the ratios that are kept with the code.

    What was not measured this time keeps its ratio of before.
    """
    RESULTS.write_text(text)
    PLOT.write_bytes(plot)
    kept = {one.name: round(one.median, 4) for one in figures if one.is_kept and math.isfinite(one.median)}
    RATIOS.write_text(json.dumps(_committed() | kept, indent=2) + "\n")


def _committed() -> dict[str, float]:
    return json.loads(RATIOS.read_text()) if RATIOS.exists() else {}
