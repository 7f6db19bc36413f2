"""Upstream keys at rest: AES-256-GCM under a versioned master key, bound to one tenant and one name.

A sealed text reads `sealed:<key id>:<base64url of nonce and ciphertext>`. The tenant and the name of the
secret are associated data (NIST SP 800-38D, section 4), so a row copied to another tenant does not open.
Nonces are 96 random bits, which is safe for 2^32 seals under one master key; operators rotate far sooner.
Where the sealed text is kept is not known here.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cbk_gateway.secret import Secret

PREFIX: Final = "sealed:"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class CipherFault(Exception):  # noqa: N818 - named as the other packages' faults are
    """A master key that cannot be used, or a sealed text that does not open. Holds no secret."""


class MasterKeys:
    """The master keys of this deployment: all open, the first one seals."""

    __slots__ = ("_ciphers", "sealing_id")

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys or any(len(key) != _KEY_BYTES for key in keys.values()):
            message = f"a master key is {_KEY_BYTES} bytes long"
            raise CipherFault(message)
        self.sealing_id = next(iter(keys))
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}

    def __repr__(self) -> str:
        return f"<MasterKeys {' '.join(self._ciphers)}>"

    def seal(self, secret: Secret, *, tenant: str, name: str) -> str:
        """The secret as text that only these keys open, and only for this tenant and name."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = self._ciphers[self.sealing_id]
        sealed = nonce + cipher.encrypt(
            nonce, secret.reveal().encode(), _bound_to(self.sealing_id, tenant, name)
        )
        return f"{PREFIX}{self.sealing_id}:{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, text: str, *, tenant: str, name: str) -> Secret:
        """The secret in a sealed text.

        Raises:
            CipherFault: The master key is not among these, or the text was not sealed for this place.
        """
        key_id, colon, body = text.removeprefix(PREFIX).partition(":")
        cipher = self._ciphers.get(key_id)
        if not text.startswith(PREFIX) or not colon:
            message = "this is not a sealed secret"
            raise CipherFault(message)
        if cipher is None:
            message = f"the master key {key_id[:32]!r} is not configured"
            raise CipherFault(message)
        try:
            octets = base64.b64decode(body, altchars=b"-_", validate=True)
            nonce, sealed = octets[:_NONCE_BYTES], octets[_NONCE_BYTES:]
            return Secret(cipher.decrypt(nonce, sealed, _bound_to(key_id, tenant, name)).decode())
        except (InvalidTag, ValueError, binascii.Error):
            message = "the sealed secret does not open: it was altered, moved, or sealed by another key"
            raise CipherFault(message) from None

    def is_current(self, text: str) -> bool:
        """Whether a sealed text is under the key that seals now; if not, seal it again when convenient."""
        return text.startswith(f"{PREFIX}{self.sealing_id}:")


def master_keys(configured: Secret) -> MasterKeys:
    """Read master keys as configured: `ID:BASE64[,ID:BASE64...]`, the sealing one first.

    A single key may stand without its id, which is then `1`. Make one with `openssl rand -base64 32`.

    Raises:
        CipherFault: It has another form. The message does not show it.
    """
    keys: dict[str, bytes] = {}
    for part in configured.reveal().replace("\n", ",").split(","):
        if not part.strip():
            continue
        key_id, colon, text = part.strip().rpartition(":")
        key_id = key_id if colon else "1"
        if _KEY_ID.fullmatch(key_id) is None or key_id in keys:
            message = "each master key needs an id of its own: ID:BASE64"
            raise CipherFault(message)
        try:
            standard = text.replace("-", "+").replace("_", "/")
            keys[key_id] = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (ValueError, binascii.Error):
            message = "a master key is 32 bytes in base64"
            raise CipherFault(message) from None
    return MasterKeys(keys)


def _bound_to(key_id: str, tenant: str, name: str) -> bytes:
    # Lengths in front, so that no tenant's id can run into a name.
    return b"cbk-gateway sealed 1" + b"".join(
        len(part.encode()).to_bytes(4, "big") + part.encode() for part in (key_id, tenant, name)
    )
