"""Holding plain values against a pydantic model, and saying what does not fit.

Turns pydantic's errors into problems that name the file, the key, the line and the remedy. Shown is the
place and the rule, never the value. It knows no particular file.
"""

from __future__ import annotations

from typing import Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cbk_gateway.settings.faults import Problem, nearest, shown_key
from cbk_gateway.settings.yaml_file import YamlDocument, dotted

Path = tuple[str | int, ...]
_Shape = TypeVar("_Shape", bound=BaseModel)

_REMEDIES: Final = {
    "missing": "Add it.",
    "string_type": "Put it in quotes if it looks like a number, a date or a word such as yes.",
    "bool_type": "Write true or false.",
    "bool_parsing": "Write true or false.",
    "int_parsing": "Write a whole number.",
    "int_type": "Write a whole number.",
    "float_parsing": "Write a number.",
    "float_type": "Write a number.",
}


def fit(
    shape: type[_Shape], value: object, document: YamlDocument, *, at: Path = (), titled: str | None = None
) -> tuple[_Shape | None, list[Problem]]:
    """The value as a `shape`, or None and all that is wrong with it.

    Args:
        shape: What the value should be.
        value: A plain value, as read.
        document: The file it stands in.
        at: Where in the document the value stands.
        titled: A name to show beside `at`, such as the id of a list's member.
    """
    if not isinstance(value, dict):
        problem = Problem(
            document.name,
            _key(at, (), titled),
            "Here stands a group of keys.",
            "Write `key: value` lines, indented below it.",
            document.line_of(at),
        )
        return None, [problem]
    try:
        return shape.model_validate(value), []
    except ValidationError as exc:
        # `include_input=False`: what stands there may be a secret in the wrong place.
        errors = exc.errors(include_input=False, include_url=False)
        return None, [_problem(shape, error, document, at, titled) for error in errors]


def _problem(
    shape: type[BaseModel], error: ErrorDetails, document: YamlDocument, at: Path, titled: str | None
) -> Problem:
    # pydantic marks a faulty key of a mapping by a word that no file holds.
    loc = tuple(part for part in error["loc"] if part != "[key]")
    message, remedy = _words(shape, error, loc)
    return Problem(document.name, _key(at, loc, titled), message, remedy, document.line_of((*at, *loc)))


def _key(at: Path, loc: Path, titled: str | None) -> str:
    if titled is None or not at:
        return dotted((*at, *loc))
    below = dotted(loc) if loc else ""
    return f"{dotted(at)} ({titled}){'.' + below if below else ''}"


def _words(shape: type[BaseModel], error: ErrorDetails, loc: Path) -> tuple[str, str]:
    kind = error["type"]
    if kind == "extra_forbidden":
        names = _names_beside(shape, loc)
        meant = nearest(str(loc[-1]), names)
        known = ", ".join(sorted(names))
        remedy = f"Did you mean `{meant}`?" if meant is not None else f"Known keys are: {known}."
        return f"There is no key `{shown_key(loc[-1])}` here.", remedy
    if kind == "missing":
        return f"The key `{loc[-1]}` is missing.", _REMEDIES["missing"]
    if kind == "value_error":
        return str(error["ctx"]["error"]), ""
    sentence = error["msg"].rstrip(".")
    return f"{sentence}.", _REMEDIES.get(kind, "")


def _names_beside(shape: type[BaseModel], loc: Path) -> list[str]:
    owner = _annotation_at(shape, loc[:-1])
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        return [field.alias or name for name, field in owner.model_fields.items()]
    return []


def _annotation_at(shape: type[BaseModel], loc: Path) -> object:
    """The type that stands at a place, seen through lists, tuples, options and annotations."""
    found: object = shape
    for part in loc:
        found = _within(found)
        if isinstance(found, type) and issubclass(found, BaseModel) and isinstance(part, str):
            known = found.model_fields.get(part)
            found = known.annotation if known is not None else None
    return _within(found)


def _within(annotation: object) -> object:
    while (outer := get_origin(annotation)) is not None:
        arguments = [one for one in get_args(annotation) if one is not type(None) and one is not ...]
        if not arguments:
            return None
        # In a mapping the values are what is looked into; elsewhere the first argument.
        annotation = arguments[-1] if outer is dict else arguments[0]
    return annotation
