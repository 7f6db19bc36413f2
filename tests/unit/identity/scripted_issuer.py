"""An identity provider on loopback that does what a test tells it, and its keys."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

P256 = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA_1024 = rsa.generate_private_key(public_exponent=65537, key_size=1024)
RSA_2048 = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer:
    """An identity provider on loopback that does what it is told and counts what it is asked."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(P256, "one")]
        self.headers: dict[str, str] = {}
        self.status = 200
        self.body: bytes | None = None
        self.redirect: str | None = None
        self.asked: list[str] = []
        self.claimed_issuer: str | None = None
        self.jwks_path = "/keys"
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        self.gate.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        self.arrived.set()
        await self.gate.wait()
        if request.path == "/.well-known/openid-configuration":
            issuer = self.claimed_issuer or self.url
            return web.json_response({"issuer": issuer, "jwks_uri": self.url + self.jwks_path})
        if self.redirect is not None and request.path == "/keys":
            return web.Response(status=302, headers={"Location": self.redirect})
        body = orjson.dumps({"keys": self.keys}) if self.body is None else self.body
        return web.Response(status=self.status, body=body, headers=self.headers)

    def token(self, key: Any = P256, kid: str | None = "one", alg: str = "ES256", **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": self.url, "sub": "ada", "tenant": "acme", "iat": now, "exp": now + 300} | claims
        return jwt.encode(body, key, alg, headers={"kid": kid} if kid is not None else None)


def jwk(key: Any, kid: str | None, **members: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    document = {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"} | members
    document.pop("key_ops", None) if "key_ops" not in members else None
    return {name: value for name, value in document.items() if value is not None}
