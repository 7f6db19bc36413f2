"""Records as an Apache Parquet file, for columnar tools; written in row groups, so memory stays bounded.

The library that writes it is the optional extra `parquet`, imported when it is asked for. Which records
are written is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson

from cbk_gateway.audit.record import FIELDS
from cbk_gateway.audit.search import Record

ROWS_PER_GROUP: Final = 10_000
COLUMNS: Final = tuple(name for name in FIELDS if name not in {"mac", "sig"})
_NUMBERS: Final = frozenset(
    ["status", "upstream_status", "request_bytes", "answer_bytes", "upstream_attempts", "tokens", "batch",
     "seq", "expires_at", "issued_before", "amount", "tenants", "answer_ids_count"]
)  # fmt: skip
_TEXT_LISTS: Final = frozenset({"scopes", "query", "answer_ids", "invalidated", "omitted", "types"})


class ParquetMissing(Exception):  # noqa: N818 - a sentence for a person
    """The extra is not installed; the text says how to get it."""


def write(records: Iterable[Record], path: Path, *, rows_per_group: int = ROWS_PER_GROUP) -> int:
    """Write records to a file, at most `rows_per_group` of them in memory at a time.

    Columns are the documented fields: `time` in microseconds UTC, numbers as 64-bit integers, `duration_s`
    as a double, lists of texts as lists, every other text as text and every other value as JSON. The file
    appears under its name only once it is whole.

    Returns:
        How many records were written.

    Raises:
        ParquetMissing: The extra is not installed.
        OSError: The file cannot be written.
    """
    arrow, parquet = _libraries()
    schema = arrow.schema([(name, _type_of(arrow, name)) for name in COLUMNS])
    draft = path.with_name(f".{path.name}.draft")
    rows = iter(records)
    count = 0
    try:
        with parquet.ParquetWriter(draft, schema, compression="zstd") as file:
            while group := list(islice(rows, rows_per_group)):
                columns = [[_cell(name, one.fields.get(name)) for one in group] for name in COLUMNS]
                arrays = [
                    arrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)
                ]
                file.write_table(arrow.Table.from_arrays(arrays, schema=schema))
                count += len(group)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _libraries() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        message = "Parquet needs an extra: pip install 'cbk-gateway[parquet]'."
        raise ParquetMissing(message) from None


def _type_of(arrow: Any, name: str) -> object:  # noqa: ANN401 - the library has no types
    if name == "time":
        return arrow.timestamp("us", tz="UTC")
    if name in _NUMBERS:
        return arrow.int64()
    if name == "duration_s":
        return arrow.float64()
    return arrow.list_(arrow.string()) if name in _TEXT_LISTS else arrow.string()


def _cell(name: str, value: object) -> object:
    """A value as its column takes it; one of another kind than the field's is left out rather than bent."""
    if value is None:
        return None
    if name == "time":
        return _moment(value)
    if name in _NUMBERS:
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return value if -(2**63) <= value < 2**63 else None
    if name == "duration_s":
        return float(value) if isinstance(value, int | float) else None
    if name in _TEXT_LISTS:
        return [_text(one) for one in value] if isinstance(value, list) else None
    return _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _moment(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None
