"""One count that tells whoever keeps a conclusion that it must be drawn anew.

Parts that can take back what they said (a token revoked, a copy made old, a feed lost) note it here, in the
same step in which it happens; who has seen the same count since may rely on what it concluded then. It says
that something changed, never what: that is asked of the part itself.
"""

from __future__ import annotations


class Breaks:
    """A count of broken conclusions, of one process and one thread.

    Attributes:
        count: How many there were. Read it before concluding, compare it before relying.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        """Something that was true may not be true any more."""
        self.count += 1

    def __repr__(self) -> str:
        return f"<Breaks {self.count}>"
