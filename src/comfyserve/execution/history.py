"""What the backend keeps of a prompt that has just ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from comfyserve.comfy.backend import Backend
from comfyserve.comfy.records import HistoryEntry
from comfyserve.errors import BackendError

_SETTLE: Final = (0.0, 0.02, 0.1, 0.4, 1.0)
"""Pauses in seconds while the history of an ended prompt is still empty."""

_SETTLED_WITHIN: Final = 4.0
"""Seconds in which the truth about an ended prompt is known, or what was heard must do."""


async def settled(backend: Backend, prompt_id: str) -> HistoryEntry | None:
    """The history of a prompt that has just ended, which may take a moment to be there."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SETTLED_WITHIN):
            for pause in _SETTLE:
                await asyncio.sleep(pause)
                with suppress(BackendError):
                    if (entry := await backend.history(prompt_id)) is not None:
                        return entry
    return None
