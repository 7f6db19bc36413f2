"""What operators may send: one model per change, every field with its meaning. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cbk_gateway.errors import BadRequest
from cbk_gateway.operation import TYPE_NAMES, canonical

Name = Annotated[str, Field(min_length=1, max_length=256)]


def _resource_type(name: str) -> str:
    """A type by the name its answers are remembered under; a misspelled one would purge nothing."""
    if canonical(name) not in TYPE_NAMES:
        raise ValueError("there is no such resource type")
    return canonical(name)


ResourceType = Annotated[Name, AfterValidator(_resource_type)]


class Command(BaseModel):
    """The body of a change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Nothing(Command):
    """A change that needs no words."""


class Mint(Command):
    """A new token of the gateway's own issuer."""

    tenant: Name = Field(description="Id of the tenant it speaks for.")
    subject: Name = Field("app", description="The app or user it is for.")
    scopes: tuple[Name, ...] = Field(("*",), description="What it may do.")
    ttl_s: int = Field(3600, gt=0, description="Seconds until it expires.")


class Revoke(Command):
    """What is revoked: one token, a subject, a tenant, or everything issued before a time."""

    token_id: Name | None = Field(None, description="The token's `jti`.")
    tenant: Name | None = Field(
        None, description="All tokens of a tenant; with `subject`, of that subject only."
    )
    subject: Name | None = Field(None, description="All tokens of a subject of `tenant`.")
    issued_before: int | None = Field(None, description="Only tokens issued before this epoch second.")
    note: str = Field("", max_length=500, description="Why, for whoever reads the list.")

    @model_validator(mode="after")
    def _one_target(self) -> Revoke:
        if self.subject is not None and self.tenant is None:
            raise ValueError("name the subject's `tenant` too")
        if self.token_id is not None and (self.tenant is not None or self.issued_before is not None):
            raise ValueError("`token_id` stands alone")
        if self.token_id is None and self.tenant is None and self.issued_before is None:
            raise ValueError("say what to revoke: `token_id`, `tenant`, or everything `issued_before`")
        return self


class Lift(Command):
    """A revocation to take back."""

    id: Name = Field(description="Its id, from the list.")


class NewKey(Command):
    """The key a tenant's rotation moves to."""

    key: Annotated[str, Field(min_length=8, max_length=4096)] = Field(description="The upstream secret key.")
    expires_at: int | None = Field(
        None, ge=0, le=10**11, description="When it stops working, in epoch seconds, to be warned in time."
    )


class CreateTenant(Command):
    """A tenant kept in the store. The definition has the shape of the tenants' file."""

    definition: dict[str, Any] = Field(description="As in `tenants.yaml`, without `key`.")
    key: Annotated[str, Field(min_length=8, max_length=4096)] | None = Field(
        None, description="The upstream secret key, to be sealed; or a reference in the definition."
    )


class ResetLimit(Command):
    """Buckets to fill."""

    policy: Name | None = Field(None, description="Name of one rate; all of the tenant's when unset.")
    subject: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Also the bucket of this token subject."
    )
    account: bool = Field(False, description="Also the bucket over all tenants of the upstream account.")
    overall: bool = Field(False, description="Also the bucket over everybody.")


class GrantQuota(Command):
    """More of a quota in its present period."""

    quota: Name = Field(description="Name of the quota.")
    amount: int = Field(gt=0, description="How much more may be used.")


class ResetQuota(Command):
    """A quota to begin anew."""

    quota: Name = Field(description="Name of the quota.")


class Purge(Command):
    """Remembered answers to forget."""

    account: Name = Field(description="The upstream account.")
    types: tuple[ResourceType, ...] = Field((), description="Resource types; all when empty.")
    id: Name | None = Field(
        None, description="Only answers of these types that name this id, in path, query or body."
    )


class LogLevel(Command):
    """How much is logged from now on, in this process."""

    level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(description="The level.")


C = TypeVar("C", bound=Command)


async def parsed(request: web.Request, model: type[C]) -> C:
    """The body as a command.

    Raises:
        BadRequest: It is not JSON, or not this command. The message names fields, never values.
    """
    if request.content_type != "application/json" and request.can_read_body:
        # A form of a foreign page cannot say application/json without asking first (Fetch, section 3.2).
        raise BadRequest("Send application/json.", reason="media_type")
    text = await request.read()
    try:
        return model.model_validate_json(text or b"{}")
    except ValidationError as exc:
        told = exc.errors(include_input=False, include_url=False)
        faults = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in told]
        raise BadRequest("; ".join(faults[:10])) from None
