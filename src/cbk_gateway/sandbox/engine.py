"""The stand-in for a model: what it replies, in which pieces, and what it does besides.

The reply repeats what was said, so that a test can foresee it. Magic words in the last user message make a
run misbehave or write, as abilities would:

    !create TYPE NAME     makes a resource of that type at the very end of the run
    !update TYPE ID NAME  renames one, likewise
    !delete TYPE ID       deletes one, likewise
    !tokens N             replies with N tokens
    !error                fails after the second token

Pure but for `obey`, which writes to the store. Events, streams and HTTP are not its business.
"""

from __future__ import annotations

import re
from typing import Final

from cbk_gateway.sandbox.answers import ApiError, JsonObject
from cbk_gateway.sandbox.calls import Call
from cbk_gateway.sandbox.crud import add_row

DEFAULT_MODEL: Final = "sandbox-echo"
MAX_TOKENS: Final = 100_000
_PIECE: Final = re.compile(r"\s*\S+|\s+")
_MAGIC: Final = re.compile(r"!(create|update|delete) +([a-z]+(?:/[a-z]+)?) +([^\n!]+)")
_TOKENS: Final = re.compile(r"!tokens +(\d{1,6})")


def reply_to(text: str) -> str:
    """What the model says to a text."""
    counted = _TOKENS.search(text)
    if counted is not None:
        count = min(int(counted.group(1)), MAX_TOKENS)
        return " ".join(f"w{index}" for index in range(count))
    return f"This is the sandbox speaking. You said: {text}"


def pieces_of(reply: str) -> list[str]:
    """The tokens of a reply; joined, they are the reply."""
    return _PIECE.findall(reply)


def count_tokens(text: str) -> int:
    """How many tokens a text is charged for."""
    return len(_PIECE.findall(text))


def fails(text: str) -> bool:
    """Whether the run is told to fail."""
    return "!error" in text


def last_user_text(messages: list[JsonObject]) -> str:
    """The text of the last message by the user; empty when there is none."""
    return next((str(message["text"]) for message in reversed(messages) if message["type"] == "user"), "")


def obey(call: Call, text: str) -> list[str]:
    """Carry out the magic words of a text; the ids that were written.

    A word that cannot be obeyed (an unknown id) is passed over, as a model's failed attempt would be.
    """
    written = []
    for verb, kind, rest in _MAGIC.findall(text):
        try:
            written.append(_obey_one(call, verb, kind, rest.strip()))
        except ApiError:
            continue
    return written


def _obey_one(call: Call, verb: str, kind: str, rest: str) -> str:
    store = call.world.store
    if verb == "create":
        return add_row(call, kind, {"name": rest}).id
    reference, _, name = rest.partition(" ")
    row = call.lookup(kind, reference)
    if verb == "delete":
        store.remove(row)
    else:
        store.change(row, {"name": name})
    return row.id
