"""Log lines: how an event becomes one line of JSON, or a coloured line in a terminal.

Configured once per process by `configure_logging`; may be configured again. Loggers that were made before
follow, because the processors look up the configuration in force each time. Lines are for rare events; the
line per request is `access_log.py`.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, Final, Literal, TypeAlias

import orjson
import structlog
from structlog.typing import EventDict

from cbk_gateway.telemetry.drain import LogDrain
from cbk_gateway.telemetry.redaction import redact_item
from cbk_gateway.telemetry.request_id import current_request_id
from cbk_gateway.telemetry.traceparent import current_trace_id

__all__ = [
    "LEVELS",
    "Form",
    "change_level",
    "configure_logging",
    "current_level",
    "flush_logs",
    "level_number",
    "log_lines_dropped",
    "write_line",
]

Form: TypeAlias = Literal["json", "console", "auto"]
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


@dataclass(slots=True)
class _Configuration:
    """What is in force. One per process, since logging itself is."""

    level: int
    drain: LogDrain
    render: structlog.typing.Processor
    lost_before: int = 0


class _Loggings:
    """Holds the configuration in force; None before the first, when lines go nowhere."""

    current: _Configuration | None = None


def configure_logging(level: str = "info", form: Form = "auto", stream: IO[str] | None = None) -> None:
    """Send this process's log lines to `stream`.

    Args:
        level: Least level shown: debug, info, warning, error or critical.
        form: "json" for one object per line, "console" for people, "auto" for console in a terminal.
        stream: Standard error when None.

    Raises:
        ValueError: No such level or form.
    """
    threshold = level_number(level)
    target = sys.stderr if stream is None else stream
    if form not in {"json", "console", "auto"}:
        raise ValueError(f"log form {form!r} is not one of json, console, auto")
    is_console = form == "console" or (form == "auto" and target.isatty())
    previous = _Loggings.current
    lost = 0
    if previous is not None:
        previous.drain.close()
        lost = previous.lost_before + previous.drain.drops
    render: structlog.typing.Processor = _as_json
    if is_console:
        render = structlog.dev.ConsoleRenderer(
            colors=target.isatty(),
            timestamp_key="time",
            # Tracebacks arrive as text here, because they had to be redacted first.
            exception_formatter=structlog.dev.plain_traceback,
        )
    _Loggings.current = _Configuration(threshold, LogDrain(target), render, lost)
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=_QueueingLogger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ForeignHandler()]
    root.setLevel(threshold)


def level_number(level: str) -> int:
    """The number of a level's name.

    Raises:
        ValueError: No such level.
    """
    try:
        return LEVELS[level.lower()]
    except KeyError:
        raise ValueError(f"log level {level!r} is not one of {', '.join(LEVELS)}") from None


def change_level(level: str) -> None:
    """Change the least level shown, while running.

    Raises:
        ValueError: No such level.
    """
    threshold = level_number(level)
    if _Loggings.current is not None:
        _Loggings.current.level = threshold
        logging.getLogger().setLevel(threshold)


def current_level() -> str:
    """The least level shown now."""
    threshold = logging.INFO if _Loggings.current is None else _Loggings.current.level
    return next(name for name, number in LEVELS.items() if number == threshold)


def flush_logs(timeout_s: float = 2.0) -> bool:
    """Wait until the lines so far are written; False when that took too long."""
    return _Loggings.current is None or _Loggings.current.drain.flush(timeout_s)


def log_lines_dropped() -> int:
    """Lines lost since the process started."""
    current = _Loggings.current
    return 0 if current is None else current.lost_before + current.drain.drops


def write_line(level: str, logger: str, event: str, fields: dict[str, object]) -> None:
    """Write a line as a logger would, at a fraction of its cost: for what is said of every request.

    Args:
        level: As in `LEVELS`.
        logger: The logger's name.
        event: What happened.
        fields: Numbers and texts of ours; what came from outside must have been redacted.
    """
    current = _Loggings.current
    if current is None or current.render is not _as_json:
        structlog.get_logger(logger).log(LEVELS[level], event, **fields)
    elif LEVELS[level] >= current.level:
        line = {"time": _time_text(), "level": level, "event": event, **fields, "logger": logger}
        current.drain.put(orjson.dumps(line))


def _time_text() -> str:
    """The present in the form of the other lines."""
    now = time.time()
    second = int(now)
    return f"{_second_text(second)}.{int((now - second) * 1e6):06d}Z"


@lru_cache(maxsize=2)
def _second_text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


# From event to line


def _drop_below_level(_logger: object, method: str, event: EventDict) -> EventDict:
    current = _Loggings.current
    if current is None or LEVELS.get(method, logging.ERROR) < current.level:
        raise structlog.DropEvent
    return event


def _add_ids(_logger: object, _method: str, event: EventDict) -> EventDict:
    request_id = current_request_id.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    trace_id = current_trace_id.get()
    if trace_id is not None:
        event.setdefault("trace_id", trace_id)
    return event


def _add_logger_name(logger: object, _method: str, event: EventDict) -> EventDict:
    if isinstance(logger, _QueueingLogger) and logger.name is not None:
        event.setdefault("logger", logger.name)
    return event


def _redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {key: redact_item(key, value) for key, value in event.items()}


def _render(logger: object, method: str, event: EventDict) -> bytes:
    current = _Loggings.current
    if current is None:
        raise structlog.DropEvent
    line = current.render(logger, method, event)
    return line if isinstance(line, bytes) else str(line).encode()


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    """Time, level and event first, so that lines can be cut and sorted by simple tools."""
    first = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    return orjson.dumps({**first, **event}, default=str, option=orjson.OPT_NON_STR_KEYS)


_PROCESSORS: Final[list[structlog.typing.Processor]] = [
    _drop_below_level,
    structlog.contextvars.merge_contextvars,
    _add_logger_name,
    _add_ids,
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    _redact,
    # After redaction come only words of our own.
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    _render,
]


class _QueueingLogger:
    """What structlog writes to: hands finished lines to the drain in force."""

    def __init__(self, name: str | None = None, *_: object) -> None:
        self.name = name

    def msg(self, line: bytes) -> None:
        """Queue a finished line."""
        current = _Loggings.current
        if current is not None:
            current.drain.put(line)

    debug = info = log = msg

    def urge(self, line: bytes) -> None:
        """Queue a finished line that cannot wait."""
        current = _Loggings.current
        if current is not None:
            current.drain.put_urgent(line)

    warning = warn = error = critical = fatal = exception = urge


class _ForeignHandler(logging.Handler):
    """Gives the records of other libraries the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        method = record.levelname.lower()
        event: EventDict = {"event": record.getMessage()}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        logger = _QueueingLogger(record.name)
        line: Any = event
        try:
            for step in _PROCESSORS:
                line = step(logger, method if method in LEVELS else "error", line)
        except structlog.DropEvent:
            return
        logger.urge(line) if record.levelno >= logging.WARNING else logger.msg(line)


def _resume_after_fork() -> None:
    """Threads do not survive a fork: give the child a drain of its own on the same stream."""
    current = _Loggings.current
    if current is not None:
        current.drain = current.drain.reborn()


os.register_at_fork(after_in_child=_resume_after_fork)
atexit.register(flush_logs)
