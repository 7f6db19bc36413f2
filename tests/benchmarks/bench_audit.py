"""What the journal costs: alone, door to door, and when it is verified.

Run it: `python tests/benchmarks/bench_audit.py [--seconds 3] [--records 1000000] [--directory DIR] [--json]`.
`DIR` must stand on the kind of disk the gateway will use: on tmpfs a sync costs nothing and the figures
mean nothing. Three parts: the journal alone; writes through a whole gateway with the journal on and off,
in one run, taking turns, in processes of their own (`bench_audit_outside.py`); verification with its speed
and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from cbk_gateway.audit import Act, Journal, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.audit.chain import Head, seal
from cbk_gateway.audit.disk import Disk
from cbk_gateway.audit.record import RecordFormat
from cbk_gateway.audit.redaction import Redactor
from cbk_gateway.audit.segment import Position, SegmentLog
from cbk_gateway.audit.signing import load_or_make
from cbk_gateway.audit.verify import keys_at, verify
from cbk_gateway.operation import understand

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.bench_audit_outside import Compared, compare

CONNECTIONS = (1, 16, 64)
KEY = b"a key for the benchmark, 32 bytes"
OPERATION = understand("POST", "/api/v1/bot/b1/update")


class Groups(SilentObserver):
    """Sizes of the commits, and what intents waited."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.waits_s: list[float] = []

    def committed(self, records: int, size_bytes: int, sync_s: float) -> None:  # noqa: ARG002 - its signature
        """See the base class."""
        self.sizes.append(records)

    def intent_waited(self, wait_s: float) -> None:
        """See the base class."""
        self.waits_s.append(wait_s)


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the result. Times in milliseconds."""

    what: str
    connections: int
    per_s: float
    p50_ms: float
    p99_ms: float
    group: float | None = None


def quantiles_ms(times_s: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    marks = statistics.quantiles(times_s, n=100)
    return marks[49] * 1000, marks[98] * 1000


async def repeat(call: Callable[[], Awaitable[None]], connections: int, seconds: float) -> list[float]:
    """Call over and over on that many tasks; gives the time of each call."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        while (began := time.perf_counter()) < end:
            await call()
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(connections)))
    return times


async def journal_alone(directory: Path, seconds: float) -> list[Measured]:
    """Intents and outcomes with nothing around them."""
    found: list[Measured] = []
    for connections in CONNECTIONS:
        groups = Groups()
        journal = Journal(JournalOptions(directory / f"alone-{connections}", KEY), groups, "w0")
        await journal.start()

        async def write(journal: Journal = journal) -> None:
            act = Act(request_id="r" * 26, tenant="acme", subject="app", operation=OPERATION)
            (await journal.intend(act)).close(Outcome(Result.ANSWERED, status=200, duration_s=0.01))

        times = await repeat(write, connections, seconds)
        await journal.stop()
        group = statistics.fmean(groups.sizes)
        found.append(Measured("journal", connections, len(times) / seconds, *quantiles_ms(times), group))
    return found


def written(options: JournalOptions, records: int) -> int:
    """Make a chain of that many records without waiting for each; gives its size in bytes."""
    shape = RecordFormat(Redactor(KEY), max_bytes=16_384, key_version="1")
    act = Act(request_id="r" * 26, tenant="acme", subject="app", operation=OPERATION)
    body = shape.intent(act, "i")
    key = load_or_make(options.key_path)
    log = SegmentLog(options.directory / "w0", "w0", key, Position(), Disk())
    log.open_next("started")
    size = 0
    # Small groups, so that making the sample does not set the peak that verification is measured against.
    for start in range(0, records, 500):
        size += log.commit([body] * min(500, records - start))
        if log.size > options.segment_max_bytes:
            log.rotate()
    log.seal("stopped")
    return size


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """The growth of the process's peak memory within, in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield lambda: (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def verification(directory: Path, records: int) -> dict[str, float]:
    """Speed and memory of verifying a chain, with all keys."""
    options = JournalOptions(directory / "verify", KEY)
    size = written(options, records)
    with peak_memory() as grown:
        began = time.perf_counter()
        report = verify(options.directory, keys_at(options.key_path))
        took_s = time.perf_counter() - began
        memory = grown()
    if not report.is_good:
        message = f"an untouched journal did not verify: {report.findings[:3]}"
        raise RuntimeError(message)
    return {
        "records": report.tally.records,
        "mib": size / 2**20,
        "records_per_s": report.tally.records / took_s,
        "memory_grown_mib": memory,
    }


def sealing_us() -> float:
    """Microseconds of thread time per record for its chain fields."""
    body = b'{"time":"2026-11-22T17:00:00.000000Z","kind":"intent",' + b'"x":"' + b"y" * 500 + b'"}'
    head = Head()
    began = time.perf_counter()
    for _ in range(20_000):
        _, head = seal(body, head, KEY)
    return (time.perf_counter() - began) / 20_000 * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per measurement")
    parser.add_argument("--records", type=int, default=1_000_000, help="records to verify")
    parser.add_argument("--directory", type=Path, default=None, help="where to write; removed afterwards")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
        directory = Path(name)
        verified = verification(directory, chosen.records)
        found = asyncio.run(journal_alone(directory, chosen.seconds))
        compared = [compare(directory, connections, chosen.seconds) for connections in CONNECTIONS]
    if chosen.json:
        sys.stdout.buffer.write(
            orjson.dumps(
                {
                    "journal": [asdict(one) for one in found],
                    "gateway": [asdict(one) for one in compared],
                    "verify": verified,
                    "seal_us": sealing_us(),
                }
            )
        )
        return
    show(found, compared, verified)


def show(found: list[Measured], compared: list[Compared], verified: dict[str, float]) -> None:
    """For people."""
    table = Table("what", "connections", "per second", "p50 ms", "p99 ms", "records per sync")
    for line in found:
        group = "" if line.group is None else f"{line.group:.1f}"
        table.add_row(
            line.what,
            str(line.connections),
            f"{line.per_s:.0f}",
            f"{line.p50_ms:.2f}",
            f"{line.p99_ms:.2f}",
            group,
        )
    console = Console()
    console.print(table)
    for one in compared:
        console.print(
            f"{one.connections} connections: {one.on_per_s:.0f}/s durable, {one.off_per_s:.0f}/s without "
            f"journal: {one.ratio:.0%} ({one.ratios[0]:.0%} to {one.ratios[1]:.0%}); "
            f"p50 +{one.p50_added_ms:.2f} ms, p99 +{one.p99_added_ms:.2f} ms, "
            f"CPU +{one.cpu_added_us:.0f} us/write; records per sync: mean {one.group_mean:.1f}, "
            f"p50 {one.group_p50:.0f}, p99 {one.group_p99:.0f}",
            soft_wrap=True,
        )
    console.print(
        f"verify: {verified['records']:,.0f} records, {verified['mib']:.0f} MiB, "
        f"{verified['records_per_s']:,.0f} records/s, memory +{verified['memory_grown_mib']:.1f} MiB; "
        f"sealing one record {sealing_us():.1f} us"
    )


if __name__ == "__main__":
    main()
