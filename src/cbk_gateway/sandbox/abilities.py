"""Abilities at work: executing one, and the skill server that offers a whole skillset.

What an ability does is an echo of its input, plus the magic words of `engine`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from cbk_gateway.sandbox import engine
from cbk_gateway.sandbox.answers import JSON, Answer, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.lists import check_format, encoder
from cbk_gateway.sandbox.schema import NAME, TEXT, check_body


async def execute(call: Call) -> Answer:
    """Run one ability."""
    check_body({"input": TEXT, "contactId": NAME}, call.body)
    ability = call.item()
    check_format(call.accept)
    accept, heard = call.accept, call.body.get("input") or ""

    def run() -> JsonObject:
        spent = engine.count_tokens(heard) + 1
        call.world.ledger.spend(call.owner, "token", spent, abilityId=ability.id)
        engine.obey(call, heard)
        return {"usage": {"token": spent}, "result": {"ability": ability.body.get("name"), "input": heard}}

    if accept == JSON:
        return json_answer(run())

    async def pieces() -> AsyncGenerator[bytes, None]:
        encode = encoder(accept)
        yield encode({"type": "ping", "data": {}})
        yield encode({"type": "result", "createdAt": call.world.store.now_ms(), "data": run()})

    return Answer(content_type=accept, stream=pieces())


async def invoke(call: Call) -> Answer:
    """The skill server: its manual on GET, one of its abilities on POST."""
    server = call.item()
    skillset_id = server.body.get("skillsetId")
    rows = call.world.store.rows(call.owner, "ability").values()
    abilities = [row for row in rows if skillset_id and row.body.get("skillsetId") == skillset_id]
    if call.request.method == "GET":
        lines = [f"# {server.body.get('name') or 'Skills'}", ""]
        lines += [f"- {row.body.get('name')}: {row.body.get('description') or ''}" for row in abilities]
        manual = "\n".join(lines) + "\n"
        if JSON in call.request.headers.get("Accept", ""):
            return json_answer({"manual": manual})
        return Answer(body=manual.encode(), content_type="text/markdown; charset=utf-8")
    heard = str(call.body.get("input") or "")
    engine.obey(call, heard)
    call.world.ledger.spend(call.owner, "token", engine.count_tokens(heard) + 1)
    return json_answer({"result": {"ability": call.body.get("name"), "input": heard}})


ROUTES: Final[Routes] = {
    ("skillset/ability", True, "execute"): execute,
    ("ability", True, "execute"): execute,
    ("integration/skillserver", True, "invoke"): invoke,
}
