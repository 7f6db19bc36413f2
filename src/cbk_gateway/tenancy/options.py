"""The options of this package, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cbk_gateway.secret import Secret


@dataclass(frozen=True, slots=True)
class RotationOptions:
    """How a rotation from one upstream key to the next behaves.

    Attributes:
        canary_share: Part of safe GETs that use the next key first, 0 to 1.
        next_pause_s: How long the next key rests after a refusal, in seconds.
        current_retry_s: How often a refused current key is tried again while the next one serves.
        promote_after: Passed requests without a refusal after which the next key is reported ready; 0
            for never.
    """

    canary_share: float = 0.05
    next_pause_s: float = 30.0
    current_retry_s: float = 30.0
    promote_after: int = 100


@dataclass(frozen=True, slots=True)
class PromotionOptions:
    """When a rotation ends without an operator. Counts are of all processes together.

    Attributes:
        successes: Requests that the next key must have passed. One refusal bars it for good.
        min_age_s: For how long it must have passed, in seconds by the store's clock.
        drop_after: Refusals after which it is given up; 0 for never.
    """

    successes: int = 100
    min_age_s: float = 3600.0
    drop_after: int = 3


@dataclass(frozen=True, slots=True)
class VaultOptions:
    """Where HashiCorp Vault is and how to log in: with `token`, `token_file`, or a Kubernetes role.

    Attributes:
        address: `https://vault.example.com:8200`; http is accepted for loopback only.
        token: A token, or None.
        token_file: A file that holds one, as Vault's agent writes it; read before every login.
        kubernetes_role: Role of the Kubernetes auth method, or None.
        kubernetes_mount: Where that method is mounted.
        service_account_file: The pod's own token.
        mounts: Mounts whose names have several segments, such as `team/kv`; others are the first segment of
            a reference.
        namespace: Vault Enterprise namespace, or None.
        ca_file: CA certificates that vouch for Vault, or None for the system's.
        timeout_s: Longest wait for one request, in seconds.
        max_bytes: Largest answer that is read.
        refresh_s: How often the secrets are read anew, in seconds.
    """

    address: str
    token: Secret | None = None
    token_file: Path | None = None
    kubernetes_role: str | None = None
    kubernetes_mount: str = "kubernetes"
    service_account_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mounts: tuple[str, ...] = ()
    namespace: str | None = None
    ca_file: Path | None = None
    timeout_s: float = 5.0
    max_bytes: int = 1024**2
    refresh_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TenancyOptions:
    """Options of the package.

    Attributes:
        rotation: Behaviour of key rotations.
        promotion: When they end by themselves; None leaves that to operators.
        file_poll_s: How often the tenants' file and the secret files are looked at, in seconds.
        store_poll_s: How often the store's tenants are asked for a change, beside being told. Below 1,
            so that disabling acts within a second even when the message is lost.
        store_timeout_s: Longest wait for one look, in seconds.
        login_look_s: How often the login at Vault is looked at, in seconds, whether it has to be renewed.
        owners_remembered: Owners of objects kept in this process.
    """

    rotation: RotationOptions = field(default_factory=RotationOptions)
    promotion: PromotionOptions | None = None
    file_poll_s: float = 1.0
    store_poll_s: float = 0.4
    store_timeout_s: float = 1.0
    login_look_s: float = 1.0
    owners_remembered: int = 50_000
