"""Who may use the operators' port, and for what."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from cbk_gateway.errors import NotAuthenticated, NotAuthorized
from cbk_gateway.secret import Secret

ROLES: Final = ("viewer", "operator", "admin")


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody with a token of the operators' port."""

    name: str
    role: str
    token: Secret


OPERATOR: Final = web.RequestKey("operator", Operator)


def identified(request: web.Request, operators: Iterable[Operator]) -> Operator:
    """Who is calling. A browser's cookies count for nothing here.

    Raises:
        NotAuthenticated: The bearer token is nobody's.
    """
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    found = None
    for operator in operators:
        # Every token is compared, so that the time taken says nothing about which one was near.
        if hmac.compare_digest(operator.token.reveal().encode(), given.strip().encode()):
            found = operator
    if scheme.lower() != "bearer" or found is None:
        raise NotAuthenticated("An operator's token is needed here.", reason="operator")
    return found


def needs(request: web.Request, role: str) -> None:
    """Refuse whoever has less than a role.

    Raises:
        NotAuthorized: The operator's role is not enough.
    """
    if ROLES.index(request[OPERATOR].role) < ROLES.index(role):
        raise NotAuthorized(f"This needs the role {role}.", reason="role")
