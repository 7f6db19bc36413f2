"""What differs between two settings, key by key, fit to be shown. Pure.

Settings hold references to secrets, not secrets; what could be one all the same (a password in a URL, an
inline value) is hidden here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cbk_gateway.settings.gateway import GatewaySettings
from cbk_gateway.settings.load import Loaded

FIXED: Final = ("admin.host", "admin.port", "admin.tls", "store.url")
"""What belongs to the supervisor itself and asks for a restart. The store's URL: only to or from embedded."""

_NO_NEW_WORKERS: Final[dict[str, Any]] = {
    "tenants_file": True,
    "audit": True,
    "listen": {"tls": True},
    "admin": {"tls": True},
}
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]*@")
_ABSENT: Final = "(not set)"


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs.

    Attributes:
        key: Dotted path in the settings.
        before, after: Shown values.
        needs_restart: Whether it cannot be applied to a running gateway.
    """

    key: str
    before: str
    after: str
    needs_restart: bool = False

    def __str__(self) -> str:
        restart = " (needs a restart)" if self.needs_restart else ""
        return f"{self.key}: {self.before} -> {self.after}{restart}"


def document_of(settings: GatewaySettings) -> dict[str, Any]:
    """Settings as plain values."""
    return settings.model_dump(mode="json")


def hidden(value: object) -> Any:  # noqa: ANN401 - of the shape of what is given
    """A value without anything that could be a secret."""
    match value:
        case str() if value.startswith("inline:"):
            return "inline:***"
        case str():
            return _USERINFO.sub("***@", value)
        case Mapping():
            return {name: hidden(one) for name, one in value.items()}
        case list() | tuple():
            return [hidden(one) for one in value]
        case _:
            return value


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every key that differs, in order."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return [
        Change(key, _shown(old, key), _shown(new, key), _needs_restart(key, old.get(key), new.get(key)))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def files_digest(loaded: Loaded) -> bytes:
    """A digest over the content of every file the settings name, so that renewed certificates are noticed.

    The tenants' file and the ports' certificates are left out: their changes need no new workers.
    """
    whole = hashlib.sha256()
    for path in sorted(_files(loaded.settings.model_dump(exclude=_NO_NEW_WORKERS))):
        try:
            whole.update(hashlib.sha256(loaded.path(path).read_bytes()).digest())
        except OSError as fault:
            whole.update(f"unreadable {fault.errno}".encode())
    return whole.digest()


def _files(value: object) -> Iterator[Path]:
    match value:
        case Path():
            yield value
        case str() if value.startswith("file:"):
            yield Path(value.removeprefix("file:"))
        case Mapping():
            for one in value.values():
                yield from _files(one)
        case list() | tuple():
            for one in value:
                yield from _files(one)
        case _:
            return


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _leaves(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for place, one in enumerate(value):
            yield from _leaves(one, f"{key}[{place}]")
    else:
        yield key, value


def _shown(leaves: Mapping[str, object], key: str) -> str:
    return str(hidden(leaves[key])) if key in leaves else _ABSENT


def _needs_restart(key: str, before: object, after: object) -> bool:
    if key == "store.url":
        return "embedded" in {before, after}
    return any(key == one or key.startswith(one + ".") for one in FIXED)
