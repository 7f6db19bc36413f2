"""Where the work of a request goes: what the interpreter executes, counted.

    PYTHONPATH=tests python -m benchmarks.profiling [--requests N] [--only WORDS] [--write]

Counts are bytecode instructions and calls, which other work on the machine cannot move; seconds can be moved
by anything. Only the gateway's own thread is counted: its client is another thread, its upstream and its
store are other processes. `--write` keeps the summary beside the code. Work done in C counts as one call, so
the shares are of Python code; `make bench` says what a request costs in all.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from urllib.parse import urlsplit

import uvloop
import yaml

from benchmarks import contestants, gateway_process
from benchmarks.ladder import BYPASS, LIST
from cbk_gateway.app import Gateway
from cbk_gateway.settings.load import load
from cbk_gateway.telemetry import configure_logging

SUMMARY = Path(__file__).parent / "PROFILE.md"
_TOP = 14
_WARM = 60
_STANDSTILL_S = 0.05
# A limit that refuses lets one through now and then.
_MOSTLY = 0.9
_LIBRARIES = "site-packages"


@dataclass(slots=True)
class Counts:
    """What ran between two moments, by function.

    Attributes:
        opcodes: Bytecode instructions.
        calls: Times it was entered, goings-on of coroutines included.
        c_calls: Calls of functions in C that it made.
    """

    opcodes: Counter[CodeType] = field(default_factory=Counter)
    calls: Counter[CodeType] = field(default_factory=Counter)
    c_calls: Counter[CodeType] = field(default_factory=Counter)

    def begin(self) -> None:
        """Count what this thread does from now on."""
        sys.setprofile(self._profile)
        sys.settrace(self._trace)

    def end(self) -> None:
        """Count no more."""
        sys.settrace(None)
        sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        del event, argument
        if frame.f_code.co_filename == __file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.calls[frame.f_code] += 1
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        del argument
        if event == "opcode":
            self.opcodes[frame.f_code] += 1
        return self._instruction

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        del argument
        if event == "c_call" and frame.f_code.co_filename != __file__:
            self.c_calls[frame.f_code] += 1


class Client:
    """One connection that sends requests made of a template; blocking, for a thread of its own."""

    def __init__(self, url: str, template: str) -> None:
        parts = urlsplit(url)
        self.statuses: Counter[bytes] = Counter()
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
        self._template = template.replace("{host}", parts.netloc)
        self._number = 0

    def ask(self, count: int) -> None:
        """Send so many requests, each after the answer to the one before.

        Raises:
            RuntimeError: An answer broke off.
        """
        for _ in range(count):
            self._number += 1
            self._socket.sendall(self._template.replace("{n}", f"{self._number:06d}").encode())
            have = b""
            while not (end := have.find(b"\r\n\r\n")) > 0 or len(have) < end + 4 + _length(have[:end]):
                came = self._socket.recv(65_536)
                have += came
                if not came:
                    message = f"an answer in the profile broke off: {have[:200]!r}"
                    raise RuntimeError(message)
            self.statuses[have[9:12]] += 1

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of request, the gateway that is asked, and the status that nearly every answer must have.

    Without a tenant, its token is not to be trusted.
    """

    name: str
    tenant: str
    line: str
    headers: str = ""
    body: str = ""
    changes: tuple[str, ...] = ()
    status: int = 200

    def template(self, token: str) -> str:
        """The request's text; `{n}` is another number each time."""
        kind = (
            f"Content-Type: application/json\r\nContent-Length: {len(self.body) + 3}\r\n" if self.body else ""
        )
        head = f"{self.line} HTTP/1.1\r\nHost: {{host}}\r\nAuthorization: Bearer {token}\r\n"
        return f"{head}{self.headers}{kind}\r\n{self.body}"


_FULL = ("listen.hot_path=off",)
_LOGGED = ("logging.access=true",)
CASES = (
    Case("cached, known by its bytes", "wide", f"GET {LIST}"),
    Case("forwarded, known by its bytes", "wide", f"GET {LIST}", f"{BYPASS}\r\n"),
    Case("cached, known by its bytes, with its line in the log", "wide", f"GET {LIST}", changes=_LOGGED),
    Case("refused by a rate, known by its bytes", "narrow", f"GET {LIST}", status=429),
    Case("bad token, known by its bytes", "", f"GET {LIST}", status=401),
    Case("cached, full path", "wide", f"GET {LIST}", changes=_FULL),
    Case("forwarded, full path", "reader", f"GET {LIST}?cursor=c{{n}}", f"{BYPASS}\r\n", changes=_FULL),
    Case("miss", "reader", f"GET {LIST}?cursor=m{{n}}"),
    Case("write, audited", "writer", "POST /api/v1/bot/create", body='{"name":"n{n}"}'),
)


async def counted(case: Case, requests: int) -> Counts:
    """Run one kind of request in a gateway of its own, and count."""
    (port,) = contestants.free_ports(1)
    with contestants.upstream(port), tempfile.TemporaryDirectory(prefix="cbkgw-profile-") as name:
        settings = Path(name) / "gateway.yaml"
        settings.write_text(yaml.safe_dump(gateway_process.settings(port, list(case.changes))))
        loaded = load(settings, environ={"KEY": gateway_process.SIGNING_KEY})
        async with Gateway(loaded, tenants=gateway_process.tenants()) as gateway:
            if gateway.minter is None:
                message = "these settings name no issuer"
                raise RuntimeError(message)
            while not gateway.parts.cache.is_live:
                await asyncio.sleep(0.05)
            token = (
                gateway.minter.mint(case.tenant, "bench", ("*",), 3600) if case.tenant else "no.such.token"
            )
            client = await asyncio.to_thread(Client, gateway.url, case.template(token))
            try:
                # A limit is leased, and a head known, only after some requests.
                await asyncio.to_thread(client.ask, _WARM)
                counts = Counts()
                _slow_down(gateway)
                client.statuses.clear()
                counts.begin()
                try:
                    await asyncio.to_thread(client.ask, requests)
                finally:
                    counts.end()
                if client.statuses[str(case.status).encode()] < requests * _MOSTLY:
                    message = f"answers in the profile of {case.name} were {dict(client.statuses)}"
                    raise RuntimeError(message)
            finally:
                client.close()
    return counts


def _slow_down(gateway: Gateway) -> None:
    """Let the hot path's clock stand still for moments: what is counted takes longer, and slow requests are
    told of one by one, which the usual ones are not. It goes before the other clocks, never after them.
    """
    hot_path = gateway.parts.hot_path
    if hot_path is not None:
        clock = hot_path._now
        hot_path._now = lambda: math.ceil(clock() / _STANDSTILL_S) * _STANDSTILL_S
        hot_path.refusals._now = hot_path._now


def section(case: Case, counts: Counts, requests: int) -> str:
    """One case, as Markdown."""
    whole = counts.opcodes.total()
    sums = [part.total() / requests for part in (counts.opcodes, counts.calls, counts.c_calls)]
    told = "{:,.0f} instructions, {:,.1f} calls of Python functions and {:,.1f} of C functions per request."
    lines = [
        f"## {case.name[0].upper()}{case.name[1:]}",
        "",
        f"{told.format(*sums)} {_share_by_owner(counts)}",
        "",
        "| function | calls | C calls | instructions | share |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code, opcodes in counts.opcodes.most_common(_TOP):
        if opcodes < whole / 200:
            break
        calls, c_calls = counts.calls[code] / requests, counts.c_calls[code] / requests
        lines.append(
            f"| `{_title(code)}` | {calls:.1f} | {c_calls:.1f} | {opcodes / requests:,.0f} "
            f"| {opcodes / whole:.0%} |"
        )
    return "\n".join([*lines, ""])


def _owner(code: CodeType) -> str:
    path = Path(code.co_filename)
    if "cbk_gateway" in path.parts:
        after = path.parts[len(path.parts) - path.parts[::-1].index("cbk_gateway") :]
        return after[0].removesuffix(".py")
    if _LIBRARIES in path.parts:
        return path.parts[path.parts.index(_LIBRARIES) + 1].removesuffix(".py")
    return "Python's library"


def _title(code: CodeType) -> str:
    return f"{_owner(code)}: {code.co_qualname}"


def _share_by_owner(counts: Counts) -> str:
    owners: Counter[str] = Counter()
    for code, opcodes in counts.opcodes.items():
        owners[_owner(code)] += opcodes
    whole = owners.total()
    told = ", ".join(f"{name} {part / whole:.0%}" for name, part in owners.most_common(6))
    return f"By package: {told}."


def summary(found: dict[Case, Counts], requests: int) -> str:
    """All cases, as Markdown."""
    head = [
        "# Where the work of a request goes",
        "",
        "Written by `python -m benchmarks.profiling --write`: what CPython executes in the gateway's",
        f"thread per request, counted over {requests} requests of one connection after {_WARM} to warm up.",
        "Everything is on (limits, metrics, journal), the access log only where that is said. Instructions",
        "are those of its bytecode; work in C (the parser, the loop, hashes) counts as calls only. Equal",
        "code gives equal counts, but for what the gateway does by itself meanwhile.",
        "",
        "| work | instructions | Python calls | C calls |",
        "| --- | --- | --- | --- |",
    ]
    for case, counts in found.items():
        totals = (counts.opcodes.total(), counts.calls.total(), counts.c_calls.total())
        cells = " | ".join(f"{total / requests:,.0f}" for total in totals)
        head.append(f"| {case.name} | {cells} |")
    return "\n".join([*head, "", *(section(case, counts, requests) for case, counts in found.items())])


def _run(main: Coroutine[Any, Any, Counts]) -> Counts:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def main() -> int:
    """Count, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="benchmarks.profiling")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--only", default="", help="count only the kinds of request with this in their name")
    parser.add_argument("--write", action="store_true", help="keep the summary beside the code")
    asked = parser.parse_args()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        configure_logging("info", "json", nowhere)
        found = {case: _run(counted(case, asked.requests)) for case in CASES if asked.only in case.name}
    text = summary(found, asked.requests)
    sys.stdout.write(text)
    if asked.write and not asked.only:
        SUMMARY.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
