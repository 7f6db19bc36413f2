"""Records for other tools: OCSF "API Activity" events, CSV, and rows for a table on a screen.

Pure formatting of records already found. OCSF is the Open Cybersecurity Schema Framework, class 6003 of
version 1.3; whatever it has no place for goes under `unmapped`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

import orjson

from cbk_gateway import __version__
from cbk_gateway.audit.record import FIELDS, STRUCTURE_FIELDS
from cbk_gateway.audit.search import Record

OCSF_VERSION: Final = "1.3.0"
_CLASS_UID: Final = 6003
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_ACTIVITIES: Final = {
    "create": _CREATE, "clone": _CREATE, "ensure": _CREATE, "import": _CREATE, "upload": _CREATE,
    "fetch": _READ, "list": _READ, "search": _READ, "export": _READ, "download": _READ,
    "update": _UPDATE, "attach": _UPDATE, "detach": _UPDATE, "upsert": _UPDATE,
    "delete": _DELETE, "revoke": _DELETE,
}  # fmt: skip
_NAMES: Final = {_CREATE: "Create", _READ: "Read", _UPDATE: "Update", _DELETE: "Delete", _OTHER: "Other"}
OCSF_PLACES: Final = {
    "time": "time",
    "kind": "metadata.log_name",
    "request_id": "metadata.correlation_uid",
    "seq": "metadata.sequence",
    "hash": "metadata.uid",
    "tenant": "metadata.tenant_uid",
    "subject": "actor.user.uid",
    "account": "actor.user.account.uid",
    "token_id": "actor.session.uid",
    "issuer": "actor.session.issuer",
    "client": "src_endpoint.ip",
    "operation": "api.operation",
    "status": "api.response.code",
    "failure": "api.response.error",
    "reason": "api.response.message",
    "method": "http_request.http_method",
    "path": "http_request.url.path",
    "user_agent": "http_request.user_agent",
    "action": "activity_id",
    "resource": "resources.type",
    "ids": "resources.uid",
    "answer_ids": "resources.uid",
    "result": "status_detail",
    "duration_s": "duration",
}
"""Where a field goes in an event; every other field keeps its name under `unmapped`."""

TABLE_COLUMNS: Final = (
    "time",
    "kind",
    "tenant",
    "subject",
    "operation",
    "ids",
    "result",
    "status",
    "request",
)
CSV_COLUMNS: Final = tuple(name for name in FIELDS if name not in {"mac", "sig"})


def ocsf(record: Record) -> dict[str, object]:
    """One record as an OCSF API Activity event."""
    text, get = record.text, record.fields.get
    activity = _ACTIVITIES.get(text("action"), _OTHER)
    status_id, status = _status(record)
    response = {"code": get("status"), "error": get("failure"), "message": get("reason")}
    event: dict[str, object] = {
        "class_uid": _CLASS_UID,
        "class_name": "API Activity",
        "category_uid": 6,
        "category_name": "Application Activity",
        "activity_id": activity,
        "activity_name": _NAMES[activity],
        "type_uid": _CLASS_UID * 100 + activity,
        "severity_id": 1 if status_id == 1 else 2,
        "time": _epoch_ms(record.time),
        "status_id": status_id,
        "status": status,
        "status_detail": text("result") or record.kind,
        "metadata": {
            "version": OCSF_VERSION,
            "uid": text("hash"),
            "sequence": record.seq,
            "tenant_uid": get("tenant"),
            "correlation_uid": get("request_id"),
            "log_name": record.kind,
            "product": {"name": "cbk-gateway", "vendor_name": "cbk-gateway", "version": __version__},
        },
        "actor": {
            "user": {"uid": get("subject"), "account": {"uid": get("account")}},
            "session": {"uid": get("token_id"), "issuer": get("issuer")},
        },
        "api": {
            "operation": get("operation"),
            "request": {"uid": get("request_id")},
            "response": _present(response),
            "service": {"name": "chatbotkit"},
        },
        "http_request": _present(
            {
                "http_method": get("method"),
                "url": {"path": get("path")} if get("path") is not None else None,
                "user_agent": get("user_agent"),
            }
        ),
        "src_endpoint": {"ip": get("client")},
        "resources": [{"type": get("resource"), "uid": one} for one in record.ids()],
        "unmapped": {name: value for name, value in record.fields.items() if name not in OCSF_PLACES},
    }
    duration = get("duration_s")
    if isinstance(duration, int | float):
        event["duration"] = round(duration * 1000)
    return event


def as_ocsf_lines(records: Iterable[Record]) -> Iterator[bytes]:
    """JSON lines of OCSF events."""
    return (orjson.dumps(ocsf(record), option=orjson.OPT_APPEND_NEWLINE) for record in records)


def as_json_lines(records: Iterable[Record]) -> Iterator[bytes]:
    """JSON lines of the records as they are."""
    return (orjson.dumps(record.fields, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def as_csv(records: Iterable[Record]) -> Iterator[str]:
    """CSV with a header line (RFC 4180); lists and objects as JSON.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(CSV_COLUMNS)
    yield _drain(buffer)
    for record in records:
        writer.writerow([_cell(record.fields.get(name)) for name in CSV_COLUMNS])
        yield _drain(buffer)


def table_row(record: Record) -> tuple[str, ...]:
    """A record's cells under `TABLE_COLUMNS`, for people."""
    text = record.text
    return (
        record.time[:23].replace("T", " "),
        record.kind,
        text("tenant"),
        text("subject"),
        text("operation"),
        " ".join(record.ids()),
        text("result") or text("reason"),
        text("status"),
        text("request_id"),
    )


def documented() -> list[tuple[str, str, str]]:
    """Every field of a record: its name, what it means, and where it goes in an OCSF event."""
    fields = {**FIELDS, **{name: f"Journal: {text}" for name, text in STRUCTURE_FIELDS.items()}}
    return [(name, text, OCSF_PLACES.get(name, f"unmapped.{name}")) for name, text in fields.items()]


def _status(record: Record) -> tuple[int, str]:
    result, status = record.text("result"), record.fields.get("status")
    if record.kind == "refused" or result in {"not_sent", "aborted_by_client"}:
        return 2, "Failure"
    if result == "answered":
        is_good = record.fields.get("failure") is None and isinstance(status, int) and status < 400
        return (1, "Success") if is_good else (2, "Failure")
    return 0, "Unknown"


def _epoch_ms(time: str) -> int:
    try:
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        return 0


def _present(members: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value
    return orjson.dumps(value).decode()


def _drain(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text
