"""Whether the operators' port says of itself what it does: answers held against its own OpenAPI document."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import jsonschema  # type: ignore[import-untyped]  # publishes no types

_NOT_SERVED = "There is nothing here."


def assert_described(document: dict[str, Any], method: str, path: str, status: int, answer: Any) -> None:
    """Fail unless the document has this answer of this operation, and in this shape.

    What the port does not serve, and a path that cannot be parsed, are described by no operation.
    """
    place = _place(document, urlsplit(path).path)
    if place is None or method.lower() not in document["paths"][place]:
        assert (status, answer.get("message")) == (404, _NOT_SERVED), (method, path, status)
        return
    responses = document["paths"][place][method.lower()]["responses"]
    assert str(status) in responses, (method, place, status)
    schema = responses[str(status)]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    faults = [one.message for one in jsonschema.Draft202012Validator(whole).iter_errors(answer)]
    assert faults == [], (method, place, status, answer)


def _place(document: dict[str, Any], path: str) -> str | None:
    """The operation of a path; one without parameters before one with."""
    for place in sorted(document["paths"], key=lambda one: one.count("{")):
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", place), path):
            return str(place)
    return None
