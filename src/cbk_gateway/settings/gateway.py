"""The settings of one gateway: what `config/gateway.yaml` and the environment may say.

Every field states its unit, default, effect, and when not to use it. Any key can be overridden by an
environment variable: prefix `CBK_GATEWAY_`, sections joined by two underscores
(`CBK_GATEWAY_LISTEN__PORT=8081`). Secrets are references, never values. Nothing here acts: `load.py` reads
the file and collects the errors, `app.py` turns the sections into the options of each package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cbk_gateway.settings.identity import IdentitySettings

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A part of the settings file. Unknown keys are errors, values never appear in error texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _as_word(value: object) -> object:
    """YAML takes a bare `on` and `off` for truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TlsSettings(Section):
    """TLS on a listener. Leave the section out where a front (Caddy, Envoy) ends TLS."""

    certificate: Path = Field(description="PEM file with the certificate chain; read again on reload.")
    key: Path = Field(description="PEM file with the private key.")
    client_ca: Path | None = Field(
        None, description="PEM file; when given, clients must show a certificate of it."
    )


class ListenSettings(Section):
    """The data port: it serves the API and nothing else."""

    host: str = Field(
        "127.0.0.1", description="Address to bind; `0.0.0.0` only behind a firewall or a front."
    )
    port: Port = Field(8080, description="TCP port; 0 takes a free one (tests).")
    tls: TlsSettings | None = Field(None, description="TLS on the data port; none by default.")
    keepalive_s: Seconds = Field(
        75.0, description="Seconds an idle connection is kept; longer than a front's."
    )
    head_timeout_s: Seconds = Field(15.0, description="Seconds a client has to finish a request head.")
    body_timeout_s: Seconds = Field(20.0, description="Seconds a request body may be silent before 408.")
    write_timeout_s: Seconds = Field(60.0, description="Seconds a client may refuse to read an answer.")
    max_json_bytes: Bytes = Field(
        6 * 1024**2, description="Largest JSON body; it is read whole, checked, sent."
    )
    max_body_bytes: Bytes = Field(2 * 1024**3, description="Largest other body; it is streamed.")
    max_connections: Bytes = Field(20_000, description="Open client connections per worker; more are closed.")
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Networks whose X-Forwarded-For is believed (CIDR). Never `0.0.0.0/0`."
    )
    drain_s: Seconds = Field(30.0, description="Seconds that open requests and streams get at shutdown.")
    hot_path: Annotated[Literal["on", "off", "verify"], BeforeValidator(_as_word)] = Field(
        "on",
        description="Whether repeated cached reads are answered before they are parsed; `verify` answers "
        "them in full and logs an error when the two would differ (slow; for tests).",
    )


class AdminToken(Section):
    """A bearer token of the operators' port."""

    name: str = Field(description="Who it belongs to; written in the journal with every change.")
    token: str = Field(description="Secret reference: `env:NAME` or `file:PATH`.")
    role: Literal["viewer", "operator", "admin"] = Field(
        "viewer", description="viewer reads, operator acts, admin all."
    )


class AdminSettings(Section):
    """The operators' port: health, metrics, administration. Keep it off the public network."""

    host: str = Field("127.0.0.1", description="Address to bind; a warning is given off loopback.")
    port: Port = Field(9090, description="TCP port; 0 takes a free one (tests).")
    tokens: tuple[AdminToken, ...] = Field(
        (), description="Who may use /admin; without any, /admin is closed."
    )
    tls: TlsSettings | None = Field(None, description="TLS on the operators' port; none by default.")


class ClassTimeouts(Section):
    """Time bounds of one cost class towards the upstream, in seconds; none means no bound."""

    first_byte_s: Seconds | None = Field(None, description="Until the answer's head.")
    idle_s: Seconds | None = Field(None, description="Between two pieces of the answer.")
    total_s: Seconds | None = Field(None, description="For the whole exchange; leave unset for model runs.")


class UpstreamSettings(Section):
    """The API behind the gateway."""

    url: str = Field("https://api.chatbotkit.com", description="Scheme, host and port; no path.")
    path_prefix: str = Field(
        "/v1",
        pattern=r"^(/[A-Za-z0-9._-]+)*$",
        description="What `/api/v1` becomes: `/v1` on the hosted API.",
    )
    connect_timeout_s: Seconds = Field(5.0, description="Seconds to open a connection, TLS included.")
    pool_size: Bytes = Field(512, description="Connections to the upstream per worker.")
    idle_s: Seconds = Field(
        4.0, description="Seconds an idle connection is kept: below the upstream's own limit."
    )
    timeouts: dict[str, ClassTimeouts] = Field(
        default_factory=dict,
        description="Per cost class: read, search, write, model, stream, transfer, graphql.",
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the only authorities to trust; system's by default."
    )
    client_certificate: Path | None = Field(
        None, description="PEM file shown to an upstream that asks for one."
    )
    client_key: Path | None = Field(None, description="PEM file with its private key.")


class StoreSettings(Section):
    """Redis or Valkey: the state that requests share."""

    url: str = Field(
        "embedded",
        description="`embedded` starts a private server (one host only); else redis://, rediss://, unix://, "
        "redis+sentinel://h:p,h:p/name or redis+cluster://h:p,h:p.",
    )
    password: str | None = Field(None, description="Secret reference; instead of one in the URL.")
    timeout_ms: Annotated[int, Field(ge=5, le=5000)] = Field(
        50, description="Milliseconds per call; a slow store is treated as a dead one."
    )


class CacheSettings(Section):
    """Remembered answers of `list` and `fetch`."""

    enabled: bool = Field(True, description="Off: every read goes upstream.")
    config_s: float = Field(
        60.0, ge=0, description="Seconds for types that change by writes (bot, dataset, ...)."
    )
    volatile_s: float = Field(
        2.0, ge=0, description="Seconds for types that change by themselves; 0 for never."
    )
    global_s: float = Field(300.0, ge=0, description="Seconds for `platform/*`.")
    types: dict[str, float] = Field(
        default_factory=dict, description="Seconds for single types; 0 for never."
    )
    max_entry_bytes: Bytes = Field(1024**2, description="Larger answers are passed, not kept.")
    l1_max_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * 1024**2, description="Memory per worker; 0 for none."
    )
    consistency: Literal["strict", "bounded"] = Field(
        "strict", description="Whether a write waits until every worker has forgotten what it changed."
    )
    stale_while_revalidate_s: float = Field(
        0.0, ge=0, description="Seconds an old answer may cover a refresh."
    )
    stale_if_error_s: float = Field(0.0, ge=0, description="Seconds an old answer may cover a dead upstream.")
    negative_s: float = Field(1.0, ge=0, description="Seconds a 404 on `fetch` is remembered; 0 for never.")
    shared_platform: bool = Field(
        False, description="One copy of `platform/*` for all accounts, when proven equal."
    )
    encryption_key: str | None = Field(
        None, description="Secret reference to 32 bytes (base64 or hex): encrypts entries."
    )


class RetentionSettings(Section):
    """How long the journal's records stay. Nothing is removed unless a bound is set."""

    compress_after_s: Seconds | None = Field(
        86_400.0, description="Closed segments are compressed at this age."
    )
    max_age_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Seconds after which segments go."
    )
    max_bytes: Bytes | None = Field(
        None, description="Size of the journal above which the oldest segments go."
    )
    held_tenants: tuple[str, ...] = Field((), description="Tenants under legal hold: their records stay.")


class AuditSettings(Section):
    """The journal of writes."""

    enabled: bool = Field(True, description="Off: writes pass unrecorded. Only for benchmarks.")
    directory: Path = Field(Path("audit"), description="Folder of the journal, on a local disk.")
    max_wait_ms: float = Field(2.0, ge=0, le=1000, description="How long one sync may wait for more intents.")
    deadline_ms: float = Field(
        1000.0, gt=0, description="An intent not durable by then refuses its write (503)."
    )
    segment_max_bytes: Bytes = Field(64 * 1024**2, description="A segment is closed at this size.")
    segment_max_age_s: Seconds = Field(3600.0, description="A segment is closed at this age.")
    reserve_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * 1024**2, description="Free space below which writes stop."
    )
    digest_key: str | None = Field(None, description="Secret reference: keys the digests of redacted values.")
    signing_key: Path | None = Field(
        None, description="PEM file (Ed25519) that signs checkpoints; outside the folder."
    )
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, description="How long records stay."
    )


class RateSettings(Section):
    """A token bucket over many tenants."""

    per_second: float = Field(gt=0, description="Tokens that flow in per second.")
    burst: float = Field(gt=0, description="Tokens kept at most.")


class LimitsSettings(Section):
    """Limits above the tenants' own."""

    overall: RateSettings | None = Field(None, description="A bucket for all traffic of this deployment.")
    accounts: dict[str, RateSettings] = Field(
        default_factory=dict, description="Buckets per upstream account."
    )


class VaultSettings(Section):
    """HashiCorp Vault, for `vault:` references to upstream keys (KV version 2)."""

    address: str = Field(description="`https://vault.example.com:8200`; http on loopback only.")
    token: str | None = Field(None, description="Secret reference to a token; or use `kubernetes_role`.")
    token_file: Path | None = Field(None, description="File with a token, as Vault's agent writes it.")
    kubernetes_role: str | None = Field(None, description="Role of the Kubernetes auth method.")
    kubernetes_mount: str = Field("kubernetes", description="Where that method is mounted.")
    namespace: str | None = Field(None, description="Vault Enterprise namespace.")
    ca_file: Path | None = Field(None, description="PEM file of the authorities that vouch for it.")
    refresh_s: Seconds = Field(60.0, description="Seconds between two readings of the secrets.")


class TenancySettings(Section):
    """Upstream keys: where they are kept, and how they rotate."""

    master_key: str | None = Field(
        None,
        description="Secret reference to ID:BASE64[,ID:BASE64]: seals keys that the admin API stores, the "
        "first one for new seals. CBK_GATEWAY_MASTER_KEY is used when unset.",
    )
    vault: VaultSettings | None = Field(None, description="Where `vault:` references lead.")
    canary_share: float = Field(
        0.05, ge=0, le=1, description="Share of safe GETs that try a `next_key` first."
    )


class LoggingSettings(Section):
    """Structured logs on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Changed at run time by admin."
    )
    form: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else JSON."
    )
    access: bool = Field(True, description="One line per request (sampled), always for errors and slow ones.")
    access_sample: float = Field(
        1.0, ge=0, le=1, description="Share of good, quick requests that are logged."
    )
    slow_s: Seconds = Field(1.0, description="A request slower than this is always logged.")


class TelemetrySettings(Section):
    """What is measured, and what answers say of it."""

    tenant_cap: Bytes = Field(
        200, description="Tenants with a label of their own; the rest count as `other`."
    )
    server_timing: bool = Field(True, description="Whether answers carry Server-Timing.")


class GatewaySettings(BaseSettings):
    """All settings of a gateway."""

    model_config = SettingsConfigDict(
        env_prefix="CBK_GATEWAY_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    listen: ListenSettings = Field(default_factory=ListenSettings, description="The data port.")
    admin: AdminSettings = Field(default_factory=AdminSettings, description="The operators' port.")
    upstream: UpstreamSettings = Field(default_factory=UpstreamSettings, description="The API behind.")
    store: StoreSettings = Field(default_factory=StoreSettings, description="Redis or Valkey.")
    identity: IdentitySettings = Field(default_factory=IdentitySettings, description="Whose tokens count.")
    tenants_file: Path = Field(Path("tenants.yaml"), description="The tenants, relative to this file.")
    tenancy: TenancySettings = Field(default_factory=TenancySettings, description="Upstream keys.")
    limits: LimitsSettings = Field(default_factory=LimitsSettings, description="Limits above the tenants'.")
    cache: CacheSettings = Field(default_factory=CacheSettings, description="Remembered answers.")
    audit: AuditSettings = Field(default_factory=AuditSettings, description="The journal.")
    logging: LoggingSettings = Field(default_factory=LoggingSettings, description="Logs.")
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings, description="Metrics.")
    workers: Annotated[int, Field(ge=1, le=256)] = Field(1, description="Worker processes on the data port.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as init arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def schema() -> dict[str, Any]:
    """The JSON schema of the file, for editors and documentation."""
    return GatewaySettings.model_json_schema()
