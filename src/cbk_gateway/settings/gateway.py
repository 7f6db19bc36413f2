"""The settings of one gateway: what `config/gateway.yaml` and the environment may say.

Every field states its unit, default, effect, and when not to use it. Any key can be overridden by an
environment variable: prefix `CBK_GATEWAY_`, sections joined by two underscores
(`CBK_GATEWAY_LISTEN__PORT=8081`). Secrets are references, never values. Nothing here acts: `load.py` reads
the file and collects the errors, `app.py` turns the sections into the options of each package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cbk_gateway.settings.audit import AuditSettings
from cbk_gateway.settings.cache import CacheSettings
from cbk_gateway.settings.identity import IdentitySettings
from cbk_gateway.settings.section import Bytes, Port, Seconds, Section, Share
from cbk_gateway.settings.upstream import UpstreamSettings


def _as_word(value: object) -> object:
    """YAML 1.1 reads the bare words on and off as truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TlsSettings(Section):
    """TLS on a listener. Leave the section out where a front (Caddy, Envoy) ends TLS."""

    certificate: Path = Field(description="PEM file with the certificate chain; read again when it changes.")
    key: Path = Field(description="PEM file with the private key.")
    client_ca: Path | None = Field(
        None, description="PEM file of authorities; when given, clients are asked for a certificate of one."
    )
    client_certificate: Literal["required", "optional"] = Field(
        "required",
        description="Whether a client without a certificate is refused; a bad one always is. `optional` "
        "only while clients are being given theirs.",
    )


class SheddingSettings(Section):
    """What is refused (503) while the event loop runs late. What memory answers is never refused."""

    enabled: bool = Field(True, description="Off only where something before the gateway sheds load.")
    streams_s: Seconds | None = Field(
        0.5, description="Seconds of lag, for several looks running, from which streams are refused."
    )
    writes_s: Seconds | None = Field(1.0, description="The same for writes; not below `streams_s`.")
    reads_s: Seconds | None = Field(
        2.0, description="The same for reads that would be forwarded; not below `writes_s`."
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
    proxy_protocol: tuple[str, ...] = Field(
        (),
        description="Networks of balancers (CIDR) whose connections begin with a PROXY header, version 1 or "
        "2; without one they are closed. Never a network from which clients connect themselves.",
    )
    shedding: SheddingSettings = Field(
        default_factory=SheddingSettings, description="Refusing what can be spared under overload."
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


class RateSettings(Section):
    """A token bucket over many tenants."""

    per_second: float = Field(gt=0, description="Tokens that flow in per second.")
    burst: float = Field(gt=0, description="Tokens kept at most.")


class LimitsSettings(Section):
    """Limits above the tenants' own."""

    overall: RateSettings | None = Field(None, description="A bucket for all traffic of this deployment.")
    accounts: dict[str, RateSettings] = Field(
        default_factory=dict, description="Buckets per upstream account, over all its tenants."
    )
    checkpoint_directory: Path | None = Field(
        None,
        description="Folder where quota counters are noted down every 20 seconds, against a store that "
        "forgets; "
        "none by default. Not needed where the store itself writes to disk.",
    )


class VaultSettings(Section):
    """HashiCorp Vault, for `vault:` references to upstream keys (KV version 2)."""

    address: str = Field(description="`https://vault.example.com:8200`; http on loopback only.")
    token: str | None = Field(None, description="Secret reference to a token; or use `kubernetes_role`.")
    token_file: Path | None = Field(None, description="File with a token, as Vault's agent writes it.")
    kubernetes_role: str | None = Field(None, description="Role of the Kubernetes auth method.")
    kubernetes_mount: str = Field("kubernetes", description="Where that method is mounted.")
    mounts: tuple[str, ...] = Field(
        (),
        description="KV mounts of several segments, such as team/kv; others are a reference's first segment.",
    )
    namespace: str | None = Field(None, description="Vault Enterprise namespace.")
    ca_file: Path | None = Field(None, description="PEM file of the authorities that vouch for it.")
    refresh_s: Seconds = Field(60.0, description="Seconds between two readings of the secrets.")


class PromotionSettings(Section):
    """When a rotation of upstream keys ends by itself. Counts are of all processes together."""

    successes: Annotated[int, Field(ge=1)] = Field(
        100,
        description="Requests that a next key must have passed to become the current one. One refusal bars "
        "it; an operator may promote it all the same.",
    )
    min_age_s: Annotated[float, Field(ge=0)] = Field(
        3600.0, description="Seconds for which it must have passed."
    )
    drop_after: Annotated[int, Field(ge=0)] = Field(
        3, description="Refusals after which a next key is given up; 0 never."
    )


class TenancySettings(Section):
    """Upstream keys: where they are kept, and how they rotate."""

    master_key: str | None = Field(
        None,
        description="Secret reference to ID:BASE64[,ID:BASE64]: seals keys that the admin API stores, the "
        "first one for new seals. CBK_GATEWAY_MASTER_KEY is used when unset.",
    )
    vault: VaultSettings | None = Field(None, description="Where `vault:` references lead.")
    canary_share: Share = Field(
        0.05,
        description="Share of safe GETs that try a `next_key` first; 0 tries it only when the key fails.",
    )
    promote_after: Annotated[int, Field(ge=0)] = Field(
        100,
        description="Passed requests without a refusal after which a next key is reported ready; 0 never.",
    )
    next_pause_s: Seconds = Field(30.0, description="Seconds a next key rests after it was refused.")
    promotion: PromotionSettings | None = Field(
        None,
        description="Lets rotations end by themselves; unset leaves that to operators. Each end is "
        "journalled first. For tenants of the file it holds until the file's keys change or the store loses "
        "it.",
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


class TracingSettings(Section):
    """Spans by OpenTelemetry; needs the extra: `pip install 'cbk-gateway[otel]'`.

    `traceparent` is taken up, made, and passed on whether spans are made or not.
    """

    enabled: bool = Field(
        False, description="Whether spans are made. Off costs nothing; on, some 20 microseconds per request."
    )
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="OTLP collector for traces over HTTP, such as http://127.0.0.1:4318/v1/traces; "
        "what the OTEL_* variables say when unset.",
    )
    sample: Share = Field(0.1, description="Share of traces begun here that are recorded.")
    trust_clients: bool = Field(
        True,
        description="Whether a client's `traceparent` decides what is recorded. Not for gateways open to "
        "the public.",
    )
    service_name: str = Field(
        "cbk-gateway", min_length=1, description="What the gateway is called in traces."
    )


Label = Literal["tenant", "resource", "action", "status", "cache", "policy", "quota"]


class TelemetrySettings(Section):
    """What is measured, and what answers say of it."""

    metrics: bool = Field(
        True, description="Whether anything is counted; off leaves /metrics without series of workers."
    )
    tenant_cap: Bytes = Field(
        200, description="Tenants with a label of their own; the rest count as `other`."
    )
    labels_off: tuple[Label, ...] = Field(
        (),
        description="Labels left out of every metric, to save series; panels and alerts that need them "
        "stay empty.",
    )
    server_timing: bool = Field(
        True,
        description="Whether answers carry Server-Timing; off hides from clients how slow the upstream is.",
    )
    tracing: TracingSettings = Field(default_factory=TracingSettings, description="Spans.")


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
