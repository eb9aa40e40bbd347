"""One job that this process holds: brought to a backend, listened to, written down, ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

from comfyserve.dispatcher import elsewhere, verdicts
from comfyserve.dispatcher.ahead import Ahead
from comfyserve.dispatcher.bringing import Bringing
from comfyserve.dispatcher.desk import Desk
from comfyserve.dispatcher.ledger import Ledger
from comfyserve.dispatcher.news import News
from comfyserve.dispatcher.pace import Pace
from comfyserve.dispatcher.time_limit import OBEYS_WITHIN, TimeLimit, shorter
from comfyserve.dispatcher.withdrawal import withdraw, withdraw_unbegun
from comfyserve.errors import BackendError, BackendUnreachable, ComfyServeError, GraphRejected
from comfyserve.events import StatusChanged
from comfyserve.execution import Execution
from comfyserve.fleet import Member
from comfyserve.jobs import Claim, JobError, JobStatus
from comfyserve.outputs import Sink
from comfyserve.refusals import ExtraDataLost, LeaseLost, StoreUnavailable

log = logging.getLogger(__name__)


class JobRun:
    """What one process does with one job it claimed or took up; `go` does it all.

    *ahead* are those that its backend was given before. *pace* tells how long it takes. *moved* is
    called when `is_inside` or `is_submitting` may have changed, *lost* when it found that its
    backend lost it.
    """

    def __init__(
        self,
        desk: Desk,
        claim: Claim,
        member: Member,
        *,
        is_taken_up: bool,
        ahead: tuple[JobRun, ...],
        moved: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self.id = claim.record.id
        self.pool = claim.record.pool
        self.model = claim.record.model
        self.member = member
        self.was_left = False
        self.was_lost = False
        self._ahead = Ahead(ahead)
        self.seconds_inside: float | None = None
        self._turn = asyncio.Event()
        self._begun_at = 0.0
        self._desk = desk
        self._claim = claim
        self._moved = moved
        self._lost = lost
        self._news = News(claim.record.status)
        self._ledger = Ledger(desk, claim, self._news)
        self._execution: Execution | None = None
        self._hearing: asyncio.Task[StatusChanged] | None = None
        self._cancels: set[asyncio.Task[None]] = set()
        self._is_taken_up = is_taken_up
        if is_taken_up:
            self.begin()
        self._is_canceling = claim.record.status is JobStatus.CANCELING
        self._is_given_back = False
        limit = shorter(claim.record.timeout, desk.timeout)
        self._limit = TimeLimit(limit, stop=self._stop_late, give_up=self._news.close)
        self.pace = Pace(desk.times, claim, member.name, self._news)
        self._is_done = False
        self.over = asyncio.Event()

    @property
    def is_ending(self) -> bool:
        """Its end, or that it goes back to the queue, is being written."""
        return self._ledger.is_ended

    @property
    def is_inside(self) -> bool:
        """The job takes one of the places inside the backend, or is about to.

        One that the backend lost keeps its place until it is back in the queue, so that no other
        overtakes it.
        """
        run = self._execution
        has_left = run is not None and run.has_left and not verdicts.is_lost(run.failure)
        return not (self._is_done or has_left)

    @property
    def is_submitting(self) -> bool:
        """The backend is about to be asked to run it; one that uploads files may be overtaken."""
        has_settled = self._execution is not None and self._execution.has_settled
        is_over = self._is_done or has_settled
        return self.has_begun and not (is_over or self._is_taken_up or self._claim.files)

    @property
    def is_running(self) -> bool:
        """The backend works on it, as far as anybody said."""
        return self._news.status is not JobStatus.QUEUED

    @property
    def has_begun(self) -> bool:
        """There is a place for it inside the backend; until then it only waits in our hands."""
        return self._turn.is_set()

    def begin(self) -> None:
        """Let it go to the backend."""
        self._begun_at = time.monotonic()
        self._turn.set()

    async def go(self) -> None:
        """Bring the job to its end, or give it back; raises nothing but being canceled."""
        try:
            await self._go()
        except LeaseLost:
            log.info("A job is not ours any more", extra=self._named)
            await self._withdraw()
        except StoreUnavailable as error:
            self.was_left = True
            log.error("A job is left as it is for now: %s", error, extra=self._named)
        except Exception:
            log.exception("A job failed for a reason of our own", extra=self._named)
            await self._withdraw()
            await self._try_to_fail()
        finally:
            self._is_done = True
            self.over.set()
            self._ahead.forget()
            try:
                await self._end_tasks()
            finally:
                self._moved()

    def heed(self, status: JobStatus) -> None:
        """Its caller wants it canceled, or it ended because nobody knew that it runs."""
        self._is_canceling = True
        if status.is_terminal:
            self._ledger.has_lease = False
        self._stop_execution()

    def lose(self) -> None:
        """It is somebody else's now; nothing is written of it any more."""
        self._ledger.has_lease = False
        self._stop_execution()

    def look_around(self) -> None:
        """Another job was lost with the backend, so ask at once how this one stands."""
        if self._execution is not None:
            self._execution.look_around()

    def give_up_unless_sent(self) -> None:
        """Nothing is begun any more: a job that reached no backend goes back to the queue."""
        if self._hearing is not None and not self._is_sent:
            self._hearing.cancel()

    def give_back(self) -> None:
        """Its backend is none of ours any more: it is taken off there and runs elsewhere.

        One that the backend is done with may still bring its outputs home.
        """
        has_left = self._execution is not None and self._execution.has_left
        if self.is_ending or has_left:
            return
        self._is_given_back = True
        if self._hearing is not None:
            self._hearing.cancel()

    @property
    def waits_for_backend(self) -> bool:
        """It was taken up, and its backend does not answer yet."""
        return self._is_taken_up and self._execution is None

    @property
    def _is_sent(self) -> bool:
        """The backend may run it, also when we are gone."""
        return self._is_taken_up or (self._execution is not None and self._execution.is_sent)

    async def _go(self) -> None:
        if not self._ledger.has_lease:
            return
        async with self._desk.blobs.keeping() as sink:
            self._hearing = hearing = asyncio.create_task(self._hear(sink), name=f"job {self.id}")
            hearing.add_done_callback(lambda _: self._news.close())
            if self._is_given_back:
                hearing.cancel()
            await self._ledger.write_down(self.lose)
            if not hearing.done():
                # It ends here; its place is free once the backend has let go of it.
                await self._fail(verdicts.timed_out(self._limit.seconds or 0))
            await asyncio.wait({hearing})
            await self._take_end(hearing)

    async def _take_end(self, hearing: asyncio.Task[StatusChanged]) -> None:
        """Keep how the execution ended, or try again."""
        if self._ledger.is_ended:
            return
        if hearing.cancelled():
            await (self._move() if self._is_given_back else self._leave_unbegun())
            return
        try:
            end = hearing.result()
        except GraphRejected as error:
            await self._take_refusal(error)
        except ExtraDataLost as error:
            await self._fail(verdicts.refusal(error))
        except BackendError as error:
            is_refused = isinstance(error, BackendUnreachable) and error.refused
            why = verdicts.refusal(error)
            self._suspect(why.message)
            await self._try_again(why, counts=not is_refused)
        except StoreUnavailable:
            raise
        except ComfyServeError as error:
            log.error("A job cannot go on: %s", error, extra=self._named)
            await self._fail(verdicts.refusal(error))
        else:
            await self._conclude(end)

    # Hearing

    async def _hear(self, sink: Sink) -> StatusChanged:
        """Listen to the execution to its end, which is handed back."""
        await self._turn.wait()
        if self._is_taken_up:
            await self._wait_for_backend()
        bringing = Bringing(self._desk, self._claim, self.member, self.pace.usual, self._look)
        self._execution = run = await bringing.begin(sink, is_taken_up=self._is_taken_up)
        if run.is_resumed:
            self._is_taken_up = True
            self._moved()
        if self._is_canceling:
            self._stop_execution()
        async with aclosing(aiter(run)) as events:
            async for event in events:
                if isinstance(event, StatusChanged) and event.is_last:
                    return event
                self._news.put(event)
                if self._news.status is JobStatus.RUNNING:
                    self._limit.begin(self._claim.record.started_at if self._is_taken_up else None)
        raise AssertionError("an execution ends with a terminal event")

    async def _wait_for_backend(self) -> None:
        """Wait for the backend that has the job; where it is to be canceled, or could run
        elsewhere, not for long."""
        try:
            await elsewhere.until_up(
                self._desk, self._claim, self.member, OBEYS_WITHIN if self._is_canceling else None
            )
        except TimeoutError:
            raise asyncio.CancelledError from None

    def _look(self) -> None:
        """The execution came to the backend, or left it."""
        has_left = self._execution is not None and self._execution.has_left
        if has_left and self.seconds_inside is None:
            self.seconds_inside = time.monotonic() - self._begun_at
            self._news.is_ending = True
        self._moved()

    def _stop_late(self) -> None:
        log.warning("A job runs for too long and is stopped", extra=self._named)
        self._stop_execution()

    def _stop_execution(self) -> None:
        """Have the backend stop the job; where it was not asked yet, it never is."""
        if self._hearing is None or self._hearing.done():
            return
        if self._execution is None or not self._execution.is_sent:
            self._hearing.cancel()
            return
        cancel = asyncio.create_task(self._cancel(self._execution), name=f"cancel {self.id}")
        self._cancels.add(cancel)
        cancel.add_done_callback(self._cancels.discard)

    async def _cancel(self, run: Execution) -> None:
        try:
            await run.cancel()
        except BackendError as error:
            log.warning("A backend could not be told to stop: %s", error, extra=self._named)

    # Ending

    async def _conclude(self, end: StatusChanged) -> None:
        """Keep the end that the execution told, or try again where the backend is to blame."""
        run = self._execution
        failure = run.failure if run is not None else None
        if end.error is not None and verdicts.is_lost(failure):
            self._suspect(end.error.message)
            await self._try_again(end.error)
        elif end.error is not None and self._is_taken_up and verdicts.is_incomplete(failure):
            self._desk.run_anew.add(self.id)
            await self._try_again(end.error)
        elif end.status is JobStatus.CANCELED and self._limit.is_past and not self._is_canceling:
            await self._fail(verdicts.timed_out(self._limit.seconds or 0), end)
        else:
            if not self._is_taken_up:
                self.pace.learn_from(end)
            await self._ledger.finish(end)

    async def _try_again(self, why: JobError, *, counts: bool = True) -> None:
        """Give the job back to the queue, unless it was tried too often or costs money."""
        reason = why.message.rstrip(".")
        if counts and not self.is_running and self._ahead.is_lost:
            # It was not begun when the backend was lost with another.
            self._desk.excused[self.id] += 1
        attempts = self._claim.record.attempts - self._desk.excused[self.id]
        paid = await verdicts.paid_nodes(self._claim.graph, self.member)
        if self._is_canceling:
            await self._ledger.finish(StatusChanged(self.id, JobStatus.CANCELED))
        elif self._limit.is_past:
            await self._fail(verdicts.timed_out(self._limit.seconds or 0))
        elif not counts:
            await self._ledger.requeue(f"{reason}. The job waits for a backend.", counts=False)
        elif (last := verdicts.last(why, attempts, self._desk.attempts, paid)) is not None:
            await self._fail(last)
        else:
            log.warning("A job runs again: %s", why.message, extra=self._named)
            await self._ahead.go_first()
            await self._ledger.requeue(f"{reason}. The job runs again.")

    def _suspect(self, why: str) -> None:
        self.was_lost = True
        self.member.suspect(why)
        self._lost()

    async def _leave_unbegun(self) -> None:
        """It was stopped before the backend was asked for it, or while that did not answer."""
        if not self._is_canceling:
            await self._ledger.requeue(None, counts=False)
            return
        await self._ledger.finish(StatusChanged(self.id, JobStatus.CANCELED))
        if self._is_taken_up:
            await self.member.wait_until_up()
            await self._withdraw()

    async def _move(self) -> None:
        """Take it off a backend that is none of ours any more, and have it run elsewhere."""
        if not self._is_sent:
            await self._leave_unbegun()
            return
        is_unbegun = await withdraw_unbegun(self.member.backend, self._prompt_id)
        await self._try_again(verdicts.REMOVED, counts=self.is_running or not is_unbegun)

    async def _take_refusal(self, error: GraphRejected) -> None:
        """The backend will not run the graph; where it lost what others have, one of them may."""
        needs = await elsewhere.needs_elsewhere(self._desk, self._claim, self.member, error)
        if needs is None or self._is_canceling:
            await self._fail(verdicts.refusal(error))
            return
        why = "The backend no longer has what the job needs. The job waits for another."
        await self._ledger.requeue(why, counts=False, needs=needs)

    async def _try_to_fail(self) -> None:
        """After a mistake of our own, which may have been in the very writing."""
        if self._ledger.is_ended:
            return
        try:
            await self._fail(verdicts.INTERNAL)
        except Exception:
            self.was_left = True
            log.exception("A job could not be failed either", extra=self._named)

    async def _fail(self, error: JobError, end: StatusChanged | None = None) -> None:
        end = end or StatusChanged(self.id, JobStatus.FAILED)
        await self._ledger.finish(replace(end, status=JobStatus.FAILED, error=error))

    async def _withdraw(self) -> None:
        """Nobody wants it any more, so the backend need not go on."""
        if not self._is_sent or (self._execution is not None and self._execution.has_left):
            return
        await withdraw(self.member.backend, self._prompt_id)

    @property
    def _prompt_id(self) -> str:
        """The id by which the backend knows it."""
        record = self._claim.record
        return self._execution.prompt_id if self._execution else record.prompt_id or self.id

    async def _end_tasks(self) -> None:
        self._limit.end()
        tasks = {*self._cancels} | ({self._hearing} if self._hearing is not None else set())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _named(self) -> Mapping[str, str]:
        return {"job_id": self.id, "backend": self.member.name}
