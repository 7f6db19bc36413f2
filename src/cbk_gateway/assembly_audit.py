"""From the audit section of the settings to the journal, its retention and its sinks. See `assembly.py`."""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from cbk_gateway.audit import JournalOptions
from cbk_gateway.audit.retention import RetentionOptions
from cbk_gateway.audit.signing import load_or_make, put_once
from cbk_gateway.audit.sinks import HttpSink, OtlpSink, RedisStreamSink, Shipper, Sink, SyslogSink
from cbk_gateway.audit.upkeep import Upkeep
from cbk_gateway.secret import Secret
from cbk_gateway.settings import Problem, SettingsError
from cbk_gateway.settings.load import Loaded, is_loopback
from cbk_gateway.store import Store


def journal_options(loaded: Loaded) -> JournalOptions:
    """Where and how writes are recorded. Makes the digest key on first use, when none is configured."""
    settings = loaded.settings.audit
    directory = loaded.path(settings.directory)
    return JournalOptions(
        directory=directory,
        digest_key=_digest_key(loaded, directory),
        signing_key_path=loaded.path(settings.signing_key) if settings.signing_key is not None else None,
        max_wait_s=settings.max_wait_ms / 1000,
        deadline_s=settings.deadline_ms / 1000,
        segment_max_bytes=settings.segment_max_bytes,
        segment_max_age_s=settings.segment_max_age_s,
        checkpoint_interval_s=settings.checkpoint_interval_s,
        reserve_bytes=settings.reserve_bytes,
        reserve_inodes=settings.reserve_inodes,
        secret_paths=frozenset(settings.secret_paths),
        shown_fields=frozenset(settings.shown_fields),
        free_text=settings.free_text,
        key_version=settings.key_version,
    )


def retention_options(loaded: Loaded) -> RetentionOptions:
    """How long the journal's records stay."""
    settings = loaded.settings.audit.retention
    return RetentionOptions(
        compress_after_s=settings.compress_after_s,
        max_age_s=settings.max_age_s,
        max_bytes=settings.max_bytes,
        held_tenants=frozenset(settings.held_tenants),
    )


def upkeep(loaded: Loaded, options: JournalOptions, store: Store) -> Upkeep:
    """Retention and sinks of all workers' journal. How far each sink has come stands beside the journal.

    Raises:
        SettingsError: A sink's secret leads nowhere, or its address cannot be trusted with records.
    """
    positions = options.directory.with_name(options.directory.name + ".positions")
    shippers = [Shipper(options.directory, sink, positions) for sink in sinks(loaded, options, store)]
    interval_s = loaded.settings.audit.retention.sweep_interval_s
    return Upkeep(
        options.directory, options.key_path, retention_options(loaded), shippers, interval_s=interval_s
    )


def sinks(loaded: Loaded, options: JournalOptions, store: Store) -> list[Sink]:
    """Where records go besides the journal. Opens nothing.

    Raises:
        SettingsError: As `upkeep`.
    """
    check_sinks(loaded)
    settings = loaded.settings.audit.sinks
    found: list[Sink] = []
    if settings.redis_stream is not None:
        found.append(RedisStreamSink(store, settings.redis_stream.stream, settings.redis_stream.max_entries))
    if settings.http is not None:
        token = _token(loaded, "audit.sinks.http.token", settings.http.token)
        found.append(HttpSink(settings.http.url, load_or_make(options.key_path), token=token))
    if settings.otlp is not None:
        token = _token(loaded, "audit.sinks.otlp.token", settings.otlp.token)
        found.append(OtlpSink(settings.otlp.url, token=token, resource=settings.otlp.resource))
    if settings.syslog is not None:
        found.append(SyslogSink(settings.syslog.host, settings.syslog.port, tls=_syslog_tls(loaded)))
    return found


def check_sinks(loaded: Loaded) -> None:
    """Refuse addresses to which records would travel in clear across a network.

    Raises:
        SettingsError: One does, or a syslog receiver's authorities cannot be read.
    """
    settings, problems = loaded.settings.audit.sinks, list[Problem]()
    for kind, one in (("http", settings.http), ("otlp", settings.otlp)):
        if one is None:
            continue
        parts = urlsplit(one.url)
        if not parts.hostname or (parts.scheme != "https" and not is_loopback(parts.hostname)):
            message = "Records would cross the network in clear."
            problems.append(Problem(loaded.name, f"audit.sinks.{kind}.url", message, "Use https://."))
    syslog = settings.syslog
    if syslog is not None and not syslog.tls and not is_loopback(syslog.host):
        message = "Records would cross the network in clear."
        problems.append(Problem(loaded.name, "audit.sinks.syslog.tls", message, "Set it to true."))
    if problems:
        raise SettingsError(problems)
    _syslog_tls(loaded)


def kept_key(path: Path) -> Secret:
    """A random key kept in a file of its own, made on first use, readable by its owner only."""
    if not path.exists():
        put_once(path, base64.b64encode(secrets.token_bytes(32)))
    return Secret(path.read_text().strip())


def _digest_key(loaded: Loaded, directory: Path) -> bytes:
    reference = loaded.settings.audit.digest_key
    if reference is not None:
        return hashlib.sha256(loaded.secret("audit.digest_key", reference).reveal().encode()).digest()
    return kept_key(directory.with_name(directory.name + ".digest.key")).reveal().encode()


def _token(loaded: Loaded, key: str, reference: str | None) -> Secret | None:
    return loaded.secret(key, reference) if reference is not None else None


def _syslog_tls(loaded: Loaded) -> ssl.SSLContext | None:
    settings = loaded.settings.audit.sinks.syslog
    if settings is None or not settings.tls:
        return None
    authorities = loaded.path(settings.ca_file) if settings.ca_file is not None else None
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as fault:
        reason = fault.strerror or "it holds no certificate"
        message = f"{authorities} cannot be used: {reason}."
        raise SettingsError([Problem(loaded.name, "audit.sinks.syslog.ca_file", message, "")]) from None
