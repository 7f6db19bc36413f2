"""The shapes of request bodies: what a field may hold, and the check that says what is wrong with a body.

Pure: no store, no resources. References to other resources are declared here and resolved by the caller.
Limits follow the open-source server's schemas: names 191 bytes, texts 64 KiB, aliases 128 characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from cbk_gateway.sandbox.answers import JsonObject, bad_request

Kind = Literal["string", "number", "integer", "boolean", "object", "array", "any"]

NAME_BYTES: Final = 191
TEXT_BYTES: Final = 65_535
LONG_TEXT_BYTES: Final = 16 * 1024 * 1024 - 1
MASK: Final = "********"


@dataclass(frozen=True, slots=True)
class Field:
    """What one field of a body may hold.

    Attributes:
        required: Must be present when the resource is created.
        nullable: May be null.
        max_bytes: Largest UTF-8 size of a string.
        choices: The only strings allowed; empty for any.
        ref: The resource type whose id this string must be.
        item: What each element of an array holds.
        members: What each member of an object holds; None for a free object.
        answer: How fetch and list show it: `clear`, `masked` or `omitted`.
        read_only: Set by the server; never accepted in a body.
    """

    kind: Kind
    required: bool = False
    nullable: bool = True
    max_bytes: int | None = None
    min_length: int = 0
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    ref: str | None = None
    item: Field | None = None
    members: Mapping[str, Field] | None = None
    answer: Literal["clear", "masked", "omitted"] = "clear"
    read_only: bool = False


Fields = Mapping[str, Field]

NAME: Final = Field("string", max_bytes=NAME_BYTES)
TEXT: Final = Field("string", max_bytes=TEXT_BYTES)
LONG_TEXT: Final = Field("string", max_bytes=LONG_TEXT_BYTES)
ALIAS: Final = Field("string", max_bytes=128, pattern=r"[a-z0-9_-]*")
META: Final = Field("object")
OBJECT: Final = Field("object")
FLAG: Final = Field("boolean")
NUMBER: Final = Field("number")
INTEGER: Final = Field("integer")
COUNT: Final = Field("integer", minimum=0, maximum=2**53)
DURATION: Final = Field("integer", minimum=0, maximum=2**53)
TIME: Final = Field("integer", minimum=0, maximum=2**53)
MASKED: Final = Field("string", max_bytes=TEXT_BYTES, answer="masked")
OMITTED: Final = Field("string", max_bytes=TEXT_BYTES, answer="omitted")
VISIBILITY: Final = Field("string", nullable=False, choices=("private", "protected", "public"))
MESSAGE_TYPES: Final = (
    "user",
    "bot",
    "reasoning",
    "context",
    "instruction",
    "backstory",
    "activity",
    "checkpoint",
)
MESSAGE_TYPE: Final = Field("string", nullable=False, choices=MESSAGE_TYPES)


def ref(resource: str) -> Field:
    """A string that must be the id (or alias) of a resource of that type."""
    return Field("string", max_bytes=NAME_BYTES, ref=resource)


def choice(*options: str) -> Field:
    """A string out of these."""
    return Field("string", nullable=False, choices=options)


def required(field: Field) -> Field:
    """The same field, to be present and not null when created."""
    return replace(field, required=True, nullable=False)


def server_set(field: Field) -> Field:
    """The same field, never accepted from a client."""
    return replace(field, read_only=True)


def array_of(item: Field) -> Field:
    """A list whose elements hold `item`."""
    return Field("array", nullable=False, item=item)


def record(**members: Field) -> Field:
    """An object with exactly these members."""
    return Field("object", nullable=False, members=members)


def check_body(fields: Fields, body: JsonObject, *, partial: bool = False, open_ended: bool = False) -> None:
    """Refuse a body that does not fit.

    With `partial`, required fields may be missing, as in an update; with `open_ended`, fields outside the
    table are accepted.

    Raises:
        ApiError: 400 that names the offending field, in the wording of the API's schema library.
    """
    _check_members(fields, body, "", partial=partial, open_ended=open_ended)


def _check_members(
    fields: Fields, body: JsonObject, prefix: str, *, partial: bool = False, open_ended: bool = False
) -> None:
    for name, value in body.items():
        field = fields.get(name)
        if field is not None and not field.read_only:
            _check_value(field, value, prefix + name)
        elif not open_ended:
            raise bad_request(f'"{prefix}{name}" is not allowed')
    if not partial:
        for name, field in fields.items():
            if field.required and name not in body:
                raise bad_request(f'"{prefix}{name}" is required')


def _check_value(field: Field, value: object, where: str) -> None:
    if field.kind == "any" or (value is None and field.nullable):
        return
    match field.kind:
        case "string":
            _check_string(field, value, where)
        case "number" | "integer":
            _check_number(field, value, where)
        case "boolean":
            if not isinstance(value, bool):
                raise bad_request(f'"{where}" must be a boolean')
        case "object":
            _check_object(field, value, where)
        case "array":
            if not isinstance(value, list):
                raise bad_request(f'"{where}" must be an array')
            if field.item is not None:
                for index, element in enumerate(value):
                    _check_value(field.item, element, f"{where}[{index}]")


def _check_string(field: Field, value: object, where: str) -> None:
    if not isinstance(value, str):
        raise bad_request(f'"{where}" must be a string')
    if len(value) < field.min_length:
        raise bad_request(f'"{where}" is not allowed to be empty')
    if field.choices and value not in field.choices:
        raise bad_request(f'"{where}" must be one of [{", ".join(field.choices)}]')
    if field.max_bytes is not None and len(value.encode("utf-8", "surrogatepass")) > field.max_bytes:
        raise bad_request(f'"{where}" must be less than or equal to {field.max_bytes} bytes long')
    if field.pattern is not None and re.fullmatch(field.pattern, value) is None:
        raise bad_request(f'"{where}" fails to match the required pattern: {field.pattern}')


def _check_number(field: Field, value: object, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request(f'"{where}" must be a number')
    if field.kind == "integer" and not float(value).is_integer():
        raise bad_request(f'"{where}" must be an integer')
    if field.minimum is not None and value < field.minimum:
        raise bad_request(f'"{where}" must be greater than or equal to {field.minimum:g}')
    if field.maximum is not None and value > field.maximum:
        raise bad_request(f'"{where}" must be less than or equal to {field.maximum:g}')


def _check_object(field: Field, value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise bad_request(f'"{where}" must be of type object')
    if field is META:
        for key in value:
            if not key or key.startswith("_"):
                raise bad_request(f'"{where}.{key}" is not allowed')
    if field.members is not None:
        _check_members(field.members, value, f"{where}.")


#: Fields that nearly every resource has.
CRUD: Final[Fields] = {"name": NAME, "description": TEXT, "meta": META}
EMPTY: Final[Fields] = {}

#: Bodies of actions that run a model.
ENTITIES: Final = array_of(
    record(
        type=NAME,
        begin=required(COUNT),
        end=required(COUNT),
        text=TEXT,
        replacement=record(begin=COUNT, end=COUNT, text=TEXT),
    )
)
MESSAGES: Final = array_of(record(type=required(MESSAGE_TYPE), text=required(TEXT), meta=META))
RUN_OPTIONS: Final[Fields] = {
    "functions": array_of(OBJECT),
    "extensions": OBJECT,
    "limits": record(
        iterations=Field("integer", minimum=1),
        continuations=Field("integer", minimum=1),
        calls=Field("integer", minimum=1),
    ),
    "debug": FLAG,
}
BOT_CONFIG: Final[Fields] = {
    "model": NAME,
    "backstory": LONG_TEXT,
    "datasetId": ref("dataset"),
    "skillsetId": ref("skillset"),
    "privacy": FLAG,
    "moderation": FLAG,
}
