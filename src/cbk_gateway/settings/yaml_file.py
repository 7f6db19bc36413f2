"""Reading a YAML file that people wrote: plain values, with the line of every key.

Stricter than YAML: no tags, anchors, aliases or merges, no key twice, bounded size and depth. An operator
who repeats a key would silently lose the first one, and an alias can make a small file enormous. What the
values mean is for the modules that read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from cbk_gateway.settings.faults import Problem, SettingsError, shown_key

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 24

_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
)
"""What plain values may be; everything else makes objects, or is binary."""


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A file's values.

    Attributes:
        name: The path as given.
        value: Mappings, lists and scalars; None for an empty file.
        lines: Line, from 1, by the path of keys and indices that leads to a value.
    """

    name: str
    value: object
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)

    def line_of(self, path: tuple[str | int, ...]) -> int | None:
        """The line of a value, or of the nearest one above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def read_yaml(path: Path) -> YamlDocument:
    """Read a file.

    Raises:
        SettingsError: It cannot be read, or is not YAML of the strict kind described above.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise _broken(
            name, "(file)", f"The file cannot be read ({reason}).", "Check the path and its permissions."
        ) from None
    return parse_yaml(name, octets)


def parse_yaml(name: str, octets: bytes) -> YamlDocument:
    """Read the bytes of a file called `name`.

    Raises:
        SettingsError: As for `read_yaml`.
    """
    if len(octets) > MAX_FILE_BYTES:
        raise _broken(name, "(file)", f"The file is over {MAX_FILE_BYTES} bytes.", "Split or shorten it.")
    try:
        _refuse_depth_and_aliases(name, octets)
        root = yaml.compose(octets, Loader=yaml.CSafeLoader)
        lines: dict[tuple[str | int, ...], int] = {}
        problems: list[Problem] = []
        value = None if root is None else _plain(root, (), name, lines, problems)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark is not None else None
        raise _broken(
            name, "(file)", "This is not valid YAML.", "Check indentation, quotes and colons here.", line
        ) from None
    except (yaml.YAMLError, ValueError):
        raise _broken(name, "(file)", "This is not valid YAML.", "Store it as UTF-8 text.") from None
    if problems:
        raise SettingsError(problems)
    return YamlDocument(name, value, lines)


def _broken(name: str, key: str, message: str, remedy: str, line: int | None = None) -> SettingsError:
    return SettingsError([Problem(name, key, message, remedy, line)])


def _refuse_depth_and_aliases(name: str, octets: bytes) -> None:
    """Look at the event stream first: composing is recursive, so depth must be known before."""
    depth = 0
    for event in yaml.parse(octets, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else None
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _broken(name, "(file)", "The file is nested too deeply.", "Flatten it.", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _broken(name, "(file)", "Anchors and aliases are not read.", "Write the value out.", line)


def _plain(
    node: yaml.Node,
    path: tuple[str | int, ...],
    name: str,
    lines: dict[tuple[str | int, ...], int],
    problems: list[Problem],
) -> object:
    lines.setdefault(path, node.start_mark.line + 1)
    if node.tag not in _TAGS:
        message, remedy = "Tags are not read.", "Write a plain value without `!`."
        problems.append(Problem(name, dotted(path), message, remedy, node.start_mark.line + 1))
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, at), name, lines, problems) for at, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        members: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(
                    Problem(name, dotted(path), "A key must be a plain name.", "Write a name.", line)
                )
                continue
            key = key_node.value
            if key in members:
                problems.append(
                    Problem(
                        name,
                        dotted((*path, shown_key(key))),
                        "The key stands here a second time.",
                        f"Keep one of them; the first is in line {lines[*path, key]}.",
                        line,
                    )
                )
                continue
            lines[*path, key] = line
            members[key] = _plain(value_node, (*path, key), name, lines, problems)
        return members
    value: object = yaml.constructor.SafeConstructor().construct_object(node)
    return value


def dotted(path: tuple[str | int, ...]) -> str:
    """A path of keys as people write it: `tenants[0].limits.rate`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" if text else shown_key(part)
    return text or "(file)"
