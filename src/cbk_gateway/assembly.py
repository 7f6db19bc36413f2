"""From settings to the options of each package: one function per package, nothing started.

Every setting that reaches a package passes here, so this is where a name in the file and a name in the
code meet. Relative paths and secret references are resolved on the way.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from cbk_gateway.assembly_audit import check_sinks, journal_options, retention_options, upkeep
from cbk_gateway.assembly_listener import (
    admin_port_options,
    body_bounds,
    check_ports,
    data_port_options,
    listener_options,
    shedding_options,
    trusted_proxies,
)
from cbk_gateway.assembly_upstream import relay_options, upstream_options
from cbk_gateway.cache import CacheOptions, Consistency
from cbk_gateway.identity import (
    IdentityOptions,
    IssuerOptions,
    JwksOptions,
    Minter,
    MinterOptions,
    SigningKey,
    VerifyKey,
    weaknesses,
)
from cbk_gateway.limits import LimiterOptions
from cbk_gateway.parties import Rate
from cbk_gateway.secret import Secret
from cbk_gateway.settings import Problem, SettingsError
from cbk_gateway.settings.gateway import RateSettings, VaultSettings
from cbk_gateway.settings.identity import IssuerSettings, JwksSettings, VerifyKeySettings
from cbk_gateway.settings.load import Loaded, Report, check, load
from cbk_gateway.store import StoreOptions
from cbk_gateway.telemetry import AccessLogOptions, TracingOptions
from cbk_gateway.tenancy.cipher import CipherFault, MasterKeys, master_keys
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.observer import TenancyObserver
from cbk_gateway.tenancy.options import PromotionOptions, RotationOptions, TenancyOptions, VaultOptions
from cbk_gateway.tenancy.vault import Vault

__all__ = [
    "MINT_NAME",
    "access_options",
    "admin_port_options",
    "body_bounds",
    "cache_options",
    "certificates",
    "data_port_options",
    "identity_options",
    "journal_options",
    "key_source",
    "limiter_options",
    "listener_options",
    "minter",
    "relay_options",
    "retention_options",
    "shedding_options",
    "store_options",
    "tenancy_options",
    "tracing_options",
    "trusted_proxies",
    "upkeep",
    "upstream_options",
    "validate",
]

MINT_NAME = "minted"


def store_options(loaded: Loaded) -> StoreOptions:
    """How to reach the store."""
    settings = loaded.settings.store
    password = loaded.secret("store.password", settings.password) if settings.password else None
    return StoreOptions(url=settings.url, password=password, call_timeout_s=settings.timeout_ms / 1000)


def minter(loaded: Loaded) -> Minter | None:
    """The gateway's own issuer, or None when it has none.

    Raises:
        SettingsError: A key cannot be used.
    """
    settings = loaded.settings.identity.mint
    if settings is None:
        return None
    keys = [
        SigningKey(one.kid, one.alg, loaded.secret(f"identity.mint.keys[{place}].key", one.key))
        for place, one in enumerate(settings.keys)
    ]
    options = MinterOptions(
        issuer=settings.issuer,
        audience=settings.audience,
        signing=keys[0],
        retired=tuple(keys[1:]),
        max_ttl_s=int(settings.max_ttl_s),
    )
    try:
        return Minter(options)
    except ValueError as fault:
        raise SettingsError([Problem(loaded.name, "identity.mint", str(fault), "")]) from fault


def identity_options(loaded: Loaded, own: Minter | None) -> IdentityOptions:
    """Whose tokens are believed.

    Raises:
        SettingsError: An issuer contradicts itself.
    """
    settings = loaded.settings.identity
    issuers: list[IssuerOptions] = []
    try:
        issuers.extend(_issuer(loaded, one, place) for place, one in enumerate(settings.issuers))
        if own is not None:
            issuers.append(own.issuer_options(MINT_NAME))
        return IdentityOptions(
            issuers=tuple(issuers),
            max_token_chars=settings.max_token_chars,
            remembered_tokens=settings.remembered_tokens,
            revocation_poll_s=settings.revocation_poll_s,
            max_revocation_age_s=settings.max_revocation_age_s,
        )
    except ValueError as fault:
        raise SettingsError([Problem(loaded.name, "identity", str(fault), "")]) from fault


def key_source(loaded: Loaded, observer: TenancyObserver) -> KeySource:
    """Where upstream keys come from.

    Raises:
        SettingsError: The master key or Vault cannot be used.
    """
    settings = loaded.settings.tenancy
    master: MasterKeys | None = None
    configured = loaded.environ.get("CBK_GATEWAY_MASTER_KEY")
    secret = Secret(configured) if configured else None
    if settings.master_key is not None:
        secret = loaded.secret("tenancy.master_key", settings.master_key)
    if secret is not None:
        try:
            master = master_keys(secret)
        except CipherFault as fault:
            raise SettingsError([Problem(loaded.name, "tenancy.master_key", str(fault), "")]) from None
    vault = Vault(_vault_options(loaded, settings.vault)) if settings.vault is not None else None
    return KeySource(
        loaded.environ, allow_inline=loaded.allow_inline, master=master, vault=vault, observer=observer
    )


def tenancy_options(loaded: Loaded) -> TenancyOptions:
    """How upstream keys rotate."""
    settings = loaded.settings.tenancy
    rotation = RotationOptions(
        canary_share=settings.canary_share,
        next_pause_s=settings.next_pause_s,
        promote_after=settings.promote_after,
    )
    automatic = settings.promotion
    promotion = (
        PromotionOptions(automatic.successes, automatic.min_age_s, automatic.drop_after)
        if automatic is not None
        else None
    )
    return TenancyOptions(rotation=rotation, promotion=promotion)


def _vault_options(loaded: Loaded, settings: VaultSettings) -> VaultOptions:
    return VaultOptions(
        address=settings.address,
        token=loaded.secret("tenancy.vault.token", settings.token) if settings.token is not None else None,
        token_file=loaded.path(settings.token_file) if settings.token_file is not None else None,
        kubernetes_role=settings.kubernetes_role,
        kubernetes_mount=settings.kubernetes_mount,
        mounts=settings.mounts,
        namespace=settings.namespace,
        ca_file=loaded.path(settings.ca_file) if settings.ca_file is not None else None,
        refresh_s=settings.refresh_s,
    )


def limiter_options(loaded: Loaded) -> LimiterOptions:
    """Limits above the tenants' own."""
    settings = loaded.settings.limits
    return LimiterOptions(
        global_rate=_rate("overall", settings.overall) if settings.overall is not None else None,
        account_rates={name: _rate("account", one) for name, one in settings.accounts.items()},
        expected_workers=loaded.settings.workers,
        checkpoint_directory=(
            loaded.path(settings.checkpoint_directory) if settings.checkpoint_directory is not None else None
        ),
    )


def cache_options(loaded: Loaded) -> CacheOptions:
    """What is remembered, and for how long."""
    settings = loaded.settings.cache
    key = settings.encryption_key
    return CacheOptions(
        enabled=settings.enabled,
        config_ttl_s=settings.config_s,
        volatile_ttl_s=settings.volatile_s,
        global_ttl_s=settings.global_s,
        type_ttl_s=settings.types,
        obey_upstream_max_age=settings.obey_upstream_max_age,
        max_entry_bytes=settings.max_entry_bytes,
        l1_max_bytes=settings.l1_max_bytes,
        l2_account_max_bytes=settings.l2_account_max_bytes,
        account_share=settings.account_share,
        collapse_wait_s=settings.collapse_wait_s,
        lease_s=settings.lease_s,
        cache_jsonl_walks=settings.jsonl_walks,
        compress=settings.compress,
        compress_min_bytes=settings.compress_min_bytes,
        consistency=Consistency(settings.consistency),
        stale_while_revalidate_s=settings.stale_while_revalidate_s,
        stale_if_error_s=settings.stale_if_error_s,
        negative_ttl_s=settings.negative_s,
        shared_platform=settings.shared_platform,
        encryption_key=_key_bytes(loaded, "cache.encryption_key", key) if key else None,
    )


def access_options(loaded: Loaded) -> AccessLogOptions:
    """How much of the traffic is logged."""
    settings = loaded.settings.logging
    return AccessLogOptions(settings.access_sample, settings.slow_s, settings.access)


def tracing_options(loaded: Loaded) -> TracingOptions:
    """How requests are traced.

    Raises:
        SettingsError: Spans are asked for, and what makes them is not installed.
    """
    settings = loaded.settings.telemetry.tracing
    if settings.enabled and importlib.util.find_spec("opentelemetry") is None:
        message, remedy = "OpenTelemetry is not installed.", "Install it: pip install 'cbk-gateway[otel]'."
        raise SettingsError([Problem(loaded.name, "telemetry.tracing.enabled", message, remedy)])
    return TracingOptions(
        is_enabled=settings.enabled,
        endpoint=settings.endpoint,
        sample=settings.sample,
        trusts_clients=settings.trust_clients,
        service_name=settings.service_name,
    )


def certificates(loaded: Loaded) -> dict[tuple[str, str], Path]:
    """Files with certificates of the gateway's own, by kind and name: their end is watched."""
    settings = loaded.settings
    found = {
        ("tls", "listen"): settings.listen.tls.certificate if settings.listen.tls is not None else None,
        ("tls", "admin"): settings.admin.tls.certificate if settings.admin.tls is not None else None,
        ("upstream", "client"): settings.upstream.client_certificate,
    }
    for issuer in settings.identity.issuers:
        for key in issuer.keys:
            if key.key.startswith("file:") and not key.alg.startswith("HS"):
                # Where it holds a bare key and no certificate, no end is found.
                found["signing", f"{issuer.name}/{key.kid or ''}"] = Path(key.key.removeprefix("file:"))
    return {name: loaded.path(file) for name, file in found.items() if file is not None}


def validate(path: Path | None, *, environ: Mapping[str, str] | None = None) -> Report:
    """Everything that can be known about a settings file without starting anything. Never raises."""
    report = check(path, environ=environ)
    if report.problems:
        return report
    loaded = load(path, environ=environ)
    problems: list[Problem] = []
    for build in (
        store_options,
        lambda one: identity_options(one, minter(one)),
        limiter_options,
        cache_options,
        upstream_options,
        listener_options,
        trusted_proxies,
        check_ports,
        shedding_options,
        tenancy_options,
        retention_options,
        check_sinks,
        tracing_options,
    ):
        try:
            build(loaded)
        except SettingsError as error:
            problems.extend(error.problems)
        except ValueError as fault:
            problems.append(Problem(loaded.name, "(settings)", str(fault), ""))
    return Report(tuple(problems), (*report.warnings, *_weaknesses(loaded)))


def _weaknesses(loaded: Loaded) -> list[Problem]:
    """What is risky in whom the gateway believes."""
    try:
        options = identity_options(loaded, minter(loaded))
    except (SettingsError, ValueError):
        return []
    return [Problem(loaded.name, "identity", f"{sentence}.", "") for sentence in weaknesses(options)]


def _issuer(loaded: Loaded, settings: IssuerSettings, place: int) -> IssuerOptions:
    keys = tuple(
        _verify_key(loaded, one, f"identity.issuers[{place}].keys[{nth}].key")
        for nth, one in enumerate(settings.keys)
    )
    return IssuerOptions(
        name=settings.name,
        issuer=settings.issuer,
        algorithms=tuple(settings.algorithms),
        keys=keys,
        jwks_url=settings.jwks_url,
        discovery=settings.discovery,
        audience=settings.audience,
        tenant_claim=settings.tenant_claim,
        tenant=settings.tenant,
        tenant_map=settings.tenant_map,
        subject_claim=settings.subject_claim,
        scope_claim=settings.scope_claim,
        default_scopes=settings.default_scopes,
        types=settings.types,
        required_claims=settings.required_claims,
        leeway_s=settings.leeway_s,
        max_lifetime_s=settings.max_lifetime_s,
        jwks=_jwks(settings.jwks),
    )


def _jwks(settings: JwksSettings) -> JwksOptions:
    return JwksOptions(
        refresh_s=settings.refresh_s,
        min_refresh_s=settings.min_refresh_s,
        max_refresh_s=settings.max_refresh_s,
        cooldown_s=settings.cooldown_s,
        unknown_kid_s=settings.unknown_kid_s,
        max_age_s=settings.max_age_s,
        timeout_s=settings.timeout_s,
        max_bytes=settings.max_bytes,
        max_keys=settings.max_keys,
    )


def _verify_key(loaded: Loaded, settings: VerifyKeySettings, key: str) -> VerifyKey:
    secret = loaded.secret(key, settings.key)
    is_shared = settings.alg.startswith("HS")
    return VerifyKey(settings.kid, settings.alg, secret if is_shared else secret.reveal())


def _rate(name: str, settings: RateSettings) -> Rate:
    return Rate(name, settings.per_second, settings.burst)


def _key_bytes(loaded: Loaded, key: str, reference: str) -> bytes:
    text = loaded.secret(key, reference).reveal().strip()
    for decode in (bytes.fromhex, base64.b64decode):
        try:
            octets = decode(text)
        except (ValueError, binascii.Error):
            continue
        if len(octets) == 32:
            return octets
    raise SettingsError(
        [Problem(loaded.name, key, "The key is not 32 bytes.", "Make one with `openssl rand -base64 32`.")]
    )
