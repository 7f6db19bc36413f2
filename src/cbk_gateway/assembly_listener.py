"""From settings to the options of the ports and of what stands right behind them. Nothing is started."""

from __future__ import annotations

from cbk_gateway.addresses import Network, parse_networks
from cbk_gateway.listener import ListenerOptions
from cbk_gateway.request_body import BodyBounds
from cbk_gateway.server import PortOptions
from cbk_gateway.settings import Problem, SettingsError
from cbk_gateway.settings.gateway import TlsSettings
from cbk_gateway.settings.load import Loaded
from cbk_gateway.shedding import SheddingOptions
from cbk_gateway.tls import TlsFiles, server_context


def listener_options(loaded: Loaded) -> ListenerOptions:
    """How the data port treats connections."""
    settings = loaded.settings.listen
    return ListenerOptions(
        keepalive_s=settings.keepalive_s,
        head_timeout_s=settings.head_timeout_s,
        max_connections=settings.max_connections,
        write_timeout_s=settings.write_timeout_s,
    )


def body_bounds(loaded: Loaded) -> BodyBounds:
    """How much of a request body is taken."""
    settings = loaded.settings.listen
    return BodyBounds(settings.max_json_bytes, settings.max_body_bytes, settings.body_timeout_s)


def trusted_proxies(loaded: Loaded) -> tuple[Network, ...]:
    """Networks whose X-Forwarded-For is believed.

    Raises:
        SettingsError: One is no network.
    """
    return _networks(loaded, "listen.trusted_proxies", loaded.settings.listen.trusted_proxies)


def data_port_options(loaded: Loaded) -> PortOptions:
    """What comes before HTTP on the data port.

    Raises:
        SettingsError: A network is none.
    """
    settings = loaded.settings.listen
    return PortOptions(
        tls=_tls_files(loaded, settings.tls),
        balancers=_networks(loaded, "listen.proxy_protocol", settings.proxy_protocol),
        patience_s=settings.head_timeout_s,
    )


def admin_port_options(loaded: Loaded) -> PortOptions:
    """What comes before HTTP on the operators' port."""
    return PortOptions(tls=_tls_files(loaded, loaded.settings.admin.tls))


def shedding_options(loaded: Loaded) -> SheddingOptions:
    """What is refused when the loop runs late.

    Raises:
        ValueError: The thresholds contradict their order.
    """
    settings = loaded.settings.listen.shedding
    if not settings.enabled:
        return SheddingOptions(None, None, None)
    return SheddingOptions(settings.streams_s, settings.writes_s, settings.reads_s)


def check_ports(loaded: Loaded) -> None:
    """Try the certificates and networks of the ports.

    Raises:
        SettingsError: One cannot be used.
    """
    for section, options in (("listen", data_port_options(loaded)), ("admin", admin_port_options(loaded))):
        if options.tls is None:
            continue
        try:
            server_context(options.tls)
        except OSError as fault:
            reason = fault.strerror or str(fault)
            message = f"The certificate and key cannot be used: {reason}."
            remedy = "Name PEM files that belong together; paths are relative to the settings file."
            raise SettingsError([Problem(loaded.name, f"{section}.tls", message, remedy)]) from None


def _tls_files(loaded: Loaded, settings: TlsSettings | None) -> TlsFiles | None:
    if settings is None:
        return None
    return TlsFiles(
        certificate=loaded.path(settings.certificate),
        key=loaded.path(settings.key),
        client_ca=loaded.path(settings.client_ca) if settings.client_ca is not None else None,
        needs_client=settings.client_certificate == "required",
    )


def _networks(loaded: Loaded, key: str, texts: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return parse_networks(texts)
    except ValueError as fault:
        raise SettingsError([Problem(loaded.name, key, str(fault), "Write 10.0.0.0/8.")]) from None
