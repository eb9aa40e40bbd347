"""What all runs of one dispatcher share, and the retries where the store is not there."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from comfyserve.blobs import Blobs
from comfyserve.fleet import Fleet
from comfyserve.job_queue import JobQueue
from comfyserve.learned_times import LearnedTimes
from comfyserve.refusals import StoreUnavailable

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Desk:
    """The rooms that runs need, and the limits they keep to; see `Dispatcher`.

    *run_anew* are the jobs whose earlier attempts ended, but left nothing to bring home. *excused*
    counts attempts that are not held against a job: it only waited behind another one with which
    the backend was lost, and a job that kills backends must not take others with it. *refused* are
    the backends that would not run a job for what they do not have any more.
    """

    queue: JobQueue
    fleet: Fleet
    blobs: Blobs
    times: LearnedTimes
    holder: str
    attempts: int
    timeout: float | None
    lease: float
    keep_temp: bool
    run_anew: set[str] = field(default_factory=set)
    excused: Counter[str] = field(default_factory=Counter)
    refused: dict[str, set[str]] = field(default_factory=dict)

    def forget(self, job_id: str) -> None:
        """The job is over."""
        self.run_anew.discard(job_id)
        self.excused.pop(job_id, None)
        self.refused.pop(job_id, None)

    async def write(self, job_id: str, write: Callable[[], Awaitable[Result]]) -> Result:
        """Do *write*, again and again while the store fails, for as long as a lease may last."""
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + self.lease, _FIRST_PAUSE
        while True:
            try:
                return await write()
            except StoreUnavailable as error:
                if loop.time() + pause > end:
                    raise
                log.warning("Trying again to write: %s", error, extra={"job_id": job_id})
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
