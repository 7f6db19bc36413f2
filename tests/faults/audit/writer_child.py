"""A process that runs a journal under load, or on command, for the suites that kill it or spoil its disk.

Run as a program: `writer_child.py load|serve DIRECTORY OPTIONS`. `load` writes the request id of
every act to standard output once its intent is durable, as an upstream would see the request then, and
goes on until it is killed. `serve` does what standard input says, a line at a time, and answers in JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import orjson
import structlog

from cbk_gateway.audit import Act, Intent, Journal, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.errors import AuditUnavailable
from cbk_gateway.operation import understand

OPERATION = understand("POST", "/api/v1/bot/b1/update")
DIGEST_KEY = b"the key of the fault suites....."


def options_for(directory: Path, **others: object) -> JournalOptions:
    """The options of every journal in these suites."""
    given: dict[str, object] = {"reserve_bytes": 0, "reserve_inodes": 0, **others}
    return JournalOptions(directory, DIGEST_KEY, **given)  # type: ignore[arg-type]  # from the command line


def act(request_id: str) -> Act:
    """A write like many."""
    return Act(request_id=request_id, tenant="acme", subject="app", operation=OPERATION)


async def load(journal: Journal, tasks: int) -> None:
    """Write for ever, `tasks` at a time; every fifth act stays open for a while."""
    run = f"{os.getpid()}-{time.time_ns()}"
    opened: list[Intent] = []

    async def one(task: int) -> None:
        count = 0
        while True:
            count += 1
            request_id = f"{run}-{task}-{count}"
            intent = await journal.intend(act(request_id))
            os.write(1, request_id.encode() + b"\n")
            if count % 5:
                intent.close(Outcome(Result.ANSWERED, status=200))
            else:
                opened.append(intent)
                if len(opened) > 40:
                    opened.pop(0).close(Outcome(Result.ANSWERED, status=200))

    await asyncio.gather(*(one(task) for task in range(tasks)))


async def serve(journal: Journal) -> None:
    """Obey: `intend ID`, `close ID`, `change`, `flush`, `state`; the end of the input stops the journal."""
    intents: dict[str, Intent] = {}
    loop = asyncio.get_running_loop()
    answer({"ready": True})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, request_id = line.strip().partition(" ")
        try:
            if word == "intend":
                intents[request_id] = await journal.intend(act(request_id))
            elif word == "close":
                intents[request_id].close(Outcome(Result.ANSWERED, status=200))
            elif word == "change":
                await journal.record("admin", {"change": "cache.purge"})
            elif word == "flush":
                await journal.flushed()
            answer({"refused": None, "trouble": journal.trouble, "segment": journal.position[0]})
        except AuditUnavailable as refusal:
            answer({"refused": refusal.reason, "trouble": journal.trouble, "segment": journal.position[0]})
    await journal.stop()
    answer({"stopped": True})


def answer(document: dict[str, object]) -> None:
    """One line of JSON to whoever commands."""
    os.write(1, orjson.dumps(document) + b"\n")


async def main(what: str, directory: str, settings: str) -> None:
    """Start the journal and do what was asked."""
    # Standard output speaks to the test alone.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    given = orjson.loads(settings)
    tasks = given.pop("tasks", 8)
    journal = Journal(options_for(Path(directory), **given), SilentObserver(), "w0")
    await journal.start()
    await (load(journal, tasks) if what == "load" else serve(journal))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
