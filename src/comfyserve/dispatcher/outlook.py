"""How long a job will wait, from what is inside the backends and what jobs took before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from comfyserve.dispatcher.job_run import JobRun
from comfyserve.dispatcher.lane import Lane
from comfyserve.fleet import Fleet
from comfyserve.job_queue import JobQueue
from comfyserve.jobs import JobRecord, Usual
from comfyserve.learned_times import LearnedTimes, kind_of

Range = tuple[float, float]
"""The least and the most seconds."""


class Outlook:
    """What can be said of the jobs that wait for the *lanes*; asking it costs little."""

    def __init__(
        self, queue: JobQueue, fleet: Fleet, times: LearnedTimes, lanes: Mapping[str, Lane]
    ) -> None:
        self._queue = queue
        self._fleet = fleet
        self._times = times
        self._lanes = lanes

    def expected_wait(self, record: JobRecord, place: int | None) -> Range | None:
        """The least and the most seconds until a job begins that has that place in its pool.

        None where nothing was learned yet, and where no backend that could run it takes jobs.
        """
        if place is None:
            return None
        for lane in self._lanes.values():
            if (before := lane.before(record.id)) is not None:
                return _together(before)
        return self._in_the_queue(record, place)

    def _in_the_queue(self, record: JobRecord, place: int) -> Range | None:
        pools = self._queue.waiting_pools()
        kinds = self._kinds(record)
        if record.pool not in pools or not kinds:
            return None
        mine = {record.pool: pools[record.pool]}
        lanes = [
            lane
            for lane in self._lanes.values()
            if lane.is_open and self._fleet.runnable(lane.member, mine)
        ]
        waits = [_together(lane.inside) for lane in lanes]
        known = [wait for wait in waits if wait is not None]
        if not known or len(known) < len(waits):
            return None
        # Who is inside a backend already has a place too, and is counted there.
        ahead = max(0, place - 1 - self._given_out(record.pool))
        # Jobs of other pools go before it as well; nobody knows how many have an earlier turn.
        rivals = {pool for lane in lanes for pool in self._fleet.runnable(lane.member, pools)}
        others = (len(rivals) - 1) * (ahead + 1)
        least = min(_of_many(kind, ahead)[0] for kind in kinds)
        most = max(_of_many(kind, ahead + others)[1] for kind in kinds)
        return (
            _shared([wait[0] for wait in known], least),
            _shared([wait[1] for wait in known], most),
        )

    def _kinds(self, record: JobRecord) -> Sequence[Usual]:
        """What those before it may take: what it does itself, or what any job does."""
        own = self._times.usual(kind_of(record.workflow)).whole if record.workflow else None
        return [usual for usual in (own, self._times.of_any_job) if usual is not None]

    def _given_out(self, pool: str) -> int:
        runs = (run for lane in self._lanes.values() for run in lane.inside)
        return sum(run.pool == pool and not run.is_running for run in runs)


def _together(runs: Sequence[JobRun]) -> Range | None:
    """Until all of them are done, one after the other; None where nobody can say."""
    rests = [run.pace.rest for run in runs]
    known = [rest for rest in rests if rest is not None]
    if len(known) < len(rests):
        return None
    return sum(rest[0] for rest in known), sum(rest[1] for rest in known)


def _of_many(usual: Usual, count: int) -> Range:
    """What so many jobs take together; where some are slow, others are quick."""
    mean, spread = usual.mean * count, usual.spread * math.sqrt(count)
    return max(0.0, mean - spread), mean + spread


def _shared(waits: Sequence[float], work: float) -> float:
    """When the first of several is free that have to wait, and then share the *work*.

    >>> _shared([0.0, 10.0], 4.0), _shared([0.0, 10.0], 20.0)
    (4.0, 15.0)
    """
    first = sorted(waits)
    for count in range(len(first), 1, -1):
        level = (work + sum(first[:count])) / count
        if level >= first[count - 1]:
            return level
    return first[0] + work
