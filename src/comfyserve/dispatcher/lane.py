"""The places that one backend has for jobs, and who is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from comfyserve.dispatcher.job_run import JobRun
from comfyserve.fleet import Fleet, Member
from comfyserve.jobs import Offer
from comfyserve.workflows.needs import Needs

MOST_INSIDE: Final = 2
"""Jobs inside one backend: one that runs and one that waits, so that it never idles."""

QUICK: Final = 0.25
"""Where jobs take fewer seconds than that, one more is claimed before there is a place for it."""

MOST_LEAVING: Final = 8
"""Jobs that a backend is done with and whose outputs are on their way; more are not begun then."""

_LEAST_WAIT: Final = 0.001
"""Seconds that each job inside counts at least: a place that is free at once beats any other."""


class Lane:
    """The places of *member*, one of the backends of *fleet*.

    It claims late, so that the queue keeps the say over who is next; only where jobs are so quick
    that claiming would hold the backend up is one more kept at hand. *stir* is called when there
    may be more room, or the backend other models.
    """

    def __init__(self, fleet: Fleet, member: Member, stir: Callable[[], None]) -> None:
        self.member = member
        self._fleet = fleet
        self._stir = stir
        self._runs: dict[JobRun, None] = {}
        self._is_quick = False
        self._has_room = True
        self._model = ""

    @property
    def inside(self) -> tuple[JobRun, ...]:
        """The jobs that the backend has or is about to get, in their order."""
        return tuple(run for run in self._runs if run.is_inside)

    def before(self, job_id: str) -> tuple[JobRun, ...] | None:
        """The jobs inside that come before that one; None where it is not here."""
        inside = self.inside
        places = (place for place, run in enumerate(inside) if run.id == job_id)
        return None if (place := next(places, None)) is None else inside[:place]

    @property
    def is_open(self) -> bool:
        """The backend takes jobs: it answers, and is not on its way out."""
        return self.member.takes_jobs

    @property
    def has_room(self) -> bool:
        """There is room for one more job."""
        return self._has_room and self.is_open

    def offer(self, pools: Mapping[str, Needs]) -> Offer | None:
        """The place it has for one more job, of those that it can run; None where there is none."""
        if not self.has_room:
            return None
        if not (mine := self._fleet.runnable(self.member, pools)):
            return None
        warm = (self._model,) if self._model else ()
        is_busy = bool(self.inside)
        return Offer(
            self.member.name, mine, warm=warm, wait=self.wait, only_warm=is_busy and bool(warm)
        )

    @property
    def wait(self) -> float:
        """Seconds until one more job could begin here, as far as can be said."""
        return sum(max(run.pace.seconds_left, _LEAST_WAIT) for run in self.inside)

    def reconsider(self) -> None:
        """The backend may have other nodes now, or be another one, without any model loaded."""
        if not self.member.is_up:
            self._model = ""
        if self.member.is_draining:
            self._empty_hands()
        self.look()

    def enter(self, run: JobRun) -> None:
        """A job was claimed for this backend, which will have loaded its model when it is done."""
        self._runs[run] = None
        # One model is what every backend keeps, however it is set up and whatever it runs on.
        self._model = run.model or self._model
        self.look()

    def leave(self, run: JobRun) -> None:
        """A job is over, or given back."""
        self._runs.pop(run, None)
        self.look()

    def look(self) -> None:
        """See who has a place now, and whether there is room for one more."""
        inside = self.inside
        for run in self._runs:
            if run.seconds_inside is not None:
                self._is_quick = run.seconds_inside < QUICK
        self._begin_next(inside)
        most = MOST_INSIDE + self._is_quick
        has_room = len(inside) < most and len(self._runs) - len(inside) < MOST_LEAVING
        self._has_room = has_room and not self._is_submitting()
        if self._has_room:
            self._stir()

    def lost(self) -> None:
        """One job was lost, so the others may be too; together they keep their order."""
        self._model = ""
        for run in self._runs:
            run.look_around()

    def _empty_hands(self) -> None:
        """Jobs that are only kept at hand go back to the queue; those inside end there."""
        for run in self._runs:
            if not run.has_begun:
                run.give_back()

    def _begin_next(self, inside: tuple[JobRun, ...]) -> None:
        """One after the other, so that they arrive there in their order."""
        begun = sum(run.has_begun for run in inside)
        for run in inside:
            if begun >= MOST_INSIDE or self._is_submitting() or self.member.is_draining:
                return
            if not run.has_begun:
                run.begin()
                begun += 1

    def _is_submitting(self) -> bool:
        return any(run.is_submitting for run in self._runs)
