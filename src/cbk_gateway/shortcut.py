"""What the listener asks of whoever may answer a request from its bytes. The words only: see `hotpath.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from cbk_gateway.listener import GatewayProtocol

EntryT_contra = TypeVar("EntryT_contra", contravariant=True)


class Shortcut(Protocol[EntryT_contra]):
    """Answers requests from their bytes. What it keeps is its own business."""

    def now(self) -> float:
        """The clock by which answers are timed: seconds that only grow."""
        ...

    def answer(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Answer the whole of a read buffer of a resting connection; False to have it parsed."""
        ...

    def answer_late(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Try once more with a request whose answer was awaited; False to have it parsed."""
        ...

    def keep(self, head: bytes, entry: EntryT_contra, response: web.StreamResponse) -> None:
        """Take what was offered for a request, now that its answer has gone out."""
        ...

    def compare(self, entry: EntryT_contra, response: web.StreamResponse) -> None:
        """Compare what was expected of a request with its answer."""
        ...
