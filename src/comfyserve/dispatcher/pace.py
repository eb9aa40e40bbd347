"""How long one job takes on one backend, as far as jobs like it tell."""

from __future__ import annotations

import time

from comfyserve.events import StatusChanged
from comfyserve.jobs import Claim, JobStatus, UsualTimes
from comfyserve.learned_times import LearnedTimes, subject_of


class Pace:
    """What *times* knows of jobs like a claimed one on *backend*, and what that one adds to it."""

    def __init__(self, times: LearnedTimes, claim: Claim, backend: str) -> None:
        self._times = times
        self._backend = backend
        self._subject = subject_of(claim.record.workflow, claim.graph)

    @property
    def usual(self) -> UsualTimes:
        """What such jobs take there."""
        return self._times.usual(self._subject, self._backend)

    def seconds_left(self, running_since: float | None) -> float:
        """What it still takes, if it runs since that time in epoch seconds, or does not yet."""
        estimate = self._times.estimate(self._subject, self._backend)
        return max(0.0, estimate - _spent(running_since))

    def rest(self, running_since: float | None) -> tuple[float, float] | None:
        """The least and the most that may be; None where nothing was learned of any job."""
        usual = self.usual.whole or self._times.of_any_job
        return None if usual is None else usual.rest(_spent(running_since))

    def learn_from(self, end: StatusChanged) -> None:
        """It ran before our eyes from begin to end; one that computed nothing tells nothing."""
        if end.status is JobStatus.SUCCEEDED and not end.outputs_reused:
            self._times.learn(self._subject, self._backend, end.timings)


def _spent(running_since: float | None) -> float:
    return 0.0 if running_since is None else max(0.0, time.time() - running_since)
