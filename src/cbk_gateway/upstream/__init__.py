"""The API behind the gateway: calls with a known outcome, streamed answers, protection of both sides.

    options.py     what an operator may set
    outcomes.py    what became of a failed call, and whether to repeat it
    headers.py     which fields cross, either way
    framing.py, reading.py, body.py      HTTP/1.1 messages
    delivery.py, phase.py, throttle.py, connection.py one connection, and what really left the socket
    trust.py, dialing.py, pool.py        TLS, addresses, keep-alive
    sending.py, exchange.py, client.py   a call, its attempts
    swift.py       a small read without any of that
    breaker.py, pacing.py, concurrency.py, queueing.py, guard.py, probing.py   when to hold back
    event_forms.py, streams.py           event streams on their way to the client
    sealing.py, shield.py, shield_*.lua  repeated writes carried out once

Knows no tenants, tokens, limits, caches or journals; `pipeline` brings them together.
"""

from cbk_gateway.upstream.answer import Answer, AnswerTooLarge, Chunks
from cbk_gateway.upstream.client import Upstream
from cbk_gateway.upstream.event_forms import StreamForm, Terminal, terminal_for
from cbk_gateway.upstream.exchange import Call
from cbk_gateway.upstream.headers import answer_headers, is_run_as_field, outgoing_headers
from cbk_gateway.upstream.observer import SilentObserver, UpstreamObserver
from cbk_gateway.upstream.options import (
    BreakerOptions,
    ConcurrencyOptions,
    RetryOptions,
    Timeouts,
    UpstreamOptions,
    parse_origin,
)
from cbk_gateway.upstream.outcomes import Cause, Outcome, StreamBroken, UpstreamFault
from cbk_gateway.upstream.sealing import StoredAnswer
from cbk_gateway.upstream.shield import (
    REPLAYED_HEADER,
    Attempt,
    Proceed,
    Replay,
    Resolution,
    Resolver,
    Shield,
    ShieldOptions,
)
from cbk_gateway.upstream.streams import Ending, Relay, RelayOptions, relay
from cbk_gateway.upstream.swift import MAX_SWIFT_BYTES, Known, Lane, Swift

__all__ = [
    "MAX_SWIFT_BYTES",
    "REPLAYED_HEADER",
    "Answer",
    "AnswerTooLarge",
    "Attempt",
    "BreakerOptions",
    "Call",
    "Cause",
    "Chunks",
    "ConcurrencyOptions",
    "Ending",
    "Known",
    "Lane",
    "Outcome",
    "Proceed",
    "Relay",
    "RelayOptions",
    "Replay",
    "Resolution",
    "Resolver",
    "RetryOptions",
    "Shield",
    "ShieldOptions",
    "SilentObserver",
    "StoredAnswer",
    "StreamBroken",
    "StreamForm",
    "Swift",
    "Terminal",
    "Timeouts",
    "Upstream",
    "UpstreamFault",
    "UpstreamObserver",
    "UpstreamOptions",
    "answer_headers",
    "is_run_as_field",
    "outgoing_headers",
    "parse_origin",
    "relay",
    "terminal_for",
]
