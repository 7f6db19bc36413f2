"""The record: which fields a line has, what they mean, and how acts and outcomes become one.

`FIELDS` documents every field in one place; the documentation and the CSV columns are made from it. A
record is one JSON object on one line, of bounded size, without the chain fields that `chain.py` adds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final

import orjson

from cbk_gateway.audit.act import Act, Outcome
from cbk_gateway.audit.redaction import Redactor
from cbk_gateway.operation import Operation, canonical_query
from cbk_gateway.operation.target import query_keys
from cbk_gateway.parties import RunAsForm

FIELDS: Final[dict[str, str]] = {
    "time": "When the record was made: UTC, RFC 3339 with microseconds. First, so that tools can cut it.",
    "kind": "intent, outcome, verdict, refused, replayed, admin, config, segment, checkpoint or seal.",
    "intent": "Name of one intent; the outcome and verdict of the same write carry it too.",
    "request_id": "The gateway's request id, as the client saw it in X-Request-Id.",
    "trace_id": "Trace id of the request (W3C Trace Context), if it was traced.",
    "tenant": "Tenant id from configuration.",
    "account": "Upstream account the tenant acts on.",
    "subject": "The token's sub claim.",
    "token_id": "The token's jti claim.",
    "issuer": "Configured name of the token's issuer.",
    "scopes": "Scopes of the token, at most 32.",
    "client": "Client address, after trusted proxies.",
    "user_agent": "The client's User-Agent, cut to 256 characters.",
    "run_as": "Child account acted as: its id, or a keyed digest of its e-mail.",
    "operation": "Bounded name of the operation: conversation.message.create.",
    "resource": "Resource type: conversation/message.",
    "action": "Action: create.",
    "effect": "read, write or stream.",
    "ids": "Path parameters by name; the rest of an unknown path's ids under `others`.",
    "method": "HTTP method.",
    "path": "Normalised path below the version prefix, as forwarded, cut to 2048 characters.",
    "query": "Names of the query's keys, sorted.",
    "query_digest": "Keyed digest of the canonical query.",
    "key_fingerprint": "Stable fingerprint of the upstream key used.",
    "key_version": "Name of that key's version.",
    "content_type": "Media type of the request body.",
    "request_bytes": "Size of the request body.",
    "request_sha256": "SHA-256 of the raw request body as the client sent it, hex.",
    "tag": "What the key `cbkGatewayWrite` holds that was added to the body's `meta`; absent without one.",
    "body": "Redacted body, where the tenant keeps bodies.",
    "digest_key": "Version of the key that made the digests in this record.",
    "result": "answered, not_sent, unknown or aborted_by_client; of a verdict happened, did_not_happen or "
    "undecidable; of an admin record that is taken back not_made.",
    "reason": "A short word: why it was refused, or not answered.",
    "status": "HTTP status the client got.",
    "upstream_status": "HTTP status of the upstream, where it differs.",
    "failure": "Error code found inside an answer whose status was 200.",
    "duration_s": "Seconds from the request's first byte to the answer's last, by a monotonic clock.",
    "answer_bytes": "Size of the answer body passed on.",
    "answer_sha256": "SHA-256 of the raw answer body, hex.",
    "answer_ids": "Ids the answer named, at most 16.",
    "answer_ids_count": "How many ids it named, where it named more than are kept.",
    "upstream_attempts": "Connections that carried the request.",
    "upstream_request_id": "Request id given by the upstream or its edge.",
    "invalidated": "Types whose cached answers were dropped; * for all.",
    "stream_end": "For streams: complete, truncated or another word.",
    "tokens": "Model tokens the answer reported.",
    "omitted": "Names of the parts left out to keep the record within its bound.",
    "what": "What a record of the gateway's own, or of its configuration, is about.",
    "first_request_id": "On replayed: the request whose answer was given again.",
    "operator": "On admin: name of the operator.",
    "change": "On admin: what was changed, such as tenant.disable.",
    "record_id": "Name of an admin record; one that takes it back, with result not_made, has it too.",
    "expires_at": "On admin: when a minted token ends, epoch seconds.",
    "issued_before": "On admin: tokens older than this were revoked, epoch seconds.",
    "note": "On admin: why, in the operator's words.",
    "revocation": "On admin: id of a revocation that was lifted.",
    "policy": "On admin: the rate that was reset; all of the tenant's when absent.",
    "quota": "On admin: the quota that was changed.",
    "amount": "On admin: how much was granted.",
    "types": "On admin: types whose cached answers were purged; all when empty.",
    "id": "On admin: the object whose cached answers alone were purged.",
    "level": "On admin: the log level from then on.",
    "before": "On admin: the log level until then.",
    "version": "On config: the gateway's version, or that of the tenants' registry.",
    "settings_sha256": "On config: SHA-256 of the settings in force, which hold references and no secrets.",
    "tenants": "On config: how many tenants there were.",
    "added": "On config: tenants that were added, at most 100 named; likewise the next two.",
    "changed": "On config: tenants that were changed.",
    "removed": "On config: tenants that were removed.",
    "batch": "On the first record of a group commit: its number since the start. All before it was synced.",
    "seq": "Number of the record in its worker's chain, from 1, without gaps.",
    "prev": "The hash of the record before it, across segments.",
    "mac": "Keyed digest of everything in front of it.",
    "sig": "Ed25519 signature, on segment, checkpoint, seal and tombstone records.",
    "hash": "SHA-256 of everything in front of it.",
}

_RESERVED: Final = frozenset({"time", "kind", "seq", "prev", "mac", "sig", "hash", "batch"})
STRUCTURE_FIELDS: Final[dict[str, str]] = {
    "worker": "Name of the chain: one per worker process.",
    "segment": "Number of the segment in its chain, from 1.",
    "key": "Id of the key that signed the record.",
    "open": "Intents without an outcome at this moment.",
    "open_from": "The earliest segment that holds one of them; recovery reads from there.",
    "format": "Version of the record format.",
    "host": "Host name of the writing process.",
    "pid": "Its process id.",
    "records": "On a seal: records in the segment, the seal included.",
    "recovers": "On a first segment after a start: the last segment of the process before.",
    "was_sealed": "Whether that process ended its chain itself.",
    "torn_bytes": "Bytes of an unfinished end that were cut off and kept in a .torn file beside the segment.",
    "torn_sha256": "Their SHA-256.",
    "lost": "Why the segment before was given up: its number, the reason, the last record that counts.",
}
"""Fields of the journal's own records: segment, checkpoint and seal."""

_NOTE_NAMES: Final = {"client_address": "client"}
_GIVES_WAY: Final = ("body", "query", "scopes", "user_agent", "answer_ids", "ids", "path")
_MOST_ANSWER_IDS: Final = 16
_ALWAYS_KEPT: Final = ("time", "kind", "intent", "request_id", "tenant", "operation", "result", "reason")
_MAX_TEXT: Final = 1024

_stamp_second = 0
_stamp_text = ""


def stamp(now_ns: int | None = None) -> str:
    """A UTC time with microseconds, RFC 3339; now unless given.

    The text of the second is remembered: making it anew would cost as much as encoding the record.
    """
    global _stamp_second, _stamp_text
    second, rest = divmod(time.time_ns() if now_ns is None else now_ns, 1_000_000_000)
    text = _stamp_text
    if second != _stamp_second or not text:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _stamp_text, _stamp_second = text, second
    return f"{text}.{rest // 1000:06d}Z"


def clip(text: str | None, limit: int) -> str | None:
    """At most `limit` characters of a text, marked where it was cut."""
    if text is None or len(text) <= limit:
        return text
    return f"{text[: limit - 1]}…"


def named_ids(operation: Operation) -> dict[str, object]:
    """The path's ids under their parameter names."""
    names = operation.route.params
    ids: dict[str, object] = {
        name: clip(one, 512) for name, one in zip(names, operation.ids, strict=False) if name != "others"
    }
    beyond = operation.ids[len(names) :]
    if beyond:
        ids["others"] = [clip(one, 128) for one in beyond[:8]]
    return ids


class RecordFormat:
    """Makes record bodies: JSON objects without chain fields.

    Args:
        redactor: Decides what of a body is kept.
        max_bytes: Bound of a body; a little room for the chain fields is kept beside it.
        key_version: Version of the digest key, noted beside digests.
    """

    __slots__ = ("_key_version", "_max_bytes", "_redactor")

    def __init__(self, redactor: Redactor, *, max_bytes: int, key_version: str) -> None:
        self._redactor = redactor
        self._max_bytes = max_bytes - 480
        self._key_version = key_version

    def intent(self, act: Act, intent: str) -> bytes:
        """The record of a write that is about to be sent."""
        operation = act.operation
        route = operation.route
        fields: dict[str, object] = {
            "time": stamp(),
            "kind": "intent",
            "intent": intent,
            "request_id": clip(act.request_id, 128),
            "tenant": act.tenant,
            "subject": clip(act.subject, 256),
            "token_id": clip(act.token_id, 128),
            "issuer": act.issuer,
            "scopes": [clip(one, 128) for one in act.scopes[:32]],
            "client": act.client_address,
            "user_agent": clip(act.user_agent, 256),
            "operation": route.audit_name,
            "resource": route.resource,
            "action": route.action,
            "effect": route.effect.value,
            "ids": named_ids(operation),
            "method": act.method or operation.method,
            "path": clip(act.path or operation.path, 2048),
            "account": act.account,
            "key_fingerprint": act.key_fingerprint,
        }
        if act.key_version is not None:
            fields["key_version"] = act.key_version
        if act.trace_id is not None:
            fields["trace_id"] = clip(act.trace_id, 64)
        if act.content_type is not None:
            fields["content_type"] = clip(act.content_type, 128)
        if act.body_bytes is not None:
            fields["request_bytes"] = act.body_bytes
        if act.body_sha256 is not None:
            fields["request_sha256"] = act.body_sha256
        if act.tag is not None:
            fields["tag"] = act.tag
        if act.run_as is not None or operation.query or act.body is not None:
            self._add_digested(fields, act)
        return self._encode(fields)

    def outcome(self, origin: Mapping[str, object], outcome: Outcome) -> bytes:
        """The record of how an intent ended; `origin` names the intent and what it was."""
        fields: dict[str, object] = {
            "time": stamp(),
            "kind": "outcome",
            **origin,
            "result": str(outcome.result),
            "status": outcome.status,
            "duration_s": None if outcome.duration_s is None else round(outcome.duration_s, 6),
        }
        for name, value in zip(_PLAIN_OUTCOME_FIELDS, _PLAIN_OUTCOME(outcome), strict=True):
            if value is not None:
                fields[name] = clip(value, 256) if type(value) is str else value
        if outcome.answer_ids:
            fields |= told_ids(outcome.answer_ids, outcome.answer_ids_count)
        if outcome.invalidated:
            fields["invalidated"] = sorted(outcome.invalidated)[:64]
        if outcome.body is not None:
            tenant, resource = str(origin.get("tenant", "")), str(origin.get("resource", ""))
            fields["body"] = self._redactor.body(tenant, resource, outcome.body)
            fields["digest_key"] = self._key_version
        return self._encode(fields)

    def note(self, kind: str, details: Mapping[str, object]) -> bytes:
        """A record that belongs to no intent: a refusal, an administrative act, a configuration change."""
        own = {_NOTE_NAMES.get(name, name): value for name, value in details.items() if name not in _RESERVED}
        return self._encode({"time": stamp(), "kind": kind, **own})

    def _add_digested(self, fields: dict[str, object], act: Act) -> None:
        operation = act.operation
        if act.run_as is not None:
            by_email = act.run_as.form is RunAsForm.CHILD_EMAIL
            value = act.run_as.value
            fields["run_as"] = self._redactor.digest(act.tenant, value) if by_email else clip(value, 256)
        if operation.query:
            fields["query"] = [clip(key, 64) for key in sorted(set(query_keys(operation.query)))[:32]]
            fields["query_digest"] = self._redactor.digest(act.tenant, canonical_query(operation.query))
        if act.body is not None:
            fields["body"] = self._redactor.body(act.tenant, operation.resource, act.body)
        fields["digest_key"] = self._key_version

    def _encode(self, fields: dict[str, object]) -> bytes:
        if None in fields.values():
            for unknown in _MAY_BE_UNKNOWN:
                if unknown in fields and fields[unknown] is None:
                    del fields[unknown]
        if None in fields.values():
            fields = {name: value for name, value in fields.items() if value is not None}
        body = encode(fields)
        if len(body) <= self._max_bytes:
            return body
        omitted: list[str] = []
        for name in _GIVES_WAY:
            if fields.pop(name, None) is not None:
                omitted.append(name)
                body = encode({**fields, "omitted": omitted})
                if len(body) <= self._max_bytes:
                    return body
        kept: dict[str, object] = {name: fields[name] for name in _ALWAYS_KEPT if name in fields}
        kept["omitted"] = ["everything else"]
        return encode(kept)


_PLAIN_OUTCOME_FIELDS: Final = (
    "failure",
    "reason",
    "request_bytes",
    "answer_bytes",
    "request_sha256",
    "answer_sha256",
    "upstream_attempts",
    "upstream_status",
    "upstream_request_id",
    "stream_end",
    "tokens",
)
_PLAIN_OUTCOME: Final = attrgetter(*_PLAIN_OUTCOME_FIELDS)
_MAY_BE_UNKNOWN: Final = ("subject", "token_id", "issuer", "client", "user_agent", "status", "duration_s")
"""Fields without which records are common, so that the others need not be looked through."""


def told_ids(ids: Sequence[str], count: int = 0) -> dict[str, object]:
    """What a record says of the ids that an answer named.

    Args:
        ids: At least the first of them.
        count: How many there were, where `ids` may not be all.
    """
    shown = ids[:_MOST_ANSWER_IDS]
    told: dict[str, object] = {
        "answer_ids": [clip(one, 256) for one in shown] if max(map(len, shown), default=0) > 256 else shown
    }
    count = max(count, len(ids))
    return {**told, "answer_ids_count": count} if count > _MOST_ANSWER_IDS else told


def encode(fields: Mapping[str, object]) -> bytes:
    """One JSON object.

    Texts that are not Unicode (lone surrogates) and values JSON lacks are spelled out rather than refused,
    because a record must always come about.
    """
    try:
        return orjson.dumps(fields)
    except TypeError:
        return orjson.dumps(_plain_value(fields))


def _plain_value(value: object, depth: int = 0) -> object:
    if isinstance(value, str):
        return clip(value, _MAX_TEXT * 4).encode("utf-8", "backslashreplace").decode()  # type: ignore[union-attr]  # a text goes in, a text comes out
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if depth > 8:
        return "…"
    if isinstance(value, Mapping):
        return {str(_plain_value(str(k))): _plain_value(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain_value(one, depth + 1) for one in value]
    return _plain_value(clip(str(value), _MAX_TEXT))
