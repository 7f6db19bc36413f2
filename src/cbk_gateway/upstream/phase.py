"""Where an exchange stands on its connection, and the head of its answer: what several modules share.

Values only; what changes them is `connection.py`'s business.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cbk_gateway.upstream.body import Body
from cbk_gateway.upstream.reading import Fields


class Head(NamedTuple):
    """The final head of an answer, and the body that follows it.

    `arrived_at` is of `time.monotonic`: a loop's own clock may stand still for a millisecond.
    """

    status: int
    fields: Fields
    body: Body
    arrived_at: float


class Phase(Enum):
    """Where a connection stands."""

    IDLE = "idle"
    AWAITING = "awaiting"  # sending, or waiting for the final head
    RECEIVING = "receiving"  # the head is here, the body is not
    CLOSED = "closed"
