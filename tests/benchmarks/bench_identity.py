"""What identity costs: CPU per verification, memory under a flood, revocation between processes.

Run `python tests/benchmarks/bench_identity.py`. CPU is this process's own (`time.process_time`), so a busy
machine disturbs it little; each figure is the best of five rounds. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity import Identity, IdentityOptions, Minter, MinterOptions, SigningKey
from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, StoreOptions, open_store

ROUNDS: Final = 5
TOKENS: Final = 400
SECRET: Final = "a secret for benchmarks only, 32 bytes or more"
SCOPES: Final = ["bot:fetch", "conversation/message:*", "*:read"]


def show(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def signing_key(alg: str) -> SigningKey:
    """A fresh key for `alg`."""
    if alg.startswith("HS"):
        return SigningKey("k", alg, Secret(SECRET))
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if alg == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    elif alg == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return SigningKey("k", alg, Secret(pem))


def new_identity(minter: Minter) -> Identity:
    """An identity that trusts `minter` and remembers nothing yet."""
    return Identity(IdentityOptions((minter.issuer_options("gw"),)))


async def best_us(work: Callable[[], Awaitable[int]]) -> float:
    """Microseconds of CPU per item; `work` tells how many items it did."""
    found: list[float] = []
    for _ in range(ROUNDS):
        began = time.process_time()
        items = await work()
        found.append((time.process_time() - began) / items * 1e6)
    return min(found)


async def remembered(minter: Minter) -> float:
    """The fast path: `identify_now` of a token seen before."""
    identity = new_identity(minter)
    value = "Bearer " + minter.mint("acme", "ada", SCOPES, 600)
    await identity.identify([value])

    async def work() -> int:
        identify_now = identity.identify_now
        for _ in range(100_000):
            identify_now(value)
        return 100_000

    return await best_us(work)


async def verified(minter: Minter, values: list[str]) -> float:
    """The slow path: `identify` of tokens never seen, accepted or refused."""

    async def work() -> int:
        identity = new_identity(minter)
        for value in values:
            with contextlib.suppress(NotAuthenticated):
                await identity.identify([value])
        return len(values)

    return await best_us(work)


def good(minter: Minter, count: int = TOKENS) -> list[str]:
    """Header values with tokens that will be accepted."""
    return ["Bearer " + minter.mint("acme", "ada", SCOPES, 600) for _ in range(count)]


def forged(values: list[str]) -> list[str]:
    """The same with each other's signatures."""
    cut = [value.rpartition(".") for value in values]
    return [f"{one[0]}.{other[2]}" for one, other in zip(cut, [*cut[1:], cut[0]], strict=True)]


async def first_sights() -> None:
    """Print the cost of tokens seen for the first time, good and bad."""
    show(f"\n{'first sight, us of CPU':30} {'good':>8} {'forged':>8} {'expired':>8} {'audience':>8}")
    for alg in ("HS256", "HS512", "ES256", "RS256", "PS256", "EdDSA"):
        options = MinterOptions("gw", signing_key(alg), audience="door")
        minter = Minter(options)
        values = good(minter)
        stale = good(Minter(options, lambda: time.time() - 7200))
        elsewhere = good(Minter(replace(options, audience="window")))
        figures = [await verified(minter, each) for each in (values, forged(values), stale, elsewhere)]
        show(f"{alg:30} " + " ".join(f"{figure:8.1f}" for figure in figures))


async def cheap_refusals() -> None:
    """Print the cost of what is refused before any signature is checked."""
    minter = Minter(MinterOptions("gw", signing_key("HS256")))
    stranger = good(Minter(MinterOptions("elsewhere", signing_key("HS256"))))
    cases = {
        "unknown issuer": stranger,
        "not a token": ["Bearer hello"] * TOKENS,
        "for comparison: 7 KiB, good": [
            "Bearer " + minter.mint("acme", "ada", SCOPES, 600, extra={"pad": "x" * 5000})
            for _ in range(TOKENS)
        ],
        "8 KiB of brackets": ["Bearer e30." + "W1tb" * 2000 + ".AA"] * TOKENS,
        "too long": ["Bearer " + "a" * 8193] * TOKENS,
        "two headers' text": ["Bearer a, Bearer b"] * TOKENS,
    }
    show(f"\n{'refused before the signature':30} {'us':>8}")
    for name, values in cases.items():
        show(f"{name:30} {await verified(minter, values):8.1f}")


async def flood(minter: Minter, count: int = 20_000) -> None:
    """Print what a flood of distinct forged tokens leaves in memory."""
    identity = new_identity(minter)
    template = minter.mint("acme", "ada", SCOPES, 600).rpartition(".")[0]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(count):
        with contextlib.suppress(NotAuthenticated):
            await identity.identify([f"Bearer {template}.{number:08d}"])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    show(f"\nflood of {count} distinct forged tokens: {after - before:+d} bytes kept, {identity!r}")


async def follow(url: str) -> None:
    """The second process: tells when each token it is given stops being accepted."""
    minter = Minter(MinterOptions("gw", SigningKey("k", "HS256", Secret(SECRET))))
    async with await open_store(StoreOptions(url=url)) as store:
        identity = Identity(IdentityOptions((minter.issuer_options("gw"),)), store)
        await identity.start()
        revoked = asyncio.Event()
        identity.on_revoked(lambda _: revoked.set())
        for line in iter(sys.stdin.readline, ""):
            revoked.clear()
            value = line.strip()
            await identity.identify([value])
            sys.stderr.write("remembered\n")
            await revoked.wait()
            refused = identity.identify_now(value) is None
            sys.stderr.write(f"{time.time() if refused else -1}\n")
        await identity.stop()


async def between_processes(rounds: int = 50) -> None:
    """Print how long another process goes on accepting a remembered token after `revoke` was called."""
    minter = Minter(MinterOptions("gw", SigningKey("k", "HS256", Secret(SECRET))))
    server = EmbeddedServer()
    await asyncio.to_thread(server.start)
    try:
        async with await open_store(StoreOptions(url=server.url)) as store:
            other = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--follow", server.url),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            if other.stdin is None or other.stderr is None:
                raise RuntimeError("no pipes to the second process")
            identity = Identity(IdentityOptions((minter.issuer_options("gw"),)), store)
            took_ms: list[float] = []
            for _ in range(rounds):
                minted = minter.issue("acme", "ada", SCOPES, 600)
                other.stdin.write(f"Bearer {minted.token.reveal()}\n".encode())
                await other.stderr.readline()
                began = time.time()
                await identity.revoke(token_id=minted.token_id)
                took_ms.append((float(await other.stderr.readline()) - began) * 1000)
            other.stdin.close()
            await other.wait()
    finally:
        await asyncio.to_thread(server.stop)
    show(
        f"\nrevocation until refused in another process, {rounds} times: "
        f"median {statistics.median(took_ms):.1f} ms, worst {max(took_ms):.1f} ms"
    )


async def main() -> None:
    """Run everything."""
    minter = Minter(MinterOptions("gw", signing_key("HS256")))
    show(f"remembered token, us of CPU: {await remembered(minter):.2f}")
    await first_sights()
    await cheap_refusals()
    await flood(minter)
    await between_processes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--follow", metavar="URL", help="be the second process, on this store")
    chosen = parser.parse_args()
    asyncio.run(follow(chosen.follow) if chosen.follow else main())
