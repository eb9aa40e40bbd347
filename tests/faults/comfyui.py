"""What the ComfyUI of a test says of itself, asked directly."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.engines import RunningEngine

PATIENCE = 10


def ask(engine: RunningEngine, path: str, body: bytes | None = None) -> Any:
    """Its JSON answer; None for an empty one."""
    request = urllib.request.Request(engine.url + path, body)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        said = answer.read()
    return json.loads(said) if said else None


def waits_in(engine: RunningEngine, prompt_id: str) -> bool:
    """Whether that prompt waits in its own queue."""
    return prompt_id in [each[1] for each in ask(engine, "/queue")["queue_pending"]]


def is_remembered(engine: RunningEngine, prompt_id: str) -> bool:
    """Whether that prompt has ended, as its history says."""
    return prompt_id in ask(engine, f"/history/{prompt_id}")


def is_idle(engine: RunningEngine) -> bool:
    """Whether nothing runs or waits there."""
    queue = ask(engine, "/queue")
    return not queue["queue_running"] and not queue["queue_pending"]


def clear(engine: RunningEngine) -> None:
    """Take all that waits or runs away from it."""
    ask(engine, "/queue", b'{"clear": true}')
    ask(engine, "/interrupt", b"{}")
