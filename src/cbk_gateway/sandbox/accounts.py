"""Who is calling: secret keys, tokens minted by the API, and children that an account may act as.

It answers with a `Caller` or a 401, and knows nothing about paths except what an end-user token may reach.
The scheme word of the credential is ignored, as the API ignores it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from cbk_gateway.sandbox.answers import ApiError
from cbk_gateway.sandbox.paths import Target
from cbk_gateway.sandbox.store import Row, Store

CHILD_KIND: Final = "partner/user"
_END_USER_ACTIONS: Final = frozenset(
    {
        ("conversation", "complete"),
        ("conversation", "send"),
        ("conversation", "receive"),
        ("conversation", "initiate"),
        ("conversation/contact", "upsert"),
        ("conversation/attachment", "upload"),
        ("conversation/message", "upvote"),
        ("conversation/message", "downvote"),
        ("conversation/message", "synthesize"),
    }
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The account behind a request.

    Attributes:
        account: The configured account.
        owner: Whose resources it sees: the account's name, or the id of the child it acts as.
        run_as: The child's id, or None.
        session: Namespace of its channels: one per credential and child.
        conversation: The only conversation an end-user token may touch; None for the whole account.
        expires_ms: When the credential ends, or None.
    """

    account: str
    owner: str
    run_as: str | None
    session: str
    conversation: str | None = None
    expires_ms: int | None = None


class Accounts:
    """The credentials of all accounts.

    Args:
        keys: Secret key to account name.
        children: Account name to its children, id to e-mail.
    """

    def __init__(
        self, store: Store, keys: Mapping[str, str], children: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self._store = store
        self.keys = dict(keys)
        self._children = {account: dict(members) for account, members in (children or {}).items()}
        self._minted: dict[str, Caller] = {}
        self._tokens_of_rows: dict[str, str] = {}
        self.restore()

    def restore(self) -> None:
        """Put the configured children and the kept tokens back, after a start or a reset."""
        self._minted.clear()
        self._tokens_of_rows.clear()
        for account, members in self._children.items():
            for child_id, email in members.items():
                if self._store.get(child_id) is None:
                    self._store.add(account, CHILD_KIND, {"name": email, "email": email}, row_id=child_id)
        for row in self._store.all_rows():
            if row.kind == "partner/user/token":
                self._index_token(row)

    def identify(self, headers: Mapping[str, str], target: Target | None) -> Caller:
        """The caller behind the request headers, for a call of `target`.

        Raises:
            ApiError: 401 for no credential, an unknown or expired one, one that does not cover the call, or
                a run-as that names no child.
        """
        words = headers.get("Authorization", "").split(" ")
        token = words[1] if len(words) > 1 else ""
        account = self.keys.get(token) if token else None
        if account is not None:
            return self._run_as(account, token, headers)
        minted = self._minted.get(token)
        if minted is None or (minted.expires_ms is not None and minted.expires_ms <= self._store.now_ms()):
            raise ApiError(401)
        if minted.conversation is not None and not _covers(minted.conversation, target):
            raise ApiError(401)
        return minted

    def _run_as(self, account: str, token: str, headers: Mapping[str, str]) -> Caller:
        child_id = headers.get("X-RunAs-User-ID") or headers.get("X-RunAs-UserId")
        email = headers.get("X-RunAs-Child-User-Email")
        session = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        if not child_id and not email:
            return Caller(account, account, None, session)
        child = self._child(account, child_id, email)
        if child is None:
            raise ApiError(401)
        return Caller(account, child.id, child.id, f"{session}:{child.id}")

    def _child(self, account: str, child_id: str | None, email: str | None) -> Row | None:
        children = self._store.rows(account, CHILD_KIND)
        if child_id:
            return children.get(child_id)
        return next((child for child in children.values() if child.body.get("email") == email), None)

    def parent_of(self, caller: Caller) -> str | None:
        """The owner above a caller who acts as a child."""
        return caller.account if caller.run_as is not None else None

    def mint_session(
        self, caller: Caller, owner: str, duration_s: int, conversation: str | None
    ) -> tuple[str, int]:
        """A short-lived token for `owner`, or for one conversation only, and the millisecond it ends."""
        expires_ms = self._store.now_ms() + duration_s * 1000
        token = _jwt_like({"userId": owner, "conversationId": conversation, "exp": expires_ms // 1000})
        run_as = owner if owner != caller.account else None
        self._minted[token] = Caller(
            caller.account, owner, run_as, secrets.token_hex(8), conversation, expires_ms
        )
        return token, expires_ms

    def mint_key(self, row: Row) -> str:
        """A secret key of a child account, kept hidden in its token row."""
        token = f"sk-{secrets.token_hex(32)}"
        self._store.change(row, {}, {"token": token})
        self._index_token(row)
        return token

    def revoke(self, row: Row) -> None:
        """Let the key of a deleted token row end at once."""
        token = self._tokens_of_rows.pop(row.id, None)
        if token is not None:
            self._minted.pop(token, None)

    def _index_token(self, row: Row) -> None:
        token = row.hidden.get("token")
        child = self._store.get(row.parent or "")
        if isinstance(token, str) and child is not None:
            self._minted[token] = Caller(child.owner, child.id, child.id, row.id)
            self._tokens_of_rows[row.id] = token


def _covers(conversation: str, target: Target | None) -> bool:
    if target is None:
        return False
    if target.chain == ("channel",) and target.action == "publish":
        return True
    is_theirs = bool(target.ids) and target.ids[0] == conversation
    return is_theirs and (target.kind, target.action) in _END_USER_ACTIONS


def _jwt_like(claims: Mapping[str, object]) -> str:
    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).decode().rstrip("=")

    head = part(orjson.dumps({"alg": "HS256", "typ": "JWT"}))
    return f"{head}.{part(orjson.dumps(claims))}.{part(secrets.token_bytes(32))}"
