"""`cbk-gateway audit`: reading and proving the journal, from its files alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import orjson
from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cbk_gateway import assembly
from cbk_gateway.audit import parquet
from cbk_gateway.audit.export import (
    TABLE_COLUMNS,
    as_csv,
    as_json_lines,
    as_ocsf_lines,
    documented,
    table_row,
)
from cbk_gateway.audit.index import JournalIndex, index_path, passed_over
from cbk_gateway.audit.reading import segments, workers
from cbk_gateway.audit.redaction import digest_for
from cbk_gateway.audit.search import Query, Record, follow, search
from cbk_gateway.audit.search import show as stories_of
from cbk_gateway.audit.verify import keys_at, verify
from cbk_gateway.cli.output import CHECK_FAILED, USAGE, CommandFault
from cbk_gateway.cli.running import run
from cbk_gateway.settings.load import load

app = App(name="audit", help="Verify, search, follow and export the audit journal.")

Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]
Form = Literal["table", "json", "csv"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Filters:
    """What to look for; everything left out matches all."""

    since: str | None = None
    """Earliest time, RFC 3339 in UTC or a beginning of it: 2026-11-22T17."""
    until: str | None = None
    """Latest time, exclusive."""
    tenant: str | None = None
    """Tenant id."""
    subject: str | None = None
    """Token subject."""
    resource: str | None = None
    """Resource type and those below it, such as conversation."""
    id_: Annotated[str | None, Parameter(name="--id")] = None
    """An id in the path, or one an answer named."""
    outcome: str | None = None
    """answered, not_sent, unknown, aborted_by_client or refused."""
    text: str | None = None
    """Any text of a record, such as a digest."""

    def query(self) -> Query:
        """As the journal's search takes them."""
        given = asdict(self)
        given["object_id"], given["result"] = given.pop("id_"), given.pop("outcome")
        return replace(Query(), **given)


ANY = Filters()


@app.command(name="verify")
def verify_journal(
    directory: Path,
    *,
    key: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Prove that a journal is what was written: chains, signatures, segments. Exits 1 when it is not.

    Example: `cbk-gateway audit verify audit --json`

    Args:
        directory: The journal.
        key: Its signing key or public key (PEM); by default the one beside the directory.
        json: Print findings as JSON.
    """
    keys = keys_at(key or directory.with_name(directory.name + ".signing.pem"))
    size = sum(one.path.stat().st_size for folder in workers(directory) for one in segments(folder))
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=json) as progress:
        task = progress.add_task("verifying", total=size)
        report = verify(directory, keys, progress=lambda passed: progress.advance(task, passed))
    if json:
        document = {"good": report.is_good, **asdict(report)}
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
    else:
        for finding in report.findings:
            sys.stdout.write(f"{finding.kind}: {finding.path}:{finding.line} {finding.message}\n")
        tally = report.tally
        verdict = "is whole" if report.is_good else f"has {report.problems} problems"
        sys.stdout.write(
            f"The journal {verdict}: {tally.records} records in {tally.segments} segments of "
            f"{report.workers} chains, {tally.signatures} signatures, {tally.unsigned} records unsigned.\n"
        )
    return 0 if report.is_good else CHECK_FAILED


@app.command(name="search")
def search_journal(
    directory: Path,
    *,
    filters: Filters = ANY,
    form: Annotated[Form, Parameter(name=["--form", "-f"])] = "table",
    limit: int = 100,
    newest_first: bool = False,
) -> int:
    """Find records.

    Example: `cbk-gateway audit search audit --tenant acme --resource bot --outcome unknown`

    Args:
        directory: The journal.
        form: table, json (lines) or csv.
        limit: Most records to print.
        newest_first: Begin at the end.
    """
    query = filters.query()
    without = passed_over(directory, query)
    found = islice(search(directory, query, newest_first=newest_first, without=without), limit)
    if form == "table":
        table = Table(*TABLE_COLUMNS)
        for record in found:
            table.add_row(*table_row(record))
        Console().print(table)
    elif form == "csv":
        sys.stdout.writelines(as_csv(found))
    else:
        sys.stdout.writelines(line.decode() for line in as_json_lines(found))
    return 0


@app.command
def tail(
    directory: Path,
    *,
    filters: Filters = ANY,
    follow_on: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
) -> int:
    """Print the newest records; with -f go on with those that come, until Ctrl-C.

    Example: `cbk-gateway audit tail audit -f --tenant acme`

    Args:
        directory: The journal.
        follow_on: Wait for more.
    """
    for record in reversed(list(islice(search(directory, filters.query(), newest_first=True), 20))):
        _print_line(record)

    async def go_on() -> None:
        async for record in follow(directory, filters.query()):
            _print_line(record)

    if follow_on:
        run(go_on)
    return 0


@app.command
def show(directory: Path, request_id: str) -> int:
    """Print everything about one request: intent, outcome and verdict together.

    Example: `cbk-gateway audit show audit 1a2047f0754000001f89426ccefd8`

    Args:
        directory: The journal.
        request_id: The `X-Request-Id` of its answer.
    """
    without = passed_over(directory, Query(request_id=request_id))
    found = stories_of(directory, request_id, without=without)
    if not found:
        raise CommandFault(f"The journal {directory} knows no request {request_id[:80]}.", USAGE)
    for story in found:
        parts = {"intent": story.intent, "outcome": story.outcome, "verdict": story.verdict}
        told = {name: part.fields if part is not None else None for name, part in parts.items()}
        document = {**told, "others": [one.fields for one in story.others]}
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 0


@app.command
def export(
    directory: Path,
    *,
    filters: Filters = ANY,
    form: Annotated[Literal["ocsf", "csv", "json", "parquet"], Parameter(name=["--format"])] = "ocsf",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> int:
    """Write records for another system: OCSF "API Activity" JSON lines, CSV, JSON lines as they are, Parquet.

    Example: `cbk-gateway audit export audit --format ocsf --since 2026-11-22 > activity.jsonl`

    Args:
        directory: The journal.
        form: ocsf, csv, json or parquet.
        output: The file to write; standard output when absent, except for parquet, which needs one.
    """
    query = filters.query()
    found = search(directory, query, without=passed_over(directory, query))
    if form == "parquet":
        return _export_parquet(found, output)
    with output.open("wb") if output is not None else nullcontext(sys.stdout.buffer) as target:
        if form == "csv":
            target.writelines(text.encode("utf-8", "backslashreplace") for text in as_csv(found))
        else:
            target.writelines(as_ocsf_lines(found) if form == "ocsf" else as_json_lines(found))
    return 0


def _export_parquet(found: Iterable[Record], output: Path | None) -> int:
    if output is None:
        raise CommandFault("A Parquet file is no text: name it with --output.", USAGE)
    try:
        written = parquet.write(found, output)
    except parquet.ParquetMissing as missing:
        raise CommandFault(str(missing), USAGE) from None
    sys.stderr.write(f"{written} records in {output}\n")
    return 0


@app.command
def index(directory: Path) -> int:
    """Build or extend the index beside a journal, which makes search, show and export fast on large ones.

    It may be deleted at any time. Run it now and then, for instance daily; what it does not know is read.

    Example: `cbk-gateway audit index audit`

    Args:
        directory: The journal.
    """
    with JournalIndex(directory) as one:
        sys.stderr.write(f"{one.extend()} segments indexed in {index_path(directory)}\n")
    return 0


@app.command
def fields(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print what each field of a record means, and where it goes in an OCSF event.

    Example: `cbk-gateway audit fields`

    Args:
        json: Print JSON lines.
    """
    if json:
        for name, meaning, place in documented():
            line = orjson.dumps({"field": name, "meaning": meaning, "ocsf": place})
            sys.stdout.write(line.decode() + "\n")
        return 0
    table = Table("field", "meaning", "OCSF")
    for row in documented():
        table.add_row(*row)
    Console().print(table)
    return 0


@app.command
def digest(value: str | None = None, *, tenant: str, config: Config = None) -> int:
    """Print the digest that stands in the journal for a known value: then search for it with --text.

    Example: `printf %s "$VALUE" | cbk-gateway audit digest --tenant acme --config config/gateway.yaml`

    Args:
        value: The value; read from standard input when absent, which keeps it out of the shell's history.
        tenant: Whose records; each tenant's digests have a key of their own.
        config: The settings file, for the digest key.
    """
    options = assembly.journal_options(load(config))
    known = sys.stdin.read() if value is None else value
    sys.stdout.write(digest_for(options.digest_key, tenant, known) + "\n")
    return 0


def _print_line(record: Record) -> None:
    sys.stdout.write("  ".join(cell for cell in table_row(record) if cell) + "\n")
    sys.stdout.flush()
