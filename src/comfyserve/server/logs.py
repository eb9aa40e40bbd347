"""The log: one line on stderr for each thing worth it, for people or as JSON.

A line tells of which job, request and backend it speaks. Query strings, headers and bodies are
never logged, for they may hold secrets.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from starlette.types import Scope

from comfyserve.events import Noted, NumberedEvent, StatusChanged

FACTS: Final = ("job_id", "request_id", "backend", "attempt", "status", "seconds")
"""What a line may say besides its sentence, each under its own name."""

log = logging.getLogger(__name__)


def set_up(level: str, *, as_json: bool, stream: TextIO | None = None) -> None:
    """Send what comfyserve and its web server log to *stream*, which is stderr if not given."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    for name in ("comfyserve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    # Its words about start and stop are said by us already.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger("uvicorn").level))
    logging.getLogger("uvicorn.access").disabled = True


def watch(event: NumberedEvent) -> None:
    """Log what becomes of a job; on its way there only for those who want to see that much."""
    match event:
        case StatusChanged(status=status, error=error):
            level = logging.INFO if event.is_last else logging.DEBUG
            if not log.isEnabledFor(level):
                return
            facts: dict[str, object] = {"job_id": event.job_id, "status": str(status)}
            if event.is_last:
                facts["seconds"] = round(event.timings.queued + event.timings.running, 3)
            told = "" if error is None else f": {error.message}"
            log.log(level, "Job %s%s", _WORDS.get(status, f"is {status}"), told, extra=facts)
        case Noted(level="warning", message=message):
            log.warning("%s", message, extra={"job_id": event.job_id})
        case _:
            return


_WORDS: Final = {
    "queued": "waits",
    "running": "runs",
    "canceling": "is being canceled",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "was canceled",
    "expired": "expired",
}


def answered(scope: Scope, status: int, seconds: float) -> None:
    """Log a request that was answered, for those who want to see that much."""
    if log.isEnabledFor(logging.DEBUG):
        facts: dict[str, object] = {"status": status, "seconds": round(seconds, 4)}
        facts["request_id"] = scope.get("state", {}).get("request_id")
        log.debug("%s %s", scope["method"], path_of(scope), extra=facts)


def path_of(scope: Scope) -> str:
    """What was asked for, without the key that somebody put there though it belongs in a header.

    >>> path_of({"path": "/api/v2/jobs/cs_qamj43b4ynaechqozddnuf5gh6d33ilsk6hcun7l"})
    '/api/v2/jobs/cs_...'
    """
    return _KEY.sub("cs_...", scope["path"][:200])


_KEY: Final = re.compile(r"cs_[a-z2-7]+")


class TextLines(logging.Formatter):
    """Lines for people: the time, how grave it is, the sentence, and its facts in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{name}={value}" for name, value in _facts(record).items())
        line = f"{_moment(record)} {record.levelname.lower():7} {_on_one_line(record.getMessage())}"
        return "".join([line, f" [{facts}]" if facts else "", _trouble(self, record)])


class JsonLines(logging.Formatter):
    """Lines for programs: each a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    found = {name: getattr(record, name, None) for name in FACTS}
    return {name: value for name, value in found.items() if value is not None}


def _trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return f"\n{formatter.formatException(record.exc_info)}" if record.exc_info else ""


def _moment(record: logging.LogRecord) -> str:
    told = datetime.fromtimestamp(record.created, UTC)
    return f"{told.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _on_one_line(text: str) -> str:
    """The text without signs by which it could pass for two lines, or paint the terminal."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
