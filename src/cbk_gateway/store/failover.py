"""Whether a primary behind Sentinel stops taking writes by itself once another was promoted.

A deposed primary behind a partition answers everybody who still reaches it until it notices: what it was told
then is lost, limits are counted twice, and a cached answer may be served that a write has made old. Only the
servers' own settings can prevent that, so all that is done here is to look and to say so.
"""

from __future__ import annotations

from typing import Final

import structlog

from cbk_gateway.store.fault import StoreFault
from cbk_gateway.store.store import Store

_log: Final = structlog.get_logger(__name__)

_PATIENCE_S: Final = 2.0
_REMEDY: Final = (
    "set min-replicas-to-write 1 and a min-replicas-max-lag below Sentinel's down-after-milliseconds "
    "on every server, replicas too; see deploy/valkey/valkey.conf"
)


async def look_at_primary(store: Store) -> bool:
    """Warn of a primary that would not stop; to be called at a start.

    Returns:
        False when it was seen that the primary would go on. True also where that cannot be seen, because
        the account may not ask or the store is away, and where there is no Sentinel.
    """
    if not store.is_behind_sentinel:
        return True
    try:
        # A primary counts its good replicas only if it needs some; no right to read its settings is needed.
        told = await store.call(lambda client: client.info("replication"), timeout_s=_PATIENCE_S)
    except StoreFault as fault:
        _log.info("store_primary_unseen", store=store.shown_url, fault=str(fault))
        return True
    if "min_slaves_good_slaves" in told:
        return True
    _log.warning("store_primary_outlives_failover", store=store.shown_url, remedy=_REMEDY)
    return False
