"""What an operator can say about identity: issuers, their keys and claims policy, memory, revocation.

Values and their own consistency only. Nothing here reads a file, an environment variable or a socket, and
no token is looked at. Each class raises `ValueError` with one plain sentence when its parts contradict
each other, so that configuration errors can name the issuer before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cbk_gateway.identity.addresses import fault_of_key_address
from cbk_gateway.secret import Secret

HMAC_ALGORITHMS: Final = frozenset({"HS256", "HS384", "HS512"})
PUBLIC_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
ALGORITHMS: Final = HMAC_ALGORITHMS | PUBLIC_ALGORITHMS

# RFC 7518 section 3.2: an HMAC key is at least as long as the hash output.
HMAC_BYTES: Final[Mapping[str, int]] = {"HS256": 32, "HS384": 48, "HS512": 64}

ANY_AUDIENCE: Final = "*"


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A key from configuration that signatures are checked with.

    Attributes:
        kid: The key id tokens name in their header; None for a key that serves tokens without one.
        alg: The one algorithm this key may be used with (RFC 8725 section 3.1).
        material: A `Secret` for HMAC; the text of a PEM (public key or certificate) or a JWK for the rest.
    """

    kid: str | None
    alg: str
    material: Secret | str = field(repr=False)

    def __post_init__(self) -> None:
        if self.alg not in ALGORITHMS:
            raise ValueError(f"{self.alg!r} is no signature algorithm this gateway verifies")
        if (self.alg in HMAC_ALGORITHMS) != isinstance(self.material, Secret):
            raise ValueError(f"a key for {self.alg} must be {_material_kind(self.alg)}")


@dataclass(frozen=True, slots=True)
class JwksOptions:
    """How the keys of an issuer are fetched.

    Attributes:
        refresh_s: Seconds between scheduled fetches when the answer has no `Cache-Control: max-age`.
        min_refresh_s: Lower bound for what `Cache-Control` may ask for.
        max_refresh_s: Upper bound likewise: a withdrawn key works at most this long.
        cooldown_s: Least seconds between two fetches caused by unknown key ids, and after a failed fetch.
        unknown_kid_s: How long a key id that was not found is refused without asking again.
        max_age_s: How long the last good set is used while the issuer cannot be reached.
        timeout_s: Bound for one fetch, redirects and discovery included.
        max_bytes: Bound for a body, discovery or key set.
        max_keys: Bound for the keys in a set; a larger set is refused whole.
    """

    refresh_s: float = 300.0
    min_refresh_s: float = 60.0
    max_refresh_s: float = 6 * 3600.0
    cooldown_s: float = 30.0
    unknown_kid_s: float = 120.0
    max_age_s: float = 24 * 3600.0
    timeout_s: float = 5.0
    max_bytes: int = 256 * 1024
    max_keys: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.min_refresh_s <= self.max_refresh_s:
            raise ValueError("min_refresh_s must be above 0 and not above max_refresh_s")
        if min(self.refresh_s, self.timeout_s, self.max_age_s) <= 0 or min(self.max_bytes, self.max_keys) < 1:
            raise ValueError("refresh_s, timeout_s, max_age_s, max_bytes and max_keys must be above 0")
        if self.cooldown_s < 0 or self.unknown_kid_s < 0:
            raise ValueError("cooldown_s and unknown_kid_s cannot be negative")


@dataclass(frozen=True, slots=True)
class IssuerOptions:
    """One issuer of tokens: how it signs, and what its tokens must say.

    Attributes:
        name: Our name for it, used as metric label and in logs.
        issuer: The exact `iss` value of its tokens. None: its tokens carry no `iss` at all.
        algorithms: What its tokens may be signed with: HMAC or public-key algorithms, never both.
        keys: Keys from configuration.
        jwks_url: Where its key set is published: https, or http on loopback.
        discovery: Find the key set through `<issuer>/.well-known/openid-configuration`.
        audience: The token's `aud` must contain one of these. None: tokens that carry `aud` are refused,
            as RFC 7519 section 4.1.3 demands of a recipient that has no name. `("*",)`: not looked at.
        tenant: Every token of this issuer belongs to this tenant; the token's own claim is not read.
        tenant_claim: Where the tenant stands: a claim name, or a dotted path into nested objects.
        tenant_map: From the issuer's values to our tenants; a value not named is refused. Give one to every
            issuer you do not run yourself: without it the issuer may speak for any tenant.
        subject_claim: Where the subject stands; required.
        scope_claim: Where the scopes stand: a text with blanks, or a list of texts.
        default_scopes: Scopes of tokens without that claim. Empty: they may do nothing.
        required_claims: Names or dotted paths that must be present and not null, besides `exp` and subject.
        leeway_s: Tolerated difference between its clock and ours, for `exp`, `nbf` and `iat`.
        max_lifetime_s: Longest accepted `exp - iat`, which makes `iat` required. None: no bound, and
            revocations that are not about a known token are kept until they are lifted.
        types: Accepted `typ` headers in lower case, without `application/`; no `typ` is accepted always.
        jwks: How keys are fetched.
    """

    name: str
    issuer: str | None
    algorithms: tuple[str, ...]
    keys: tuple[VerifyKey, ...] = ()
    jwks_url: str | None = None
    discovery: bool = False
    audience: tuple[str, ...] | None = None
    tenant: str | None = None
    tenant_claim: str = "tenant"
    tenant_map: Mapping[str, str] | None = None
    subject_claim: str = "sub"
    scope_claim: str = "scope"
    default_scopes: tuple[str, ...] = ()
    required_claims: tuple[str, ...] = ()
    leeway_s: float = 30.0
    max_lifetime_s: float | None = None
    types: tuple[str, ...] = ("jwt", "at+jwt")
    jwks: JwksOptions = field(default_factory=JwksOptions)

    def __post_init__(self) -> None:
        self._check_algorithms()
        self._check_sources()
        if self.leeway_s < 0:
            raise ValueError(f"issuer {self.name}: leeway_s cannot be negative")
        if self.max_lifetime_s is not None and self.max_lifetime_s <= 0:
            raise ValueError(f"issuer {self.name}: max_lifetime_s must be above 0")
        if self.audience is not None and not self.audience:
            raise ValueError(f"issuer {self.name}: an empty audience list would refuse every token")

    @property
    def has_remote_keys(self) -> bool:
        """Whether its keys are fetched over HTTP."""
        return self.jwks_url is not None or self.discovery

    def _check_algorithms(self) -> None:
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            named = ", ".join(unknown) or "nothing"
            raise ValueError(f"issuer {self.name}: algorithms names {named}, which cannot be verified here")
        # RFC 8725 section 2.1: a public key taken for an HMAC secret lets anybody sign.
        if not HMAC_ALGORITHMS.isdisjoint(self.algorithms) and not PUBLIC_ALGORITHMS.isdisjoint(
            self.algorithms
        ):
            raise ValueError(f"issuer {self.name}: HMAC and public-key algorithms cannot be mixed")
        for key in self.keys:
            if key.alg not in self.algorithms:
                raise ValueError(f"issuer {self.name}: a key is for {key.alg}, which algorithms leaves out")

    def _check_sources(self) -> None:
        if self.has_remote_keys and not HMAC_ALGORITHMS.isdisjoint(self.algorithms):
            raise ValueError(f"issuer {self.name}: a published key set cannot hold HMAC secrets")
        if not self.keys and not self.has_remote_keys:
            raise ValueError(f"issuer {self.name}: give keys, jwks_url or discovery")
        if self.jwks_url is not None and self.discovery:
            raise ValueError(f"issuer {self.name}: give jwks_url or discovery, not both")
        if self.discovery and self.issuer is None:
            raise ValueError(f"issuer {self.name}: discovery needs the issuer's URL")
        address = self.issuer if self.discovery else self.jwks_url
        if address is not None and (fault := fault_of_key_address(address)):
            raise ValueError(f"issuer {self.name}: the address of its keys {fault}")
        kids = [(key.kid, key.alg) for key in self.keys]
        if len(set(kids)) != len(kids):
            raise ValueError(f"issuer {self.name}: two keys share their key id and algorithm")


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """Everything the identity package can be told.

    Attributes:
        issuers: At most one for any pair of `iss` value (or none) and algorithm, so that a token's header
            leads to one issuer at most. Moving from a shared secret to public keys takes two entries.
        max_token_chars: Longer tokens are refused before they are parsed.
        remembered_tokens: How many verified tokens are remembered (about 1 KiB each); 0 for none.
        revocation_poll_s: Seconds between two looks at the store, should its push messages be lost.
            Above 0.5 a lost message can delay a revocation past the promised second.
        max_revocation_age_s: Refuse everybody with 503 once the list of revocations could not be confirmed
            for this long. None: keep judging by the last known list while the store is away.
    """

    issuers: tuple[IssuerOptions, ...]
    max_token_chars: int = 8192
    remembered_tokens: int = 20_000
    revocation_poll_s: float = 0.5
    max_revocation_age_s: float | None = None

    def __post_init__(self) -> None:
        values = [(issuer.issuer, alg) for issuer in self.issuers for alg in issuer.algorithms]
        names = [issuer.name for issuer in self.issuers]
        if len(set(names)) != len(names):
            raise ValueError("two issuers share their name")
        if len(set(values)) != len(values):
            raise ValueError("two issuers share their iss value and an algorithm")
        if self.max_token_chars < 1 or self.remembered_tokens < 0 or self.revocation_poll_s <= 0:
            raise ValueError("max_token_chars and revocation_poll_s must be above 0")


def weaknesses(options: IdentityOptions) -> tuple[str, ...]:
    """Choices that work but should be known, one sentence each, for `config check`."""
    found: list[str] = []
    for issuer in options.issuers:
        for key in issuer.keys:
            least = HMAC_BYTES.get(key.alg, 0)
            if isinstance(key.material, Secret) and len(key.material.reveal().encode()) < least:
                found.append(
                    f"issuer {issuer.name}: its {key.alg} secret is shorter than {least} bytes "
                    "(RFC 7518 section 3.2) and can be guessed offline from one token"
                )
        if issuer.audience is not None and ANY_AUDIENCE in issuer.audience:
            found.append(f"issuer {issuer.name}: tokens meant for other services are accepted here")
        if issuer.max_lifetime_s is None:
            found.append(f"issuer {issuer.name}: tokens of any lifetime are accepted")
        if issuer.has_remote_keys and issuer.tenant_map is None and issuer.tenant is None:
            found.append(f"issuer {issuer.name}: it may speak for every tenant (no tenant or tenant_map)")
    return tuple(found)


def _material_kind(alg: str) -> str:
    return "a secret" if alg in HMAC_ALGORITHMS else "the text of a public PEM or JWK"
