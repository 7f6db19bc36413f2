"""Tenants that the store defines: from rows to `Tenant`s, one broken row never touching the others.

A record is the file's shape as JSON, with each key either sealed or a reference. Writing records is
`operations.py`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
import structlog

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.settings.faults import Problem
from cbk_gateway.settings.references import ReferenceFault, Scheme, parse_reference
from cbk_gateway.settings.shapes import fit
from cbk_gateway.settings.tenant_models import TenantShape
from cbk_gateway.settings.tenants import Following, assemble
from cbk_gateway.settings.yaml_file import YamlDocument
from cbk_gateway.tenancy.cipher import PREFIX, CipherFault
from cbk_gateway.tenancy.key_source import KeySource

_LOG: Final = structlog.get_logger(__name__)
_WHERE: Final = YamlDocument("store", None)


class StoredTenants:
    """The tenants of the store's records.

    Attributes:
        tenants: Those that could be built, by id.
        problems: What is wrong with the others.
        follows_references: Whether some take their keys from files or Vault, which change by themselves.
    """

    def __init__(self, keys: KeySource) -> None:
        self._keys = keys
        self._built: dict[str, tuple[bytes, Tenant]] = {}
        self.tenants: tuple[Tenant, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self.follows_references = False

    async def take(self, records: Mapping[str, bytes]) -> None:
        """Build all records. Those that did not change and need no reference followed are not built anew."""
        tenants: list[Tenant] = []
        problems: list[Problem] = []
        following = await self._keys.following(_vault_references(records), None)
        built: dict[str, tuple[bytes, Tenant]] = {}
        for name in sorted(records):
            octets = records[name]
            known = self._built.get(name)
            if known is not None and known[0] == octets:
                built[name] = known
                tenants.append(known[1])
                continue
            tenant, faults = self._build(name, octets, following)
            problems.extend(faults)
            if tenant is not None:
                tenants.append(tenant)
                if not _follows_references(octets):
                    built[name] = (octets, tenant)
        self._built = built
        self.follows_references = len(built) < len(tenants)
        if tuple(problems) != self.problems and problems:
            _LOG.error("stored_tenants_broken", problems=[str(problem) for problem in problems[:20]])
        self.tenants, self.problems = tuple(tenants), tuple(problems)

    def _build(self, name: str, octets: bytes, following: Following) -> tuple[Tenant | None, list[Problem]]:
        document = _decoded(octets)
        shape, problems = fit(TenantShape, document, _WHERE, at=("records",), titled=name)
        if shape is None:
            return None, problems
        if shape.id != name:
            return None, [_problem(name, "The record is another tenant's.", "Delete it.")]
        try:
            key = self._secret(shape.key, name, "key", following)
            spare = shape.next_key
            next_key = self._secret(spare, name, "next_key", following) if spare is not None else None
        except CipherFault as fault:
            return None, [_problem(name, f"Its key cannot be used: {fault}.", "Check the master key.")]
        except ReferenceFault as fault:
            return None, [_problem(name, fault.message, fault.remedy)]
        return assemble(shape, key, next_key), []

    def _secret(self, text: str, tenant: str, name: str, following: Following) -> Secret:
        if text.startswith(PREFIX):
            return self._keys.unseal(text, tenant, name)
        return following.secret(text)


def _follows_references(octets: bytes) -> bool:
    return b'"file:' in octets or b'"vault:' in octets


def _vault_references(records: Mapping[str, bytes]) -> set[str]:
    found: set[str] = set()
    for octets in records.values():
        if b'"vault:' not in octets:
            continue
        document = _decoded(octets)
        for name in ("key", "next_key"):
            text = document.get(name) if isinstance(document, dict) else None
            if isinstance(text, str) and text.startswith("vault:"):
                try:
                    reference = parse_reference(text)
                except ReferenceFault:
                    continue
                if reference.scheme is Scheme.VAULT:
                    found.add(str(reference))
    return found


def _decoded(octets: bytes) -> object:
    try:
        document: object = orjson.loads(octets)
    except orjson.JSONDecodeError:
        return None
    return document


def _problem(name: str, message: str, remedy: str) -> Problem:
    return Problem("store", f"records ({name})", message, remedy)
