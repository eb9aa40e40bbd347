"""Taking a job off a backend, as well as that goes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from comfyserve.comfy.backend import Backend, Gone, Waiting
from comfyserve.errors import BackendError

_WITHIN: Final = 5.0
"""Seconds to tell a backend that a job is of no use any more."""


async def withdraw(backend: Backend, prompt_id: str) -> None:
    """Nobody wants the job any more, so the backend need not go on."""
    with suppress(BackendError, TimeoutError):
        async with asyncio.timeout(_WITHIN):
            await backend.cancel(prompt_id)


async def withdraw_unbegun(backend: Backend, prompt_id: str) -> bool:
    """Take the job off the backend; whether it certainly was never begun there."""
    with suppress(BackendError, TimeoutError):
        async with asyncio.timeout(_WITHIN):
            before = await backend.whereabouts(prompt_id)
            await backend.cancel(prompt_id)
            after = await backend.whereabouts(prompt_id)
            return isinstance(before, Waiting) and isinstance(after, Gone)
    return False
