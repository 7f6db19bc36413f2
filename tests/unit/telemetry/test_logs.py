"""Log lines: what is in them, who gets them, what never gets out."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import subprocess
import sys
from typing import Any

import orjson
import pytest
import structlog

from cbk_gateway.secret import Secret
from cbk_gateway.telemetry import logs
from cbk_gateway.telemetry.logs import change_level, configure_logging, current_level, flush_logs
from cbk_gateway.telemetry.request_id import current_request_id
from cbk_gateway.telemetry.traceparent import current_trace_id

KEY = "sk-" + "0123456789abcdef" * 4
MADE_BEFORE = structlog.get_logger("made.before")


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    assert flush_logs(20)
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_event_first() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger("cbk_gateway.cache").info("feed_lost", after_s=1.5)
    [line] = lines_of(stream)
    assert list(line)[:3] == ["time", "level", "event"]
    assert line["time"].endswith("Z")
    assert {key: line[key] for key in ("level", "event", "logger", "after_s")} == {
        "level": "info",
        "event": "feed_lost",
        "logger": "cbk_gateway.cache",
        "after_s": 1.5,
    }


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_written_the_short_way_is_as_any_other(form: logs.Form) -> None:
    stream = io.StringIO()
    configure_logging("info", form, stream)
    fields: dict[str, object] = {"status": 200, "path": "/bot/list", "total_ms": 1.25}
    logs.write_line("info", "cbk_gateway.some", "request", fields)
    logs.write_line("debug", "cbk_gateway.some", "request", fields)
    structlog.get_logger("cbk_gateway.some").info("request", **fields)
    assert flush_logs(20)
    short, usual = (
        re.sub(r"\d+-\d+-\d+T\d+:\d+:\d+\.\d+Z", "TIME", one) for one in stream.getvalue().splitlines()
    )
    assert short == usual
    assert "TIME" in short


def test_a_logger_used_under_an_older_configuration_follows_the_new_one() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", "json", first)
    MADE_BEFORE.info("one")
    assert len(lines_of(first)) == 1
    configure_logging("info", "json", second)
    MADE_BEFORE.info("two")
    assert [line["event"] for line in lines_of(second)] == ["two"]
    assert len(first.getvalue().splitlines()) == 1


def test_the_level_can_be_changed_while_running() -> None:
    stream = io.StringIO()
    configure_logging("warning", "json", stream)
    log = structlog.get_logger("x")
    log.info("hidden")
    change_level("debug")
    log.debug("shown")
    logging.getLogger("foreign").debug("shown too")
    change_level("error")
    log.warning("hidden")
    assert [line["event"] for line in lines_of(stream)] == ["shown", "shown too"]
    assert current_level() == "error"


@pytest.mark.parametrize("level", ["", "loud", "10"])
def test_a_level_that_does_not_exist_is_refused(level: str) -> None:
    with pytest.raises(ValueError, match="is not one of debug, info"):
        configure_logging(level)
    with pytest.raises(ValueError, match="is not one of debug, info"):
        change_level(level)


def test_a_form_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="is not one of json, console, auto"):
        configure_logging("info", "xml")  # type: ignore[arg-type]  # what a settings file may hold


async def test_a_line_shows_the_request_and_trace_of_its_task_only() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    log = structlog.get_logger("x")

    async def serve(request_id: str) -> None:
        current_request_id.set(request_id)
        current_trace_id.set("trace-of-" + request_id)
        await asyncio.sleep(0)
        log.info("served", expected=request_id)

    await asyncio.gather(serve("one"), serve("two"))
    log.info("idle")
    *served, idle = lines_of(stream)
    assert [(line["request_id"], line["trace_id"]) for line in served] == [
        (line["expected"], "trace-of-" + line["expected"]) for line in served
    ]
    assert "request_id" not in idle


def test_the_records_of_other_libraries_have_the_same_form() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logging.getLogger("aiohttp.server").error("bad %s", "request")
    logging.getLogger("aiohttp.server").log(25, "between the levels")
    [line, between] = lines_of(stream)
    assert (line["level"], line["logger"], line["event"]) == ("error", "aiohttp.server", "bad request")
    assert between["event"] == "between the levels"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_credential_gets_out_by_any_way(form: logs.Form) -> None:
    stream = io.StringIO()
    configure_logging("debug", form, stream)
    log = structlog.get_logger("x")
    log.info("as_value", key=KEY, secret=Secret(KEY), nested={"authorization": "Bearer opaque-value"})
    log.info("in the event %s", KEY)
    logging.getLogger("foreign").warning("in a record %s", KEY)
    try:
        int(KEY)
    except ValueError:
        log.exception("in_a_traceback")
        logging.getLogger("foreign").exception("in a foreign traceback")
    assert flush_logs(20)
    text = stream.getvalue()
    assert text.count("ValueError: invalid literal") == 2
    assert "in a record" in text
    assert KEY not in text
    assert "opaque-value" not in text


def test_auto_is_json_when_nobody_looks() -> None:
    stream = io.StringIO()
    configure_logging("info", "auto", stream)
    structlog.get_logger("x").info("event")
    assert lines_of(stream)[0]["event"] == "event"


def test_auto_is_for_people_in_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure_logging("info", "auto", stream)
    structlog.get_logger("x").info("event", tenant="acme")
    assert flush_logs(20)
    assert "event" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_value_json_does_not_know_is_shown_as_text() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger("x").info("event", failure=KeyError("x"))
    assert lines_of(stream)[0]["failure"] == "'x'"


def test_lines_lost_are_counted_over_configurations() -> None:
    closed = io.StringIO()
    closed.close()
    before = logs.log_lines_dropped()
    for _ in range(2):
        configure_logging("info", "json", closed)
        structlog.get_logger("x").info("lost")
        assert flush_logs(20)
    assert logs.log_lines_dropped() == before + 2


def test_a_forked_process_still_logs() -> None:
    script = """
import os, structlog
from cbk_gateway.telemetry import configure_logging, flush_logs
configure_logging("info", "json")
child = os.fork()
if child == 0:
    structlog.get_logger("x").info("from_the_child")
    os._exit(0 if flush_logs(20) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert orjson.loads(run.stderr.splitlines()[-1])["event"] == "from_the_child"
