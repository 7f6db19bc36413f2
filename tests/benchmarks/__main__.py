"""`make bench`: the feature ladder and the peers, measured in alternating rounds.

    python -m benchmarks [--rounds N] [--seconds S] [--commit] [--only WORD ...]

Writes `bench-results/`; `--commit` also writes the table and ratios kept beside the code. Exit status 1 says
that a ratio is more than a tenth worse than the committed one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import contestants, report
from benchmarks.contestants import Contestant
from benchmarks.load import Load, measure

LIST = "/api/v1/bot/list"
POST = """wrk.method = "POST"
wrk.body = '{"name":"Ada","description":"made by a benchmark"}'
wrk.headers["Content-Type"] = "application/json"
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Rung:
    """One thing to measure: a load and the process that pays for it."""

    name: str
    contestant: Contestant
    load: Load


def rungs_of(stack: contextlib.ExitStack, folder: Path, packages: Path, seconds: float) -> list[Rung]:
    """Start everybody and say what each is to be asked."""
    (port,) = contestants.free_ports(1)
    behind = stack.enter_context(contestants.upstream(port))
    plain = stack.enter_context(contestants.gateway(port))
    unaudited = stack.enter_context(contestants.gateway(port, "audit.enabled=false"))
    cold = stack.enter_context(contestants.gateway(port, "listen.hot_path=off"))
    bearer = {name: f"Authorization: Bearer {token}" for name, token in plain.tokens.items()}
    other = {name: f"Authorization: Bearer {token}" for name, token in unaudited.tokens.items()}
    wide, bypass = bearer["wide"], "X-CBK-Cache: bypass"

    def load(one: Contestant, *headers: str, connections: int = 32, lua: str = "") -> Load:
        path = "/api/v1/bot/create" if lua else LIST
        return Load(one.url + path, headers, connections=connections, seconds=seconds, lua=lua)

    rungs = [
        Rung("upstream alone", behind, load(behind)),
        Rung("cached", plain, load(plain, wide)),
        Rung("cached, hot path off", cold, load(cold, f"Authorization: Bearer {cold.tokens['wide']}")),
        Rung("cached, no rate", plain, load(plain, bearer["free"])),
        Rung("forwarded", plain, load(plain, wide, bypass)),
        Rung("forwarded, no rate", plain, load(plain, bearer["free"], bypass)),
        Rung("refused 429", plain, load(plain, bearer["narrow"])),
        Rung("refused 401", plain, load(plain, wide + "x")),
        Rung("write audited", plain, load(plain, bearer["writer"], connections=64, lua=POST)),
        Rung("write", unaudited, load(unaudited, other["writer"], connections=64, lua=POST)),
    ]
    if shutil.which("nginx"):
        cached, forwarded = stack.enter_context(contestants.nginx(port, folder / "nginx"))
        rungs += [
            Rung("nginx cached", cached, load(cached, wide)),
            Rung("nginx forwarded", forwarded, load(forwarded, wide)),
        ]
    if shutil.which("npm"):
        node = stack.enter_context(contestants.fastify(port, packages))
        rungs.append(Rung("fastify", node, load(node, wide)))
    return rungs


def run(rounds: int, seconds: float, only: list[str], packages: Path) -> report.Rounds:
    """Measure every rung in every round."""
    found: report.Rounds = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cbkgw-bench-")))
        rungs = rungs_of(stack, folder, packages, seconds)
        chosen = [one for one in rungs if not only or any(word in one.name for word in only)]
        for one in chosen:
            measure(dataclasses.replace(one.load, seconds=1), one.contestant.pid, folder)
        for number in range(rounds):
            for one in chosen if number % 2 == 0 else reversed(chosen):
                reading = measure(one.load, one.contestant.pid, folder)
                found.setdefault(one.name, []).append(dataclasses.asdict(reading))
                sys.stderr.write(f"{number + 1}/{rounds} {one.name:24} {reading}" + "\n")
    return {one.name: found[one.name] for one in chosen}


def main() -> int:
    """Measure, print, write, compare."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--commit", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    asked = parser.parse_args()
    found = run(asked.rounds, asked.seconds, asked.only, asked.results.resolve() / "node")
    asked.results.mkdir(exist_ok=True)
    (asked.results / "readings.json").write_text(json.dumps(found, indent=1))
    (asked.results / "RESULTS.md").write_text(report.table(found))
    sys.stdout.write(report.table(found))
    worse = report.regressions(found)
    for line in worse:
        sys.stdout.write(f"worse: {line}\n")
    if asked.commit:
        report.commit(found)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
