"""Exports: OCSF events, CSV cells that stay cells, rows for people."""

from __future__ import annotations

import csv
import io

import orjson
import pytest

from cbk_gateway.audit.export import (
    CSV_COLUMNS,
    OCSF_PLACES,
    TABLE_COLUMNS,
    as_csv,
    as_json_lines,
    as_ocsf_lines,
    documented,
    ocsf,
    table_row,
)
from cbk_gateway.audit.record import FIELDS, STRUCTURE_FIELDS
from cbk_gateway.audit.search import Record

OUTCOME = Record(
    {
        "time": "2026-11-22T17:00:00.500000Z",
        "kind": "outcome",
        "request_id": "r1",
        "tenant": "acme",
        "subject": "app",
        "operation": "bot.delete",
        "resource": "bot",
        "action": "delete",
        "ids": {"botId": "b1"},
        "result": "answered",
        "status": 200,
        "duration_s": 0.25,
        "invalidated": ["bot"],
        "seq": 7,
        "hash": "ab" * 32,
    }
)


def with_fields(**fields: object) -> Record:
    """The outcome with some fields changed."""
    return Record({**OUTCOME.fields, **fields})


def test_an_outcome_is_an_api_activity() -> None:
    event = ocsf(OUTCOME)
    assert (event["class_uid"], event["activity_id"], event["type_uid"]) == (6003, 4, 600304)
    assert (event["status"], event["duration"], event["time"]) == ("Success", 250, 1_795_366_800_500)
    assert event["resources"] == [{"type": "bot", "uid": "b1"}]
    assert event["unmapped"] == {"invalidated": ["bot"]}
    assert event["metadata"]["correlation_uid"] == "r1"  # type: ignore[index]  # the event is plain JSON


VALUES: dict[str, object] = {
    "time": "2026-11-22T17:00:00.500000Z",
    "seq": 7,
    "status": 418,
    "action": "create",
    "ids": {"botId": "an-id"},
    "answer_ids": ["an-id"],
    "duration_s": 0.25,
}
SHOWN: dict[str, object] = {
    "time": 1_795_366_800_500,
    "action": 1,
    "ids": ["an-id"],
    "answer_ids": ["an-id"],
    "duration_s": 250,
    "resource": ["resource-value"],
}


@pytest.mark.parametrize("name", sorted(OCSF_PLACES))
def test_each_field_is_at_its_place_in_the_event_and_nowhere_else(name: str) -> None:
    fields = {name: VALUES.get(name, f"{name}-value"), **({"ids": {"a": "b"}} if name == "resource" else {})}
    found: object = ocsf(Record(fields))
    assert isinstance(found, dict)
    assert found["unmapped"] == {}
    for step in OCSF_PLACES[name].split("."):
        found = [one[step] for one in found] if isinstance(found, list) else found[step]  # type: ignore[index]  # plain JSON
    assert found == SHOWN.get(name, VALUES.get(name, f"{name}-value"))


@pytest.mark.parametrize("name", sorted((FIELDS.keys() | STRUCTURE_FIELDS.keys()) - OCSF_PLACES.keys()))
def test_a_field_without_a_place_is_kept_under_its_name(name: str) -> None:
    assert ocsf(Record({name: "kept"}))["unmapped"] == {name: "kept"}


def test_every_field_is_documented_with_its_place() -> None:
    rows = {name: (meaning, place) for name, meaning, place in documented()}
    assert rows.keys() == FIELDS.keys() | STRUCTURE_FIELDS.keys()
    assert all(len(meaning) > 10 for meaning, _ in rows.values())
    assert rows["tenant"][1] == "metadata.tenant_uid"
    assert rows["trace_id"][1] == "unmapped.trace_id"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status": 404}, "Failure"),
        ({"failure": "LIMITS_REACHED"}, "Failure"),
        ({"result": "unknown", "status": None}, "Unknown"),
        ({"result": "not_sent"}, "Failure"),
        ({"result": "aborted_by_client"}, "Failure"),
        ({"kind": "refused", "result": None}, "Failure"),
        ({"kind": "intent", "result": None}, "Unknown"),
    ],
)
def test_success_means_a_good_answer_and_nothing_else(fields: dict[str, object], status: str) -> None:
    assert ocsf(with_fields(**fields))["status"] == status


def test_ocsf_and_json_exports_are_one_line_per_record() -> None:
    for lines in (as_ocsf_lines([OUTCOME] * 2), as_json_lines([OUTCOME] * 2)):
        parsed = [orjson.loads(line) for line in lines]
        assert len(parsed) == 2


def test_csv_has_a_header_and_quotes_what_it_must() -> None:
    text = "".join(as_csv([with_fields(subject='a,"b"\nc')]))
    header, row = list(csv.reader(io.StringIO(text)))
    assert tuple(header) == CSV_COLUMNS
    cells = dict(zip(header, row, strict=True))
    assert (cells["subject"], cells["ids"], cells["status"]) == ('a,"b"\nc', '{"botId":"b1"}', "200")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start: str) -> None:
    text = "".join(as_csv([with_fields(subject=f"{start}cmd()")]))
    _, row = list(csv.reader(io.StringIO(text)))
    assert row[CSV_COLUMNS.index("subject")] == f"'{start}cmd()"


def test_a_table_row_has_a_cell_per_column() -> None:
    row = table_row(OUTCOME)
    assert len(row) == len(TABLE_COLUMNS)
    assert row[:3] == ("2026-11-22 17:00:00.500", "outcome", "acme")


def test_a_record_of_nothing_can_be_exported() -> None:
    empty = Record({})
    assert ocsf(empty)["time"] == 0
    assert len(table_row(empty)) == len(TABLE_COLUMNS)
