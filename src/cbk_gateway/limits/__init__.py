"""How much each tenant may take: rates, quotas, open requests, over all workers of all gateways.

plan.py         which limits count an operation
limiter.py      the decision put together; the package's face
claim.py        the decision about a request that comes again and again; `purse.py`: by one comparison
decision.py     asked of the store: `admit.lua` by way of `ledger.py`
outage.py       decided without the store
bucket.py       the rule in plain Python
bookkeeping.py  settling, giving back, signs of life; `arrears.py`: what the store must still be told
counters.py     quotas and open requests as a worker knows them, and what it took of them in advance
usage.py        what an answer spent
"""

from cbk_gateway.limits.claim import Claim
from cbk_gateway.limits.grant import Grant, Usage
from cbk_gateway.limits.inspection import Filling, LimitsStanding, OpenStanding, QuotaStanding, RateStanding
from cbk_gateway.limits.limiter import Limiter
from cbk_gateway.limits.options import LimiterObserver, LimiterOptions, Mode, SilentObserver
from cbk_gateway.limits.purse import Purse
from cbk_gateway.limits.usage import UsageReader

__all__ = [
    "Claim",
    "Filling",
    "Grant",
    "Limiter",
    "LimiterObserver",
    "LimiterOptions",
    "LimitsStanding",
    "Mode",
    "OpenStanding",
    "Purse",
    "QuotaStanding",
    "RateStanding",
    "SilentObserver",
    "Usage",
    "UsageReader",
]
