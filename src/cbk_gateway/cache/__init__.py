"""What the gateway remembers of the API's answers, and how it forgets in time.

Two tiers: each worker's own memory over the store that all workers share. An answer is served only when no
write that could have changed it has been acknowledged since it was fetched, whichever worker did either.

    options.py         what an operator decides
    keys.py, ask.py    which entry a request means
    storability.py     what may be kept, and for how long
    entry.py           one answer at rest, encrypted if wanted
    copy.py            one answer in this process and its representations
    memory.py          the worker's own tier
    shelf.py, lua/     the shared tier: epochs, entries, leases, marks
    inventory.py       what operators see of it
    mention.py         which answers speak of one object
    shared.py          one copy of `platform/*` for all accounts
    feed.py            the subscription on which workers hear one another
    announcement.py    one write being told to the other workers
    announcer.py       telling them, and waiting until they have obeyed
    membership.py      leases on memory, and why they and the announcements are enough
    tiers.py           what the parts of one worker share
    writes.py          what surrounds a write; outages
    flight.py          coalescing within a worker
    holding.py         one answer of memory, held on to for the next time
    fill.py, cache.py  what the pipeline calls
    graphql.py         whether a GraphQL document reads or writes
"""

from cbk_gateway.cache.answers import Hit, Pass, StoredAnswer
from cbk_gateway.cache.cache import Cache
from cbk_gateway.cache.fill import Fill
from cbk_gateway.cache.graphql import classify
from cbk_gateway.cache.holding import Holding
from cbk_gateway.cache.inventory import Shown
from cbk_gateway.cache.keys import CacheKeyParts
from cbk_gateway.cache.observer import CacheObserver, SilentObserver
from cbk_gateway.cache.options import CacheOptions, Consistency
from cbk_gateway.cache.writes import WriteMark

__all__ = [
    "Cache",
    "CacheKeyParts",
    "CacheObserver",
    "CacheOptions",
    "Consistency",
    "Fill",
    "Hit",
    "Holding",
    "Pass",
    "Shown",
    "SilentObserver",
    "StoredAnswer",
    "WriteMark",
    "classify",
]
