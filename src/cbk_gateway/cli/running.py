"""Running asyncio programs from commands; see `cbk_gateway.running`."""

from cbk_gateway.running import run, until_told

__all__ = ["run", "until_told"]
