"""Requests and streams: the events of the pipeline, of which there is at least one per request.

This is the hot path of telemetry. A combination of labels is bound to its cells once; after that, an event
costs one dictionary look-up and a few additions. Callers who keep the `RequestCells` skip the look-up too.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub
from typing import Final

from cbk_gateway.telemetry.buckets import LATENCY, OVERHEAD
from cbk_gateway.telemetry.instrument_set import InstrumentSet
from cbk_gateway.telemetry.instruments import HistogramCell, ValueCell

_MOST_BINDINGS: Final = 65_536

QUICK_S: Final = min(LATENCY[0], OVERHEAD[0])
"""What takes no longer falls into the first bucket of every histogram of requests."""
QUICK_US: Final = int(QUICK_S * 1e6)
"""The same in whole microseconds."""


class RequestCells:
    """The series that one kind of request moves, bound together."""

    __slots__ = ("_count", "_gateway", "_total", "_upstream")

    def __init__(
        self, count: ValueCell, total: HistogramCell, upstream: HistogramCell, gateway: HistogramCell
    ) -> None:
        self._count = count
        self._total = total
        self._upstream = upstream
        self._gateway = gateway

    def observe(self, total_s: float, upstream_s: float | None, request_id: str | None = None) -> None:
        """Count one request; `upstream_s` is None when the upstream was not asked."""
        self._count.value += 1
        self._total.observe(total_s, request_id)
        if upstream_s is None:
            self._gateway.observe(total_s)
        else:
            self._upstream.observe(upstream_s, request_id)
            self._gateway.observe(total_s - upstream_s if total_s > upstream_s else 0.0)

    @property
    def histograms(self) -> tuple[HistogramCell, HistogramCell, HistogramCell]:
        """Those that `spread` moves."""
        return self._total, self._upstream, self._gateway

    def count(self, times: int) -> None:
        """Count requests whose times are for `spread`."""
        self._count.value += times

    def spread(
        self, totals_s: Sequence[float], upstreams_s: Sequence[float], request_ids: Sequence[str]
    ) -> None:
        """Spread the times of requests that the upstream answered, the newest last.

        What the upstream took is part of the total.
        """
        self._total.observe_all(totals_s, request_ids)
        self._upstream.observe_all(upstreams_s, request_ids)
        self._gateway.observe_all(list(map(sub, totals_s, upstreams_s)))

    def observe_quick(self, count: int, total_s: float, request_id: str | None = None) -> None:
        """Count requests answered within `QUICK_S` each, without the upstream; `total_s` is their sum."""
        self._count.value += count
        self._total.observe_first(count, total_s, request_id)
        self._gateway.observe_first(count, total_s)


class TrafficMetrics:
    """What clients asked and got.

    Attributes:
        in_flight: The cell that `request_started` and `request_ended` move, for callers who keep it.
    """

    def __init__(self, made: InstrumentSet) -> None:
        self._requests = made.counter("requests_total")
        self._total = made.histogram("request_duration_seconds")
        self._upstream = made.histogram("upstream_duration_seconds")
        self._gateway = made.histogram("gateway_duration_seconds")
        self._refusals = made.counter("refusals_total")
        self._hot = made.counter("hot_path_answers_total")
        self.in_flight = made.gauge("requests_in_flight").bind()
        self._connections = made.gauge("client_connections").bind()
        self._received = made.counter("request_body_bytes_total")
        self._sent = made.counter("response_body_bytes_total")
        self._streams = made.gauge("streams_open")
        self._endings = made.counter("stream_endings_total")
        self._first_byte = made.histogram("stream_first_byte_seconds").bind()
        self._span = made.histogram("stream_duration_seconds").bind()
        self._tokens = made.counter("model_tokens_total")
        self._bound: dict[tuple[str | None, str, str, int, str, str], RequestCells] = {}

    # Requests

    def bind_request(  # noqa: PLR0917 - they read as the row they fill
        self, tenant: str | None, resource: str, action: str, status: int, cache: str, effect: str = "read"
    ) -> RequestCells:
        """The cells of this kind of request, for callers that keep them.

        Args:
            tenant: Tenant id, None for a caller nobody knows.
            resource: Route's type name.
            action: Route's action.
            status: Exact status of the answer; 499 when the client left before it.
            cache: hit, miss, stale, bypass, collapsed or none.
            effect: read, write or stream.
        """
        key = (tenant, resource, action, status, cache, effect)
        cells = self._bound.get(key)
        if cells is None:
            cells = RequestCells(
                self._requests.bind(tenant, resource, action, status, cache),
                self._total.bind(effect, cache),
                self._upstream.bind(effect),
                self._gateway.bind(effect, cache),
            )
            if len(self._bound) >= _MOST_BINDINGS:
                self._bound.clear()
            self._bound[key] = cells
        return cells

    def request(  # noqa: PLR0917 - as above, and keywords cost on the hot path
        self,
        tenant: str | None,
        resource: str,
        action: str,
        status: int,
        cache: str,
        total_s: float,
        upstream_s: float | None = None,
        *,
        effect: str = "read",
        request_id: str | None = None,
    ) -> None:
        """A request was answered. Labels as in `bind_request`, durations as in `RequestCells.observe`."""
        cells = self._bound.get((tenant, resource, action, status, cache, effect))
        if cells is None:
            cells = self.bind_request(tenant, resource, action, status, cache, effect)
        cells.observe(total_s, upstream_s, request_id)

    def refusal(self, reason: str, status: int, tenant: str | None, times: int = 1) -> None:
        """The gateway itself refused a request, with a reason of `errors.Refusal`."""
        self._refusals.add((reason, status, tenant), times)

    def hot_path(self, kind: str, times: int) -> None:
        """So many requests more were answered from their bytes, as one of `catalogue.HOT_KINDS`."""
        self._hot.add((kind,), times)

    def request_started(self) -> None:
        """One request more is being served."""
        self.in_flight.value += 1

    def request_ended(self) -> None:
        """One request fewer is being served."""
        self.in_flight.value -= 1

    def connections_open(self, count: int) -> None:
        """So many client connections are open. Read before a scrape."""
        self._connections.value = count

    def bodies(self, tenant: str | None, received_bytes: int, sent_bytes: int) -> None:
        """The sizes of a request's and its answer's body."""
        if received_bytes:
            self._received.add((tenant,), received_bytes)
        if sent_bytes:
            self._sent.add((tenant,), sent_bytes)

    # Streams

    def stream_opened(self, tenant: str | None) -> None:
        """A stream to this tenant is open."""
        self._streams.add((tenant,))

    def stream_first_byte(self, seconds: float, request_id: str | None = None) -> None:
        """The first byte of a stream went out, this long after its request came in."""
        self._first_byte.observe(seconds, request_id)

    def stream_ended(self, tenant: str | None, ending: str, seconds: float) -> None:
        """A stream ended after this long, with a word of `catalogue.STREAM_ENDINGS`."""
        self._streams.add((tenant,), -1)
        self._endings.add((ending,))
        self._span.observe(seconds)

    def model_tokens(self, tenant: str | None, tokens: int) -> None:
        """The upstream reported this many model tokens for an answer."""
        self._tokens.add((tenant,), tokens)
