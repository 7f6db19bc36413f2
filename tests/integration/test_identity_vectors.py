"""The signature vectors through a whole gateway: what is refused gets 401, and nothing of it goes up."""

from __future__ import annotations

import time
from pathlib import Path

from cbk_gateway.store import Store
from harness import running
from integration.identity_calls import exchange
from unit.identity.forge import Forge
from unit.identity.test_vectors import PUBLIC_KINDS, all_vectors, public_keys
from unit.identity.vectors import HMAC_KEY


async def test_every_vector_gets_its_verdict_over_http(tmp_path: Path, valkey_url: str, store: Store) -> None:
    forge = Forge()
    keys = []
    for kid, pem in public_keys(forge).items():
        (tmp_path / f"{kid}.pem").write_text(pem)
        keys.append({"kid": kid, "alg": kid.partition("-")[0], "key": f"file:{kid}.pem"})
    (tmp_path / "shared").write_text(HMAC_KEY)
    shared = [{"kid": "HS256-a", "alg": "HS256", "key": "file:shared"}]
    issuers = [
        {"name": "vectors", "issuer": "vectors", "algorithms": list(PUBLIC_KINDS), "keys": keys},
        {"name": "shared", "issuer": "vectors-shared", "algorithms": ["HS256"], "keys": shared},
    ]
    vectors = all_vectors(forge, time.time())
    async with running(tmp_path, valkey_url, identity={"issuers": issuers}) as stage:
        wrong = {}
        for vector in sorted(vectors, key=lambda one: one.is_valid):
            if vector.is_valid:
                # The refused ones stand first: until the first good one comes, nothing may have gone up.
                break
            status, answer = await exchange(stage, f"Authorization: Bearer {vector.token}")
            if status != 401 or "WWW-Authenticate: Bearer" not in answer:
                wrong[vector.name] = status
        assert wrong == {}
        assert [one for one in stage.sandbox.requests if one.method != "HEAD"] == []
        good = [vector for vector in vectors if vector.is_valid]
        statuses = {
            vector.name: (await exchange(stage, f"Authorization: Bearer {vector.token}"))[0]
            for vector in good
        }
        assert set(statuses.values()) == {200}, statuses
        assert len(good) > 12
