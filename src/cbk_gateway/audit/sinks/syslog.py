"""Records to a syslog receiver: RFC 5424 messages over TCP with octet counting (RFC 6587), or TLS (RFC 5425).

TCP says that bytes left, not that they arrived: what a broken connection had swallowed is sent again with
the batch it belonged to, and a receiver that dies in between may miss the batch before. Whoever needs
proof of delivery takes the HTTP sink.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Final

from cbk_gateway.audit.reading import parse
from cbk_gateway.audit.search import Record
from cbk_gateway.audit.sinks.shipper import Batch, SinkFault

_FACILITY_AUDIT: Final = 13  # "log audit", RFC 5424 section 6.2.1
_NOTICE, _WARNING = 5, 4
_ENTERPRISE: Final = "32473"  # the number reserved for documentation, RFC 5612


class SyslogSink:
    """Sends to one receiver over a connection it keeps.

    Args:
        host: Name or address of the receiver.
        port: Its port: 601 for TCP, 6514 for TLS by convention.
        tls: Given to speak TLS.
    """

    name = "syslog"

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, batch: Batch) -> None:
        """Send a batch. Raises SinkFault when the connection fails."""
        try:
            writer = await self._connected()
            for line in batch.lines:
                text = message(line, batch.worker)
                writer.write(b"%d %b" % (len(text), text))
            await writer.drain()
        except OSError as exc:
            await self.close()
            fault = f"the syslog receiver cannot be reached: {type(exc).__name__}"
            raise SinkFault(fault) from exc

    async def close(self) -> None:
        """Close the connection."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _connected(self) -> asyncio.StreamWriter:
        if self._writer is not None and self._writer.is_closing():
            await self.close()
        if self._writer is None:
            _, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        return self._writer


def message(line: bytes, worker: str) -> bytes:
    """One record as an RFC 5424 message, without framing."""
    record = Record(parse(line) or {})
    is_bad = record.kind == "refused" or record.text("result") not in {"", "answered"}
    priority = _FACILITY_AUDIT * 8 + (_WARNING if is_bad else _NOTICE)
    elements = " ".join(
        f'{name}="{_parameter(record.text(field))}"'
        for name, field in (("tenant", "tenant"), ("op", "operation"), ("req", "request_id"), ("seq", "seq"))
        if record.text(field)
    )
    structured = f'[cbkaudit@{_ENTERPRISE} worker="{_parameter(worker)}" {elements}]'
    host = _name(socket.gethostname(), 255)
    kind = _name(record.kind, 32)
    head = f"<{priority}>1 {record.time or '-'} {host} cbk-gateway - {kind} {structured} "
    return head.encode() + line.rstrip(b"\n")


def _name(text: str, limit: int) -> str:
    """A header field: printable ASCII without spaces, or the nil value (section 6)."""
    kept = "".join(char for char in text[:limit] if "!" <= char <= "~")
    return kept or "-"


def _parameter(text: str) -> str:
    """A parameter value: quotes, backslashes and closing brackets escaped (section 6.3.3)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
