"""How long one job takes on one backend, as far as jobs like it tell."""

from __future__ import annotations

import time

from comfyserve.dispatcher.news import News
from comfyserve.events import StatusChanged
from comfyserve.jobs import Claim, JobStatus, UsualTimes
from comfyserve.learned_times import LearnedTimes, subject_of


class Pace:
    """What *times* knows of jobs like a claimed one on *backend*, and what that one adds to it.

    Its *news* tell since when it runs.
    """

    def __init__(self, times: LearnedTimes, claim: Claim, backend: str, news: News) -> None:
        self._times = times
        self._backend = backend
        self._subject = subject_of(claim.record.workflow, claim.graph)
        self._started_before = claim.record.started_at
        self._news = news

    @property
    def usual(self) -> UsualTimes:
        """What such jobs take there."""
        return self._times.usual(self._subject, self._backend)

    @property
    def seconds_left(self) -> float:
        """How long the backend still takes for it; never less than nothing."""
        estimate = self._times.estimate(self._subject, self._backend)
        return max(0.0, estimate - self._spent)

    @property
    def rest(self) -> tuple[float, float] | None:
        """The least and the most that may be; None where nothing was learned of any job."""
        usual = self.usual.whole or self._times.of_any_job
        return None if usual is None else usual.rest(self._spent)

    def learn_from(self, end: StatusChanged) -> None:
        """It ran before our eyes from begin to end; one that computed nothing tells nothing."""
        if end.status is JobStatus.SUCCEEDED and not end.outputs_reused:
            self._times.learn(self._subject, self._backend, end.timings)

    @property
    def _spent(self) -> float:
        """The seconds it has run."""
        if self._news.status is JobStatus.QUEUED:
            return 0.0
        started = self._news.started_at or self._started_before
        return 0.0 if started is None else max(0.0, time.time() - started)
