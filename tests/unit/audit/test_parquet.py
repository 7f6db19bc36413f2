"""Parquet: typed columns, bounded memory, whole files or none, and a clear word where the library is not."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import parquet
from cbk_gateway.audit.record import FIELDS
from cbk_gateway.audit.search import Record

pq: Any = import_module("pyarrow.parquet")

FULL = {
    "time": "2026-11-22T17:00:00.500000Z",
    "kind": "outcome",
    "tenant": "acme",
    "ids": {"botId": "b1"},
    "scopes": ["*", "bot:read"],
    "status": 200,
    "duration_s": 0.25,
    "answer_ids": ["b9"],
    "body": {"name": "Ada"},
    "seq": 7,
    "sig": "left out",
}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_each_field_has_a_column_of_its_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    assert parquet.write([Record(FULL)], path) == 1
    (row,) = read(path)
    assert set(row) == FIELDS.keys() - {"mac", "sig"}
    assert {name: value for name, value in row.items() if value is not None} == {
        "time": datetime(2026, 11, 22, 17, 0, 0, 500_000, tzinfo=UTC),
        "kind": "outcome",
        "tenant": "acme",
        "ids": '{"botId":"b1"}',
        "scopes": ["*", "bot:read"],
        "status": 200,
        "duration_s": 0.25,
        "answer_ids": ["b9"],
        "body": '{"name":"Ada"}',
        "seq": 7,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"time": "yesterday", "status": "many", "duration_s": "long", "scopes": "*"},
        {"status": 2**70, "tokens": -(2**70), "seq": True},
        {"scopes": [1, None, {"a": 1}], "tenant": 5, "path": ["x"]},
    ],
)
def test_values_of_another_kind_break_nothing(tmp_path: Path, fields: dict[str, object]) -> None:
    path = tmp_path / "records.parquet"
    assert parquet.write([Record(fields), Record(FULL)], path) == 2
    assert read(path)[1]["tenant"] == "acme"


def test_no_more_than_a_row_group_is_in_memory(tmp_path: Path) -> None:
    """The records of the groups before are gone by the time the next group is read."""
    path = tmp_path / "records.parquet"
    most = 0

    class Watched(dict[str, object]):
        """Fields that can be counted while they live."""

        alive = 0

        def __init__(self) -> None:
            super().__init__(FULL)
            Watched.alive += 1

        def __del__(self) -> None:
            Watched.alive -= 1

    def records() -> Iterator[Record]:
        nonlocal most
        for _ in range(1000):
            yield Record(Watched())
            most = max(most, Watched.alive)

    assert parquet.write(records(), path, rows_per_group=50) == 1000
    gc.collect()
    assert most <= 2 * 50 + 1
    assert pq.ParquetFile(path).metadata.num_row_groups == 20


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"

    def breaks_off() -> Iterator[Record]:
        yield Record(FULL)
        raise OSError(5, "the disk")

    with pytest.raises(OSError, match="disk"):
        parquet.write(breaks_off(), path, rows_per_group=1)
    assert list(tmp_path.iterdir()) == []


def test_no_record_is_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    assert parquet.write([], path) == 0
    assert read(path) == []


def test_without_the_extra_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    """In a process of its own, to which the library does not exist."""
    (tmp_path / "journal").mkdir()
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from cbk_gateway.__main__ import main\n"
        "sys.argv = ['cbk-gateway', 'audit', 'export', 'journal', '--format', 'parquet', '-o', 'x.parquet']\n"
        "sys.exit(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, "cbk-gateway[parquet]" in ran.stderr) == (2, True), ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "x.parquet").exists()
