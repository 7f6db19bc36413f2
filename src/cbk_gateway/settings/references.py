"""Secret references: how configuration names a secret without holding it.

    env:NAME                   an environment variable
    file:PATH                  a file, such as a Kubernetes secret mount; relative to the settings file
    vault:MOUNT/PATH#FIELD     a field of a HashiCorp KV v2 secret; FIELD is `key` unless given
    inline:TEXT                the secret itself; for demonstrations, refused unless allowed

Parsing is pure. `resolve` reads the environment and files; what lives in Vault is read elsewhere and
handed in, so that nothing here speaks over a network. No message ever shows what a reference led to, nor a
text that is not a reference, since that text is most likely the secret itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn

from cbk_gateway.secret import Secret

MAX_SECRET_BYTES: Final = 64 * 1024
"""Largest secret file or variable that is read; a PEM bundle fits, a log file does not."""

DEFAULT_VAULT_FIELD: Final = "key"

_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_VAULT_TARGET: Final = re.compile(
    r"(?P<mount>[A-Za-z0-9_.-]{1,64})/(?P<path>[A-Za-z0-9_./-]{1,512})(?:#(?P<field>[A-Za-z0-9_.-]{1,128}))?"
)
_FORMS: Final = "Write env:NAME, file:PATH or vault:MOUNT/PATH#FIELD."


class Scheme(StrEnum):
    """Where a reference leads."""

    ENV = "env"
    FILE = "file"
    VAULT = "vault"
    INLINE = "inline"


_SCHEMES: Final = frozenset(str(scheme) for scheme in Scheme)


class ReferenceFault(ValueError):  # noqa: N818 - named as the other packages' faults are
    """A reference that is malformed or leads nowhere. `message` and `remedy` never hold a secret."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy


class Environment(Mapping[str, str]):
    """Environment variables, of which some are secrets: found by name, never shown, never pickled."""

    __slots__ = ("_variables",)

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"<Environment of {len(self)} variables>"

    def __reduce__(self) -> NoReturn:
        message = "an environment cannot be pickled: some of it is secret"
        raise TypeError(message)


@dataclass(frozen=True, slots=True)
class SecretReference:
    """A parsed reference.

    Attributes:
        scheme: Where it leads.
        target: Variable name, path, or `MOUNT/PATH#FIELD`; empty for inline.
        inline: The secret itself when the scheme is INLINE.
    """

    scheme: Scheme
    target: str
    inline: Secret | None = None

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}" if self.inline is None else f"{self.scheme}:***"


def parse_reference(text: str, *, allow_inline: bool = False) -> SecretReference:
    """Read a reference without following it.

    Raises:
        ReferenceFault: It is not a reference, or not one that is allowed here.
    """
    word, colon, target = text.strip().partition(":")
    if not colon or word not in _SCHEMES:
        raise ReferenceFault("This must be a reference to a secret, not the secret itself.", _FORMS)
    scheme = Scheme(word)
    if not target:
        raise ReferenceFault(f"The reference {scheme}: names nothing.", _FORMS)
    if scheme is Scheme.INLINE:
        if not allow_inline:
            raise ReferenceFault(
                "A secret may stand inline in demonstrations only.",
                "Move it to an environment variable or a file, and write env:NAME or file:PATH.",
            )
        return SecretReference(scheme, "", Secret(target))
    if scheme is Scheme.ENV and _ENV_NAME.fullmatch(target) is None:
        raise ReferenceFault("What follows env: is not the name of an environment variable.", _FORMS)
    if scheme is Scheme.VAULT:
        return SecretReference(scheme, "{}/{}#{}".format(*vault_parts(target)))
    if "\0" in target:
        raise ReferenceFault("What follows file: is not a path.", _FORMS)
    return SecretReference(scheme, target)


def vault_parts(target: str) -> tuple[str, str, str]:
    """Mount, path and field of what follows `vault:`.

    Raises:
        ReferenceFault: It has another shape, or a path with empty or dot segments.
    """
    found = _VAULT_TARGET.fullmatch(target)
    if found is None or any(part in {"", ".", ".."} for part in found["path"].split("/")):
        raise ReferenceFault(
            "What follows vault: is not a KV v2 secret.",
            "Write vault:MOUNT/PATH#FIELD, for example vault:secret/cbk/acme#key.",
        )
    return found["mount"], found["path"], found["field"] or DEFAULT_VAULT_FIELD


def resolve(
    reference: SecretReference,
    *,
    environ: Mapping[str, str],
    folder: Path | None = None,
    vault: Mapping[str, Secret] | None = None,
) -> Secret:
    """Follow a reference to its secret.

    Args:
        reference: What to follow.
        environ: The environment.
        folder: Where relative `file:` paths begin; None for the working directory.
        vault: Secrets that were read from Vault, by their reference's text; None when Vault is not in use.

    Raises:
        ReferenceFault: It leads nowhere, or to nothing.
    """
    if reference.inline is not None:
        return reference.inline
    if reference.scheme is Scheme.ENV:
        value = environ.get(reference.target)
        if value is None or not value.strip():
            state = "is not set" if value is None else "is empty"
            raise ReferenceFault(
                f"The environment variable {reference.target} {state}.",
                "Set it for the gateway's process, or change the reference.",
            )
        return Secret(value.strip())
    if reference.scheme is Scheme.FILE:
        return read_secret_file(located(reference, folder))
    if vault is None or str(reference) not in vault:
        raise ReferenceFault(
            f"{reference} could not be read." if vault is not None else "Vault is not configured.",
            "Check the address, the login and the policy under `vault` in the gateway's settings.",
        )
    return vault[str(reference)]


def located(reference: SecretReference, folder: Path | None) -> Path:
    """The path of a `file:` reference; relative ones begin at `folder`."""
    path = Path(reference.target).expanduser()
    return path if path.is_absolute() or folder is None else folder / path


def read_secret_file(path: Path) -> Secret:
    """The secret in a file, without the white space around it.

    Raises:
        ReferenceFault: It cannot be read, is too large, is empty, or is not UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_SECRET_BYTES + 1)
    except OSError as exc:
        raise ReferenceFault(
            f"The secret file {path} cannot be read ({exc.strerror or type(exc).__name__}).",
            "Check the path, and that the gateway's user may read it.",
        ) from None
    if len(octets) > MAX_SECRET_BYTES:
        raise ReferenceFault(
            f"The secret file {path} is over {MAX_SECRET_BYTES} bytes.", "Point to the secret alone."
        )
    try:
        text = octets.decode().strip()
    except UnicodeDecodeError:
        raise ReferenceFault(f"The secret file {path} is not text.", "Store the secret as text.") from None
    if not text:
        raise ReferenceFault(f"The secret file {path} is empty.", "Write the secret into it.")
    return Secret(text)
