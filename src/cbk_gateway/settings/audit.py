"""The audit section: the journal of writes, how long it stays, and where it goes besides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cbk_gateway.settings.section import Bytes, Port, Seconds, Section


class RetentionSettings(Section):
    """How long the journal's records stay. Nothing is removed unless a bound is set."""

    compress_after_s: Seconds | None = Field(
        86_400.0,
        description="Seconds after which closed segments are compressed; null for never, where other "
        "programs read the files as they are.",
    )
    max_age_s: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Seconds after which segments are removed, leaving a signed tombstone; none by default.",
    )
    max_bytes: Bytes | None = Field(
        None,
        description="Bytes of the whole journal above which the oldest segments are removed; no bound by "
        "default.",
    )
    sweep_interval_s: Seconds = Field(300.0, description="Seconds between two looks at what may go.")
    held_tenants: tuple[str, ...] = Field(
        (),
        description="Tenants under legal hold: segments with records of theirs stay whatever the bounds say.",
    )


class RedisStreamSinkSettings(Section):
    """Records into a stream of the gateway's store. No ground truth: a stream may be trimmed or lost."""

    stream: str = Field("cbkgw:{audit}:records", min_length=1, description="Key of the stream.")
    max_entries: Annotated[int, Field(ge=0)] = Field(
        1_000_000, description="Entries kept, about; 0 keeps all, which fills a store that nobody trims."
    )


class HttpSinkSettings(Section):
    """Batches of JSON lines, each signed with the journal's key, to a receiver of yours."""

    url: str = Field(
        pattern=r"^https?://", description="Where batches are posted; https, or http on loopback."
    )
    token: str | None = Field(None, description="Secret reference: sent as a bearer token.")


class OtlpSinkSettings(Section):
    """OpenTelemetry logs over HTTP with JSON, one log record per journal record."""

    url: str = Field(
        pattern=r"^https?://", description="The collector's logs address, usually ending in /v1/logs."
    )
    token: str | None = Field(None, description="Secret reference: sent as a bearer token.")
    resource: dict[str, str] = Field(
        default_factory=dict, description="Attributes of the sender, beside `service.name`."
    )


class SyslogSinkSettings(Section):
    """RFC 5424 messages over TCP or TLS. Without proof of delivery: who needs one takes `http`."""

    host: str = Field(min_length=1, description="Name or address of the receiver.")
    port: Port = Field(6514, description="Its port: 6514 for TLS, 601 for plain TCP by convention.")
    tls: bool = Field(True, description="Whether TLS is spoken; off only inside one machine.")
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that vouch for it; the system's by default."
    )


class SinksSettings(Section):
    """Where records go besides the journal, at most one receiver of a kind. None by default.

    The journal on disk is the buffer: a receiver that is away costs disk, and no request waits for one.
    Retention keeps what has not left yet, so take a sink away that is gone for good.
    """

    redis_stream: RedisStreamSinkSettings | None = Field(None, description="A stream in the store.")
    http: HttpSinkSettings | None = Field(None, description="Signed batches over HTTP.")
    syslog: SyslogSinkSettings | None = Field(None, description="A syslog receiver.")
    otlp: OtlpSinkSettings | None = Field(None, description="An OpenTelemetry collector.")


class AuditSettings(Section):
    """The journal of writes."""

    enabled: bool = Field(True, description="Off: writes pass unrecorded. Only for benchmarks.")
    directory: Path = Field(
        Path("audit"), description="Folder of the journal, on a local disk: never on a network file system."
    )
    max_wait_ms: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="Milliseconds one sync may wait for more intents. More shares a slow disk better and "
        "makes single writes later.",
    )
    deadline_ms: float = Field(
        1000.0, gt=0, description="Milliseconds: an intent not durable by then refuses its write (503)."
    )
    segment_max_bytes: Bytes = Field(64 * 1024**2, description="A segment is closed at this size, bytes.")
    segment_max_age_s: Seconds = Field(3600.0, description="A segment is closed at this age, seconds.")
    checkpoint_interval_s: Seconds = Field(
        60.0,
        description="Seconds between two signatures while records arrive; what came after the last one is "
        "only as safe as the chain.",
    )
    reserve_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * 1024**2, description="Free bytes on the disk below which writes stop; 0 only in tests."
    )
    reserve_inodes: Annotated[int, Field(ge=0)] = Field(
        1000, description="Free inodes below which writes stop; 0 where the file system has no such bound."
    )
    digest_key: str | None = Field(
        None,
        description="Secret reference: keys the digests of redacted values. Made beside the folder when "
        "unset; "
        "set it where several machines must give equal digests.",
    )
    key_version: str = Field(
        "1",
        pattern=r"^[A-Za-z0-9._-]{1,32}$",
        description="Name of that key, written beside digests; change it whenever the key changes.",
    )
    signing_key: Path | None = Field(
        None,
        description="PEM file (Ed25519) that signs checkpoints; outside the folder. Made beside it when "
        "unset.",
    )
    secret_paths: tuple[str, ...] = Field(
        (), description="Further body fields, dotted (`config.pin`), of which only digests are kept."
    )
    shown_fields: tuple[str, ...] = Field(
        (), description="Further body fields whose values are kept in clear; never fields people write into."
    )
    free_text: bool = Field(
        False, description="Whether texts of conversations are kept. On, the journal holds personal data."
    )
    tag_creates: bool = Field(
        False,
        description="Whether creates get a key `cbkGatewayWrite` in their `meta`, by which a create whose "
        "answer was lost is found again. On, the body that goes upstream is the client's with that key "
        "added, and readers of the object see it.",
    )
    resolve_after_s: Seconds = Field(
        5.0, description="Seconds from a lost answer to the question what became of the write."
    )
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, description="How long records stay."
    )
    sinks: SinksSettings = Field(
        default_factory=SinksSettings, description="Where records go besides the journal."
    )
