"""Redis or Valkey: one client for a single server, Sentinel, Cluster and the embedded server.

The only package that imports the client library. It knows nothing of what is kept in the store.

    address.py   the URL grammar
    clients.py   one client per shape, with every default set
    store.py     time bounds, scripts, commands
    lanes.py     which connection a command takes; `lane.py`: all of a turn of the loop in one piece
    health.py    whether the store is asked at all; `breaker.py`
    opening.py   the way in
    failover.py  whether a deposed primary would stop by itself
    embedded.py  the private server, and `warden.py` that ends it
"""

from cbk_gateway.store.address import StoreAddress, StoreShape, parse
from cbk_gateway.store.breaker import Breaker
from cbk_gateway.store.clients import StoreClient, StoreOptions
from cbk_gateway.store.embedded import EmbeddedServer
from cbk_gateway.store.failover import look_at_primary
from cbk_gateway.store.fault import StoreFault, StoreTrouble
from cbk_gateway.store.observer import StoreObserver
from cbk_gateway.store.opening import open_store
from cbk_gateway.store.store import Store, StoreScript

__all__ = [
    "Breaker",
    "EmbeddedServer",
    "Store",
    "StoreAddress",
    "StoreClient",
    "StoreFault",
    "StoreObserver",
    "StoreOptions",
    "StoreScript",
    "StoreShape",
    "StoreTrouble",
    "look_at_primary",
    "open_store",
    "parse",
]
