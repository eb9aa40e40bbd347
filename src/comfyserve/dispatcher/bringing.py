"""Bringing a claimed job to its backend: anew, or by taking up an attempt that is still there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from comfyserve import execution
from comfyserve.assets import InputFile, Upload
from comfyserve.comfy.backend import Running, Waiting
from comfyserve.comfy.records import HistoryEntry
from comfyserve.dispatcher.desk import Desk
from comfyserve.execution import Execution
from comfyserve.fleet import Member
from comfyserve.jobs import Claim, Job, JobFile, UsualTimes
from comfyserve.outputs import Sink
from comfyserve.refusals import ExtraDataLost


@dataclass(frozen=True, slots=True)
class Bringing:
    """What is needed to bring one job to one backend.

    *usual* is what such jobs take there, *moved* is the execution's.
    """

    desk: Desk
    claim: Claim
    member: Member
    usual: UsualTimes
    moved: Callable[[], None]

    async def begin(self, sink: Sink, *, is_taken_up: bool) -> Execution:
        """Take up an attempt that the backend still has; else bring the job there anew.

        Raises `ExtraDataLost`, and `BackendError` where the backend cannot be asked.
        """
        record, backend, keep_temp = self.claim.record, self.member.backend, self.desk.keep_temp
        there = record.prompt_id if is_taken_up else await self._earlier_attempt()
        job = Job(record.id, self.claim.graph)
        if there is not None:
            return execution.resume(
                backend,
                job,
                sink,
                prompt_id=there,
                keep_temp=keep_temp,
                moved=self.moved,
                usual=self.usual,
            )
        extra_data = self.desk.queue.extra_data(record.id)
        if record.has_extra_data and extra_data is None:
            raise ExtraDataLost(record.id)
        files = tuple(self._input_file(file) for file in self.claim.files)
        job = replace(job, files=files, extra_data=extra_data or {})
        return execution.run(
            backend,
            job,
            sink,
            prompt_id=record.prompt_id,
            keep_temp=keep_temp,
            moved=self.moved,
            usual=self.usual,
        )

    async def _earlier_attempt(self) -> str | None:
        """The prompt_id of an attempt that was believed lost, but is there or went well."""
        record = self.claim.record
        if record.attempts == 1 or record.id in self.desk.run_anew:
            return None
        for attempt in reversed(await self.desk.queue.attempts(record.id)):
            if attempt.backend != self.member.name or attempt.prompt_id == record.prompt_id:
                continue
            found = await self.member.backend.whereabouts(attempt.prompt_id)
            is_good = isinstance(found, HistoryEntry) and found.completed
            if is_good or isinstance(found, (Running, Waiting)):
                return attempt.prompt_id
        return None

    def _input_file(self, file: JobFile) -> InputFile:
        path = self.desk.blobs.path(file.hash)
        return InputFile(file.targets, Upload(file.name, path=path, hash=file.hash), file.mask_of)
