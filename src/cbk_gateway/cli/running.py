"""Running asyncio programs from commands; see `cbk_gateway.running`."""

from cbk_gateway.running import run, settle_memory, until_told

__all__ = ["run", "settle_memory", "until_told"]
