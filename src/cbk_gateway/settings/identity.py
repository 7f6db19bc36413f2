"""The identity section: which issuers' tokens are believed, and how the gateway mints its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Algorithm = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class VerifyKeySettings(_Section):
    """One key that verifies tokens of an issuer."""

    kid: str | None = Field(None, description="Key id; a token that names another key does not use this one.")
    alg: Algorithm = Field(description="The one algorithm this key is used with.")
    key: str = Field(description="Secret reference: the shared secret (HS*), or a PEM or JWK public key.")


class JwksSettings(_Section):
    """How the published keys of an issuer are fetched. The defaults suit every usual identity provider."""

    refresh_s: Annotated[float, Field(gt=0)] = Field(
        300.0, description="Seconds between fetches when the answer names no max-age."
    )
    min_refresh_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds: least that a max-age may ask for."
    )
    max_refresh_s: Annotated[float, Field(gt=0)] = Field(
        21_600.0,
        description="Seconds: most that a max-age may ask for; a withdrawn key works at most this long.",
    )
    cooldown_s: Annotated[float, Field(ge=0)] = Field(
        30.0, description="Seconds between two fetches for unknown key ids, and after a failed fetch."
    )
    unknown_kid_s: Annotated[float, Field(ge=0)] = Field(
        120.0, description="Seconds a key id that was not found is refused without asking again."
    )
    max_age_s: Annotated[float, Field(gt=0)] = Field(
        86_400.0, description="Seconds the last good keys are used while the issuer is away."
    )
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(
        5.0, description="Seconds for one fetch, discovery included."
    )
    max_bytes: Annotated[int, Field(ge=1024)] = Field(262_144, description="Largest key set in bytes.")
    max_keys: Annotated[int, Field(ge=1)] = Field(64, description="Most keys in a set.")


class IssuerSettings(_Section):
    """Somebody whose tokens are believed. Each has its own keys, algorithms and claims."""

    name: str = Field(description="Short name for logs and metrics.")
    issuer: str | None = Field(None, description="Exact `iss` value; unset only for tokens without one.")
    algorithms: tuple[Algorithm, ...] = Field(
        min_length=1, description="Allowed algorithms; never mixed families."
    )
    keys: tuple[VerifyKeySettings, ...] = Field((), description="Keys given here.")
    jwks_url: str | None = Field(
        None, description="Where its keys are published (https, or http on loopback)."
    )
    discovery: bool = Field(False, description="Find `jwks_url` through OpenID discovery at `issuer`.")
    audience: tuple[str, ...] | None = Field(
        None,
        description='Accepted `aud` values. Unset refuses tokens that name an audience; ["*"] accepts '
        "any, also "
        "tokens meant for other services.",
    )
    tenant: str | None = Field(
        None,
        description="Every token of this issuer belongs to this tenant; its own claim is not read. Not "
        "for an "
        "issuer that serves several tenants.",
    )
    tenant_claim: str = Field("tenant", description="Dotted path of the claim that names the tenant.")
    tenant_map: dict[str, str] | None = Field(
        None,
        description="Translates that claim's values to tenant ids; other values are refused. Give one to "
        "every "
        "issuer you do not run yourself: without it the issuer may speak for any tenant.",
    )
    subject_claim: str = Field("sub", description="Dotted path of the subject; required in every token.")
    scope_claim: str = Field(
        "scope", description="Dotted path of the scopes: a string with spaces, or a list."
    )
    default_scopes: tuple[str, ...] = Field(
        (), description="Scopes of tokens without that claim; none by default: they may do nothing."
    )
    types: tuple[str, ...] = Field(
        ("jwt", "at+jwt"),
        min_length=1,
        description="Accepted `typ` headers in lower case, without `application/`; a token without one "
        "passes.",
    )
    required_claims: tuple[str, ...] = Field((), description="Claims that must be there besides `exp`.")
    leeway_s: float = Field(30.0, ge=0, le=600, description="Clock difference that is forgiven, in seconds.")
    max_lifetime_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Longest believed life from `iat` to `exp`, in seconds; unset for any."
    )
    jwks: JwksSettings = Field(
        default_factory=JwksSettings, description="How its published keys are fetched."
    )

    @model_validator(mode="after")
    def _has_keys(self) -> IssuerSettings:
        if not self.keys and self.jwks_url is None and not self.discovery:
            message = "an issuer needs `keys`, `jwks_url` or `discovery`"
            raise ValueError(message)
        families = {"HS" if one.startswith("HS") else "public" for one in self.algorithms}
        if len(families) > 1:
            message = "`algorithms` mixes shared secrets (HS*) with public keys; give each its own issuer"
            raise ValueError(message)
        return self


class SigningKeySettings(_Section):
    """A key the gateway signs its own tokens with. The first signs; the rest still verify."""

    kid: str = Field(description="Key id written into tokens.")
    alg: Algorithm = Field(description="HS256, or an asymmetric one so that others can verify.")
    key: str = Field(description="Secret reference: the shared secret (HS*), or a PEM private key.")


class MintSettings(_Section):
    """Tokens for platforms without an identity provider of their own."""

    issuer: str = Field("cbk-gateway", description="`iss` of minted tokens.")
    audience: str = Field("cbk-gateway", description="`aud` of minted tokens.")
    keys: tuple[SigningKeySettings, ...] = Field(min_length=1, description="Signing keys, newest first.")
    max_ttl_s: Annotated[float, Field(gt=0)] = Field(
        30 * 86_400.0, description="Longest life of a token, seconds."
    )


class IdentitySettings(_Section):
    """Whose tokens are believed."""

    issuers: tuple[IssuerSettings, ...] = Field((), description="Trusted issuers.")
    mint: MintSettings | None = Field(None, description="The gateway's own issuer; it is trusted by itself.")
    max_token_chars: Annotated[int, Field(ge=256, le=65_536)] = Field(
        8192, description="Longer tokens are refused."
    )
    remembered_tokens: Annotated[int, Field(ge=0)] = Field(
        20_000, description="Verified tokens kept in memory, about 1 KiB each; 0 verifies every time."
    )
    revocation_poll_s: Annotated[float, Field(gt=0, le=60)] = Field(
        0.5,
        description="Seconds between two looks for revocations, beside being told; above 0.5 one may take "
        "more "
        "than a second when its message is lost.",
    )
    max_revocation_age_s: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Seconds without a confirmed list of revocations after which everybody is refused (503); "
        "unset goes on with the last known list while the store is away.",
    )
