"""Whether an entry of the hot path would have said what the full path has just said. Pure; for `verify`."""

from __future__ import annotations

from aiohttp import web

from cbk_gateway.cache.holding import Standing
from cbk_gateway.hot_entry import HotEntry
from cbk_gateway.prepared import answer_head, rate_lines


def says_the_same(entry: HotEntry, standing: Standing, response: web.StreamResponse) -> bool:
    """Compare bytes, fields in their order; only what must differ is taken over.

    Args:
        entry: What would have answered.
        standing: How its answer stands now.
        response: What the full path answered.
    """
    fields = list(response.headers.items())
    rates = rate_lines({name: value for name, value in fields if name in entry.rate_names})
    said = response.headers.get
    request_id = entry.fixed_id or said("X-Request-Id", "").encode()
    # Whole seconds may turn over between the two.
    age_s = _near(standing.age_s, said("Age", ""))
    ttl_s = _near(standing.ttl_s, said("Cache-Status", "").rpartition("=")[2])
    first, second, third, last = entry.prepared.render(age_s, ttl_s, said("Date", ""))
    timing = entry.prepared.timing(_total_s(said("Server-Timing", "")))
    fast = b"".join((first, request_id, second, rates, third, timing, last))
    line = f"HTTP/1.1 {response.status} {response.reason}"
    body = response.body if isinstance(response, web.Response) else None
    return answer_head(line, fields) + (body if isinstance(body, bytes) else b"") == fast


def _near(whole: int, said: str) -> int:
    """What was said, if it is a number next to ours; else ours, so that the two differ."""
    return int(said) if said.isdigit() and abs(int(said) - whole) <= 1 else whole


def _total_s(timing: str) -> float:
    """What a `Server-Timing` field says; half a microsecond more, so that no rounding makes it less."""
    value = timing.partition("total;dur=")[2].partition(",")[0]
    return (round(float(value or 0) * 1000) + 0.5) / 1e6
