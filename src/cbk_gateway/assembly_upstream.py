"""From the upstream section of the settings to the options of the upstream package. See `assembly.py`."""

from __future__ import annotations

from pathlib import Path

from cbk_gateway.operation import CostClass
from cbk_gateway.settings import Problem, SettingsError
from cbk_gateway.settings.load import Loaded
from cbk_gateway.settings.upstream import (
    BreakerSettings,
    ClassTimeouts,
    ConcurrencySettings,
    RetrySettings,
)
from cbk_gateway.upstream import RelayOptions, UpstreamOptions
from cbk_gateway.upstream.options import (
    DEFAULT_TIMEOUTS,
    BreakerOptions,
    ConcurrencyOptions,
    RetryOptions,
    Timeouts,
    parse_origin,
)


def upstream_options(loaded: Loaded) -> UpstreamOptions:
    """The API behind the gateway.

    Raises:
        SettingsError: A cost class is none, or bounds contradict one another.
        ValueError: The URL is not one.
    """
    settings = loaded.settings.upstream
    parse_origin(settings.url)
    return UpstreamOptions(
        url=settings.url,
        path_prefix=settings.path_prefix,
        addresses=settings.addresses,
        connect_timeout_s=settings.connect_timeout_s,
        tls_timeout_s=settings.tls_timeout_s,
        dns_ttl_s=settings.dns_ttl_s,
        address_rest_s=settings.address_rest_s,
        pool_size=settings.pool_size,
        idle_s=settings.idle_s,
        timeouts={name: _timeouts(name, one) for name, one in _classes(loaded).items()},
        retry=_retry(settings.retry),
        breaker=_breaker(settings.breaker),
        concurrency=_concurrency(loaded, settings.concurrency),
        ca_file=_file(loaded, settings.ca_file),
        pins=settings.pins,
        client_cert=_file(loaded, settings.client_certificate),
        client_key=_file(loaded, settings.client_key),
    )


def relay_options(loaded: Loaded) -> RelayOptions:
    """How event streams are passed on."""
    settings = loaded.settings.upstream
    return RelayOptions(heartbeat_s=settings.stream_heartbeat_s, deadline_s=settings.stream_deadline_s)


def _classes(loaded: Loaded) -> dict[CostClass, ClassTimeouts]:
    timeouts = loaded.settings.upstream.timeouts
    unknown = sorted(set(timeouts) - set(CostClass))
    if unknown:
        key = f"upstream.timeouts.{unknown[0]}"
        remedy = f"Use {', '.join(CostClass)}."
        raise SettingsError([Problem(loaded.name, key, "There is no such class.", remedy)])
    return {CostClass(name): one for name, one in timeouts.items()}


def _timeouts(name: CostClass, settings: ClassTimeouts) -> Timeouts:
    usual = DEFAULT_TIMEOUTS[name]
    return Timeouts(
        settings.first_byte_s or usual.first_byte_s,
        settings.idle_s or usual.idle_s,
        settings.total_s or usual.total_s,
    )


def _retry(settings: RetrySettings) -> RetryOptions:
    return RetryOptions(
        max_attempts=settings.max_attempts,
        first_wait_s=settings.first_wait_s,
        longest_wait_s=settings.longest_wait_s,
        budget_share=settings.budget_share,
        budget_reserve=settings.budget_reserve,
    )


def _breaker(settings: BreakerSettings) -> BreakerOptions:
    return BreakerOptions(
        window_s=settings.window_s,
        minimum_samples=settings.minimum_samples,
        failure_share=settings.failure_share,
        open_s=settings.open_s,
        longest_open_s=settings.longest_open_s,
        max_accounts=settings.max_accounts,
        enabled=settings.enabled,
    )


def _concurrency(loaded: Loaded, settings: ConcurrencySettings) -> ConcurrencyOptions:
    if not settings.least <= settings.start <= settings.most:
        message = "`least`, `start` and `most` must not decrease in this order."
        raise SettingsError([Problem(loaded.name, "upstream.concurrency", message, "Set all three.")])
    return ConcurrencyOptions(
        start=settings.start,
        least=settings.least,
        most=settings.most,
        max_long=settings.max_long,
        queue_size=settings.queue_size,
        queue_wait_s=settings.queue_wait_s,
    )


def _file(loaded: Loaded, path: Path | None) -> str | None:
    return str(loaded.path(path)) if path is not None else None
