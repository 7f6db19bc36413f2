"""Readings of several rounds made into ratios, a table, and a comparison with the ratios committed before."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path

RATIOS = Path(__file__).parent / "ratios.json"
RESULTS = Path(__file__).parent / "RESULTS.md"
WORSE_BY = 0.10


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio between two rungs of the ladder, and what it should be.

    Attributes:
        name: What is compared.
        rung, against: Names of the two measurements.
        measure: `cpu` (smaller is better) or `rate` (larger is better).
        bound: The ratio wanted, at most or at least.
    """

    name: str
    rung: str
    against: str
    measure: str
    bound: float

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio is as wanted."""
        return ratio <= self.bound if self.measure == "cpu" else ratio >= self.bound

    def is_worse(self, now: float, before: float) -> bool:
        """Whether a ratio has become worse by more than a tenth."""
        if self.measure == "cpu":
            return now > before * (1 + WORSE_BY)
        return now < before * (1 - WORSE_BY)


TARGETS = (
    Target("cached GET against nginx+Lua cached", "cached", "nginx cached", "cpu", 0.7),
    Target("forwarded GET against nginx+Lua forwarded", "forwarded", "nginx forwarded", "cpu", 3.0),
    Target("forwarded GET against fastify", "forwarded", "fastify", "cpu", 1.0),
    Target("refusal 429 against a cached hit", "refused 429", "cached", "cpu", 1.0),
    Target("refusal 401 against a cached hit", "refused 401", "cached", "cpu", 1.0),
    Target("audited write against unaudited, 64 connections", "write audited", "write", "rate", 0.7),
)

Rounds = dict[str, list[dict[str, float]]]
"""By rung: what each round read, by name of the measure."""


def ratios(rounds: Rounds) -> dict[str, tuple[float, float, float]]:
    """Median, smallest and largest ratio of each target over the rounds; numerators meet their own round."""
    found = {}
    for target in TARGETS:
        if target.rung in rounds and target.against in rounds:
            key = "cpu_us" if target.measure == "cpu" else "per_second"
            pairs = zip(rounds[target.rung], rounds[target.against], strict=True)
            each = [one[key] / other[key] for one, other in pairs if other[key]]
            found[target.name] = (statistics.median(each), min(each), max(each))
    return found


def table(rounds: Rounds) -> str:
    """The results in Markdown."""
    count = max(len(each) for each in rounds.values())
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`: loopback, one wrk thread, a 1.6 kB JSON list, HS256 tokens, one rate per",
        "tenant. CPU time is that of the process and its children, without the embedded store. Ratios are",
        f"medians of {count} alternating rounds, with the smallest and largest; they carry over between",
        "machines far better than times do.",
        "",
        "| ratio | median | spread | target | met |",
        "| --- | --- | --- | --- | --- |",
    ]
    found = ratios(rounds)
    for target in TARGETS:
        if target.name in found:
            median, low, high = found[target.name]
            sign = "<=" if target.measure == "cpu" else ">="
            # A round without a single answer says that the measurement failed, not that the target is met.
            met = "not measured" if low == 0 else "yes" if target.is_met(median) else "no"
            lines.append(
                f"| {target.name} ({target.measure}) | {median:.2f} | {low:.2f} to {high:.2f} "
                f"| {sign} {target.bound} | {met} |"
            )
    lines += [
        "",
        "| work | CPU us/request | requests/s | p50 us | p99 us |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rung, each in rounds.items():
        middle = {key: statistics.median(one[key] for one in each) for key in each[0]}
        lines.append(
            f"| {rung} | {middle['cpu_us']:.1f} | {middle['per_second']:.0f} "
            f"| {middle['p50_us']:.0f} | {middle['p99_us']:.0f} |"
        )
    machine = f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}"
    return "\n".join([*lines, "", f"Taken with {machine}.", ""])


def regressions(rounds: Rounds) -> list[str]:
    """The ratios that became more than a tenth worse than those committed."""
    if not RATIOS.exists():
        return []
    before = json.loads(RATIOS.read_text())
    found = ratios(rounds)
    return [
        f"{target.name}: {found[target.name][0]:.2f}, was {before[target.name]:.2f}"
        for target in TARGETS
        if target.name in found
        and target.name in before
        and target.is_worse(found[target.name][0], before[target.name])
    ]


def commit(rounds: Rounds) -> None:
    """Write the table and the ratios that are kept with the code."""
    RESULTS.write_text(table(rounds))
    kept = {name: round(median, 3) for name, (median, _, _) in ratios(rounds).items()}
    RATIOS.write_text(json.dumps(kept, indent=2) + "\n")
