"""What can be wrong with configuration: one problem, and the error that carries all of them at once.

Nothing here reads a file. A problem names the file, the key and the remedy, and never shows the value it
is about, because the value may be a secret written in the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_SHOWN_CHARS: Final = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong, or (in a list of warnings) one risky choice.

    Attributes:
        file: Path of the file, as the operator gave it.
        key: Where in the file: `tenants[0] (acme).limits.rate.burst`.
        message: What is wrong, in one plain sentence.
        remedy: What to write instead.
        line: Line in the file, counted from 1, where known.
    """

    file: str
    key: str
    message: str
    remedy: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message} {self.remedy}".rstrip()


class SettingsError(Exception):
    """Configuration that cannot be used. `problems` holds everything that is wrong with it, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems: list[Problem] = list(problems)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name a mistyped one was probably meant to be, or None when nothing is near."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return found[0] if found else None


def shown_key(name: object) -> str:
    """A key as it may appear in a message: printable and short."""
    text = "".join(char if char.isprintable() else "?" for char in str(name))
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
