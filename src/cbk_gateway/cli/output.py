"""What the commands say: errors in one sentence, tables, and the codes they exit with."""

from __future__ import annotations

import sys
from typing import Final

from cbk_gateway.audit import JournalFault
from cbk_gateway.errors import Refusal
from cbk_gateway.settings import SettingsError
from cbk_gateway.store import StoreFault

CHECK_FAILED: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = 3
RUNTIME: Final = 4


class CommandFault(Exception):  # noqa: N818 - a sentence for a person
    """A command that cannot go on; the text is the sentence, `code` the exit code."""

    def __init__(self, sentence: str, code: int = RUNTIME) -> None:
        super().__init__(sentence)
        self.code = code


def complain(sentence: str) -> None:
    """Say what went wrong on stderr."""
    sys.stderr.write(f"cbk-gateway: {sentence}\n")


def exit_code_of(error: Exception) -> int | None:
    """Report a failure and give its exit code; None when it is a defect, which deserves its traceback."""
    match error:
        case SettingsError():
            for problem in error.problems:
                complain(str(problem))
            return CONFIGURATION
        case CommandFault():
            complain(str(error))
            return error.code
        case Refusal():
            complain(f"{error.message} ({error.status} {error.code})")
            return USAGE
        case StoreFault() | JournalFault():
            complain(str(error))
            return RUNTIME
        case OSError():
            complain(error.strerror or str(error))
            return RUNTIME
        case _:
            return None
