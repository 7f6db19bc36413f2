"""The journal's commands: every format and filter says the same, with an index or without."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.audit import Journal, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.audit.index import index_path
from cbk_gateway.audit.reading import segments
from cbk_gateway.audit.redaction import digest_for
from cbk_gateway.cli import main

pq: Any = import_module("pyarrow.parquet")
BOT = "/api/v1/bot/create"
RECORD = "/api/v1/dataset/d1/record/create"


@pytest.fixture
async def directory(options: JournalOptions, act: Any) -> Path:
    """Writes of two tenants and a refusal, in several segments."""
    journal = Journal(replace(options, segment_max_bytes=4000), SilentObserver(), "w0")
    await journal.start()
    for number in range(12):
        tenant, target = ("acme", BOT) if number % 3 else ("partner", RECORD)
        intent = await journal.intend(act(f"r{number}", target=target, tenant=tenant))
        intent.close(Outcome(Result.ANSWERED, status=200, answer_ids=(f"new-{number}",)))
    journal.note("refused", {"request_id": "r-no", "tenant": "globex", "reason": "scope", "status": 403})
    (await journal.intend(act("lost", tenant="acme"))).close(Outcome(Result.UNKNOWN))
    await journal.stop()
    return options.directory


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed, and its exit code."""

    code: object
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs a command in this process."""

    def one(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as left:
            main(["audit", *map(str, arguments)])
        out, err = capfdbinary.readouterr()
        return Ran(left.value.code, out.decode(), err.decode())

    return one


def test_every_format_has_the_same_records(directory: Path, run: Run, tmp_path: Path) -> None:
    given = ("export", directory, "--tenant", "acme", "--outcome", "answered")
    hashes = [one["hash"] for one in run(*given, "--format", "json").lines()]
    assert len(hashes) == 8
    assert [one["metadata"]["uid"] for one in run(*given).lines()] == hashes
    rows = csv.DictReader(io.StringIO(run(*given, "--format", "csv").out))
    assert [row["hash"] for row in rows] == hashes
    ran = run(*given, "--format", "parquet", "-o", tmp_path / "a.parquet")
    assert (ran.code, ran.out) == (0, "")
    assert pq.read_table(tmp_path / "a.parquet").column("hash").to_pylist() == hashes
    assert run(*given, "--format", "json", "-o", tmp_path / "a.jsonl").out == ""
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 8
    given = ("search", *given[1:])
    assert [one["hash"] for one in run(*given, "-f", "json").lines()] == hashes
    assert run(*given, "-f", "csv").out.count("bot.create") == 8
    assert run(*given).out.count("acme") == 8


def test_a_parquet_file_needs_a_name(directory: Path, run: Run) -> None:
    ran = run("export", directory, "--format", "parquet")
    assert (ran.code, "--output" in ran.err) == (2, True)


@pytest.mark.parametrize("has_index", [False, True], ids=["plain", "index"])
@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 27),
        (("--tenant", "partner"), 8),
        (("--resource", "dataset"), 8),
        (("--resource", "dataset/record"), 8),
        (("--id", "new-4"), 1),
        (("--id", "d1"), 8),
        (("--outcome", "refused"), 1),
        (("--outcome", "unknown"), 1),
        (("--subject", "nobody"), 0),
        (("--subject", "app", "--tenant", "acme", "--outcome", "answered"), 8),
        (("--since", "2999"), 0),
        (("--until", "2020"), 0),
        (("--text", "r-no"), 1),
        (("--limit", "5"), 5),
        (("--newest-first", "--limit", "1", "--outcome", "answered"), 1),
    ],
)
def test_each_filter_finds_what_it_says(
    directory: Path, run: Run, filters: tuple[str, ...], count: int, has_index: bool
) -> None:
    if has_index:
        assert "segments indexed" in run("index", directory).err
        assert index_path(directory).exists()
    found = run("search", directory, *filters, "-f", "json").lines()
    assert len(found) == count
    if "--newest-first" in filters:
        assert found[0]["request_id"] == "r11"


@pytest.mark.parametrize("has_index", [False, True], ids=["plain", "index"])
def test_a_requests_story_is_shown_whole(directory: Path, run: Run, has_index: bool) -> None:
    if has_index:
        run("index", directory)
    story = orjson.loads(run("show", directory, "r3").out)
    assert story["intent"]["request_id"] == story["outcome"]["request_id"] == "r3"
    assert (story["verdict"], story["others"]) == (None, [])
    assert run("show", directory, "nobodys").code == 2


def test_verification_speaks_to_people_and_to_programs(directory: Path, run: Run) -> None:
    ran = run("verify", directory)
    assert (ran.code, "is whole" in ran.out) == (0, True)
    assert orjson.loads(run("verify", directory, "--json").out)["good"] is True
    path = segments(directory / "w0")[1].path
    path.write_bytes(path.read_bytes().replace(b'"acme"', b'"evil"', 1))
    ran = run("verify", directory)
    assert (ran.code, path.name in ran.out) == (1, True)
    document = orjson.loads(run("verify", directory, "--json").out)
    (finding,) = document["findings"]
    assert (document["good"], finding["kind"], Path(finding["path"]).name) == (False, "altered", path.name)


def test_tail_prints_the_newest_in_their_order(directory: Path, run: Run) -> None:
    lines = run("tail", directory, "--outcome", "answered").out.splitlines()
    assert [line.rpartition("  ")[2] for line in lines] == [f"r{number}" for number in range(12)]


def test_every_field_of_a_record_is_explained(run: Run) -> None:
    rows = {row["field"]: row for row in run("fields", "--json").lines()}
    assert rows["intent"]["meaning"].startswith("Name of one intent")
    assert "metadata.tenant_uid" in run("fields").out


@pytest.mark.parametrize("is_argument", [False, True], ids=["stdin", "argument"])
def test_a_known_values_digest_is_printed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_argument: bool
) -> None:
    monkeypatch.setenv("CBK_TEST_DIGEST", "the digest key of these tests")
    (tmp_path / "gateway.yaml").write_text("audit: {digest_key: env:CBK_TEST_DIGEST}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("xoxb-1"))
    given = ("xoxb-1",) if is_argument else ()
    ran = run("digest", *given, "--tenant", "acme", "-c", tmp_path / "gateway.yaml")
    key = hashlib.sha256(b"the digest key of these tests").digest()
    assert ran.out.strip() == digest_for(key, "acme", "xoxb-1"), ran.err
