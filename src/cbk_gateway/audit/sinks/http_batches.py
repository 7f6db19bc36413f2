"""Records over HTTP: signed batches of JSON lines, and OpenTelemetry logs (OTLP/HTTP with JSON).

One POST per batch; any 2xx takes it. Redirects are not followed, because a batch must not end up where
nobody configured it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import aiohttp
import orjson

from cbk_gateway import __version__
from cbk_gateway.audit.reading import parse
from cbk_gateway.audit.search import Record
from cbk_gateway.audit.signing import SigningKey
from cbk_gateway.audit.sinks.shipper import Batch, SinkFault
from cbk_gateway.secret import Secret

BATCH_DOMAIN: Final = b"cbk-gateway audit batch\0"
_SEVERITY_INFO, _SEVERITY_WARN = 9, 13  # OTLP logs data model, severity numbers


class HttpSink:
    """Posts JSON lines with an Ed25519 signature.

    The receiver checks `X-CBK-Audit-Signature` (hex) over the domain text, the batch id, a zero byte and
    the body, with the public key named by `X-CBK-Audit-Key`.

    Args:
        url: Where to.
        key: Signs the batches.
        token: Sent as a bearer token, if given.
    """

    name = "http"

    def __init__(self, url: str, key: SigningKey, *, token: Secret | None = None) -> None:
        self._url = url
        self._key = key
        self._post = _Post(url, token)

    async def send(self, batch: Batch) -> None:
        """Post a batch. Raises SinkFault on anything but a 2xx answer."""
        body = b"".join(batch.lines)
        signature = self._key.sign(BATCH_DOMAIN + batch.id.encode() + b"\0" + body).hex()
        headers = {
            "Content-Type": "application/x-ndjson",
            "X-CBK-Audit-Batch": batch.id,
            "X-CBK-Audit-Key": self._key.key_id,
            "X-CBK-Audit-Signature": signature,
        }
        await self._post(body, headers)

    async def close(self) -> None:
        """Close the connection pool."""
        await self._post.close()


class OtlpSink:
    """Posts OTLP log records, one per journal record.

    Args:
        url: The collector's logs address, usually ending in `/v1/logs`.
        token: Sent as a bearer token, if given.
        resource: Attributes of the sender, beside `service.name`.
    """

    name = "otlp"

    def __init__(
        self, url: str, *, token: Secret | None = None, resource: Mapping[str, str] | None = None
    ) -> None:
        self._post = _Post(url, token)
        self._resource = {"service.name": "cbk-gateway", "service.version": __version__, **(resource or {})}

    async def send(self, batch: Batch) -> None:
        """Post a batch. Raises SinkFault on anything but a 2xx answer."""
        await self._post(orjson.dumps(self.document(batch)), {"Content-Type": "application/json"})

    async def close(self) -> None:
        """Close the connection pool."""
        await self._post.close()

    def document(self, batch: Batch) -> dict[str, object]:
        """A batch as an ExportLogsServiceRequest in OTLP's JSON form."""
        scope = {"name": "cbk_gateway.audit", "version": __version__}
        records = [_log_record(line, batch.worker) for line in batch.lines]
        return {
            "resourceLogs": [
                {
                    "resource": {"attributes": [_attribute(*pair) for pair in self._resource.items()]},
                    "scopeLogs": [{"scope": scope, "logRecords": records}],
                }
            ]
        }


class _Post:
    """One session to one address, opened on first use so that it belongs to the running loop."""

    def __init__(self, url: str, token: Secret | None) -> None:
        self._url = url
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, body: bytes, headers: dict[str, str]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if not 200 <= answer.status < 300:
                    message = f"the receiver answered {answer.status}"
                    raise SinkFault(message)
        except (aiohttp.ClientError, OSError) as exc:
            message = f"the receiver cannot be reached: {type(exc).__name__}"
            raise SinkFault(message) from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _log_record(line: bytes, worker: str) -> dict[str, object]:
    record = Record(parse(line) or {})
    is_bad = record.kind == "refused" or record.text("result") not in {"", "answered"}
    found: dict[str, object] = {
        "timeUnixNano": str(_nanoseconds(record.time)),
        "severityNumber": _SEVERITY_WARN if is_bad else _SEVERITY_INFO,
        "severityText": "WARN" if is_bad else "INFO",
        "body": {"stringValue": line.rstrip(b"\n").decode("utf-8", "replace")},
        "attributes": [
            _attribute(f"cbk.audit.{name}", record.text(name))
            for name in ("kind", "request_id", "tenant", "subject", "operation", "result", "seq", "hash")
            if record.text(name)
        ]
        + [_attribute("cbk.audit.worker", worker)],
    }
    if len(record.text("trace_id")) == 32:
        found["traceId"] = record.text("trace_id")
    return found


def _attribute(name: str, value: str) -> dict[str, object]:
    return {"key": name, "value": {"stringValue": value}}


def _nanoseconds(time: str) -> int:
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return 0
    whole = moment.astimezone(UTC).replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
