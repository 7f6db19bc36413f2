"""Reading a gateway's settings: file, then environment, every problem at once; and what is risky in them.

The file is optional: without one the defaults and the environment stand. Nothing is started, and nothing
but the named files and environment variables is read.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.settings.faults import Problem, SettingsError
from cbk_gateway.settings.gateway import GatewaySettings
from cbk_gateway.settings.references import Environment, ReferenceFault, parse_reference, resolve
from cbk_gateway.settings.shapes import fit
from cbk_gateway.settings.tenant_risks import warnings as tenant_warnings
from cbk_gateway.settings.tenants import StandIns, load_tenants, tenants_of, vault_references
from cbk_gateway.settings.yaml_file import YamlDocument, read_yaml


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that hold together.

    Attributes:
        name: The file as given, or "environment".
        folder: What relative paths in the settings are relative to.
        settings: The values.
        environ: Where `env:` references lead.
        allow_inline: Whether `inline:` secrets are taken.
    """

    name: str
    folder: Path
    settings: GatewaySettings
    environ: Mapping[str, str]
    allow_inline: bool = False

    def path(self, relative: Path) -> Path:
        """A path of the settings, absolute."""
        return relative if relative.is_absolute() else self.folder / relative

    def secret(self, key: str, reference: str) -> Secret:
        """Follow a reference that stands under `key`.

        Raises:
            SettingsError: It leads nowhere.
        """
        try:
            parsed = parse_reference(reference, allow_inline=self.allow_inline)
            return resolve(parsed, environ=self.environ, folder=self.folder)
        except ReferenceFault as fault:
            raise SettingsError([Problem(self.name, key, fault.message, fault.remedy)]) from None


@dataclass(frozen=True, slots=True)
class Report:
    """What `config check` found: problems forbid a start, warnings do not."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(
    path: Path | None, *, allow_inline: bool = False, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Read settings.

    Args:
        path: The file, or None for defaults and environment.
        allow_inline: Whether `inline:` secrets are taken; for demonstrations.
        environ: Where `env:` references lead; the process's environment by default.

    Raises:
        SettingsError: With every problem there is.
    """
    document = read_yaml(path) if path is not None else YamlDocument("environment", {}, {})
    value = {} if document.value is None else document.value
    settings, problems = fit(GatewaySettings, value, document)
    if settings is None or problems:
        raise SettingsError(problems)
    folder = path.resolve().parent if path is not None else Path.cwd()
    variables = Environment(os.environ if environ is None else environ)
    return Loaded(document.name, folder, settings, variables, allow_inline)


def load_tenants_of(loaded: Loaded) -> tuple[Tenant, ...]:
    """The tenants of the file the settings name.

    Raises:
        SettingsError: With every problem of that file.
    """
    return load_tenants(
        loaded.path(loaded.settings.tenants_file),
        allow_inline=loaded.allow_inline,
        environ=loaded.environ,
    )


def tenants_without_keys(loaded: Loaded) -> tuple[Tenant, ...]:
    """The tenants of the settings' file with stand-ins for their keys, for whoever only needs their rights.

    Raises:
        SettingsError: With every problem of that file, but for where references lead.
    """
    path = loaded.path(loaded.settings.tenants_file)
    return tenants_of(read_yaml(path), StandIns(loaded.environ, allow_inline=loaded.allow_inline))


def check(
    path: Path | None, *, allow_inline: bool = False, environ: Mapping[str, str] | None = None
) -> Report:
    """Validate settings and tenants without starting anything. Never raises."""
    try:
        loaded = load(path, allow_inline=allow_inline, environ=environ)
    except SettingsError as error:
        return Report(tuple(error.problems), ())
    problems: list[Problem] = []
    warnings = _exposure(loaded)
    _check_identity(loaded, problems)
    for key, reference in _references(loaded):
        try:
            loaded.secret(key, reference)
        except SettingsError as error:
            problems.extend(error.problems)
    try:
        warnings.extend(tenant_warnings(_checked_tenants(loaded), str(loaded.settings.tenants_file)))
    except SettingsError as error:
        problems.extend(error.problems)
    return Report(tuple(problems), tuple(warnings))


def _checked_tenants(loaded: Loaded) -> tuple[Tenant, ...]:
    """The tenants, without asking Vault: each reference to it stands for a key of its own."""
    path, vault = loaded.path(loaded.settings.tenants_file), None
    if loaded.settings.tenancy.vault is not None:
        vault = {reference: Secret(reference) for reference in vault_references(read_yaml(path))}
    return load_tenants(path, allow_inline=loaded.allow_inline, environ=loaded.environ, vault=vault)


def _references(loaded: Loaded) -> list[tuple[str, str]]:
    settings = loaded.settings
    found = [(f"admin.tokens[{place}].token", one.token) for place, one in enumerate(settings.admin.tokens)]
    sinks, vault = settings.audit.sinks, settings.tenancy.vault
    for key, reference in (
        ("store.password", settings.store.password),
        ("cache.encryption_key", settings.cache.encryption_key),
        ("audit.digest_key", settings.audit.digest_key),
        ("audit.sinks.http.token", sinks.http.token if sinks.http is not None else None),
        ("audit.sinks.otlp.token", sinks.otlp.token if sinks.otlp is not None else None),
        ("tenancy.master_key", settings.tenancy.master_key),
        ("tenancy.vault.token", vault.token if vault is not None else None),
    ):
        if reference is not None:
            found.append((key, reference))
    return found


def _check_identity(loaded: Loaded, problems: list[Problem]) -> None:
    identity = loaded.settings.identity
    keys = [
        (f"identity.issuers[{place}].keys[{nth}].key", key.key)
        for place, issuer in enumerate(identity.issuers)
        for nth, key in enumerate(issuer.keys)
    ]
    if identity.mint is not None:
        keys += [(f"identity.mint.keys[{nth}].key", key.key) for nth, key in enumerate(identity.mint.keys)]
    if not identity.issuers and identity.mint is None:
        problems.append(
            Problem(loaded.name, "identity", "Nobody's tokens are believed.", "Add `issuers` or `mint`.")
        )
    for key, reference in keys:
        try:
            loaded.secret(key, reference)
        except SettingsError as error:
            problems.extend(error.problems)


def _exposure(loaded: Loaded) -> list[Problem]:
    settings, found = loaded.settings, list[Problem]()
    if not is_loopback(settings.admin.host):
        message = "The operators' port is reachable from other machines."
        found.append(
            Problem(loaded.name, "admin.host", message, "Bind it to 127.0.0.1 or a private network.")
        )
    if settings.listen.tls is None and not is_loopback(settings.listen.host):
        message = "Tokens cross the network in clear unless a front ends TLS."
        found.append(
            Problem(loaded.name, "listen.tls", message, "Set it, or put a TLS front before the gateway.")
        )
    if settings.upstream.url.startswith("http://") and "127.0.0.1" not in settings.upstream.url:
        message = "Upstream keys cross the network in clear."
        found.append(Problem(loaded.name, "upstream.url", message, "Use https://."))
    if settings.audit.free_text:
        message = "The journal keeps what people wrote in conversations."
        found.append(Problem(loaded.name, "audit.free_text", message, "Set it to false unless you must."))
    if not settings.audit.enabled:
        message = "Writes leave no trace."
        found.append(Problem(loaded.name, "audit.enabled", message, "Set it to true outside benchmarks."))
    return found


def is_loopback(host: str) -> bool:
    """Whether an address to bind can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
