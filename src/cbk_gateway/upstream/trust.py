"""Whom the gateway takes for the upstream: TLS contexts, client certificate, pins.

Verification is always on; there is no option to turn it off. A private authority is named with `ca_file`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cbk_gateway.upstream.options import UpstreamOptions
from cbk_gateway.upstream.outcomes import Cause, Outcome, UpstreamFault


def client_context(options: UpstreamOptions) -> ssl.SSLContext:
    """The TLS context for connections to the upstream. Reads files; call it before serving.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file holds no certificate or key, or they do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=options.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if options.client_cert is not None:
        context.load_cert_chain(options.client_cert, options.client_key)
    return context


def public_key_pin(certificate: bytes) -> str:
    """Base64 SHA-256 of a DER certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4)."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(encoded).digest()).decode()


def check_pins(certificate: bytes | None, pins: tuple[str, ...]) -> None:
    """Compare the upstream's own certificate with the configured pins; no pins accept any.

    Raises:
        UpstreamFault: None matches.
    """
    if not pins:
        return
    shown = public_key_pin(certificate) if certificate else ""
    if not any(hmac.compare_digest(shown, pin.removeprefix("sha256/")) for pin in pins):
        raise UpstreamFault(Cause.TLS, Outcome.NOT_SENT, "the certificate's key matches no pin")


def said_farewell(tls: ssl.SSLObject | None) -> bool:
    """Whether the peer ended TLS itself (close_notify, RFC 8446 section 6.1), not just TCP under it.

    Without it anybody on the way could have cut the last message short.
    """
    if tls is None:
        return False
    try:
        return tls.read(1) == b""
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
