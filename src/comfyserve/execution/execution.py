"""One job's way through one backend: submitted, followed, its outputs brought home."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Final

from comfyserve.comfy.attempt import Attempt
from comfyserve.comfy.backend import Backend, Waiting
from comfyserve.comfy.protocol import (
    Cached,
    Executed,
    Picture,
)
from comfyserve.comfy.records import HistoryEntry
from comfyserve.comfy.socket import Arrived, Listener, Nudged
from comfyserve.comfy.verdict import blocked, failure
from comfyserve.errors import (
    BackendError,
    JobFailed,
    JobInterrupted,
    JobLost,
    OutputUnavailable,
    OutputUnwritable,
)
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.execution.expectations import (
    expected_nodes,
    is_live_output,
    live_nodes,
    paid_node,
)
from comfyserve.execution.history import settled
from comfyserve.execution.input_files import with_files
from comfyserve.following import Following, News, Trouble, WasCanceled
from comfyserve.jobs import Job, JobError, JobStatus, Output, Preview, Timings, UsualTimes
from comfyserve.outputs import Courier, Outputs, Sink, names_of
from comfyserve.workflows.graph import Graph

_LAST_ARRIVALS: Final = 2.0
"""Seconds that outputs on their way have when a job is canceled that has ended already."""

_WITHDRAWAL: Final = 5.0
"""Seconds to tell a backend that a job is of no use any more."""

_EMPTYING: Final = 0.3
"""Seconds a server's worker takes to wake and empty its cache; nothing tells when it has."""


class Execution:
    """One job on its way through one backend; iterate it once.

    *has_settled* tells that the backend has answered whether it takes the job, *has_left* that it
    is done with it, though outputs may still be on their way here; *moved* is called when either
    changes, which is at the latest when the iteration ends. *failure* is what made the job fail.
    *is_resumed* tells that the backend had the job before. *usual* is what such jobs took there.
    """

    def __init__(
        self,
        backend: Backend,
        job: Job,
        sink: Sink,
        *,
        prompt_id: str | None = None,
        keep_temp: bool = False,
        is_resumed: bool = False,
        moved: Callable[[], None] = lambda: None,
        usual: UsualTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prompt_id = prompt_id or job.id
        self.has_left = False
        self.failure: Exception | None = None
        self._backend = backend
        self._job = job
        self._outputs = Outputs(backend, sink, keep_temp=keep_temp)
        self._clock = clock
        self._usual = usual
        self._attempt: Attempt | None = None
        self._listener: Listener | None = None
        self._following: Following | None = None
        self._wish_to_cancel = asyncio.Event()
        self.is_resumed = is_resumed
        self._is_sent = is_resumed
        self._is_accepted = is_resumed
        self._answered = asyncio.Event()
        self._moved = moved
        self._is_reused = False
        if is_resumed:
            self._answered.set()

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        return self._events()

    @property
    def has_settled(self) -> bool:
        """The backend has answered whether it takes the job, or will not be asked."""
        return self._answered.is_set()

    @property
    def is_sent(self) -> bool:
        """The backend was asked to run it, so that it may run even where no answer came."""
        return self._is_sent

    async def cancel(self) -> None:
        """Ask for this job, and no other, to end; its last event tells whether it did in time.

        Returns once the backend was told, which may take as long as it takes to answer.
        """
        self._wish_to_cancel.set()
        if self._is_sent:
            await self._answered.wait()
        if self._is_accepted:
            await self._backend.cancel(self.prompt_id)
        self.look_around()

    def look_around(self) -> None:
        """Have the backend asked how the job stands, without waiting for news."""
        if self._listener is not None:
            self._listener.put_now(Nudged())

    async def _events(self) -> AsyncGenerator[Event, None]:
        yield StatusChanged(self._job.id, JobStatus.QUEUED)
        try:
            async with aclosing(self._attempts()) as events:
                async for event in events:
                    yield event
        except WasCanceled:
            yield self._ended(JobStatus.CANCELED)
        except JobFailed as error:
            self.failure = error
            yield self._ended(JobStatus.FAILED, JobError.of(error))
        except BackendError as error:
            self.failure = error
            if not self._is_accepted:
                raise
            lost = OutputUnavailable(f"An output could not be brought home: {error.reason}")
            yield self._ended(JobStatus.FAILED, JobError.of(lost))
        except OutputUnwritable:
            await self._withdraw()
            raise
        else:
            yield self._ended(JobStatus.SUCCEEDED)
        finally:
            self._leave()

    def _settle(self) -> None:
        if not self._answered.is_set():
            self._answered.set()
            self._moved()

    def _leave(self) -> None:
        self._answered.set()
        if not self.has_left:
            self.has_left = True
            self._moved()

    @property
    def _is_canceling(self) -> bool:
        return self._wish_to_cancel.is_set()

    async def _withdraw(self) -> None:
        """Nobody can take the outputs, so the backend need not go on."""
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(_WITHDRAWAL):
                await self._backend.cancel(self.prompt_id)

    async def _attempts(self) -> AsyncGenerator[Event, None]:
        graph = self._job.graph if self.is_resumed else await with_files(self._backend, self._job)
        async with Courier(self._wake) as self._courier:
            async with aclosing(self._try(graph, self.prompt_id)) as events:
                async for event in events:
                    yield event
            if self._outputs.missing:
                async with aclosing(self._try_without_cache(graph)) as events:
                    async for event in events:
                        yield event
        if not self._outputs.saved:
            yield self._noted("warning", "The job succeeded, but no node saved or showed anything.")
        yield ProgressMade(self._job.id, self._current.completed(self._clock()))

    def _wake(self) -> None:
        if self._listener is not None:
            self._listener.put_now(Arrived())

    async def _try_without_cache(self, graph: Graph) -> AsyncGenerator[Event, None]:
        """A cached run names the files of the run before; when they are gone, make them anew."""
        lost = names_of(self._outputs.missing)
        if not self._is_reused or self.is_resumed:
            raise OutputUnavailable(f"The backend made {lost}, but no longer has it.")
        catalog = await self._backend.node_catalog()
        if (paid := paid_node(graph, catalog)) is not None:
            raise OutputUnavailable(
                f"The backend has deleted {lost}, and running the graph again would pay for "
                f"{paid} again. Change an input to do so."
            )
        yield self._noted("info", f"The backend has deleted {lost}, so the graph runs once more.")
        self._outputs.try_again()
        await self._backend.free()
        await asyncio.sleep(_EMPTYING)
        self._is_reused = False
        async with aclosing(self._try(graph, str(uuid.uuid4()))) as events:
            async for event in events:
                yield event
        if self._outputs.missing:
            raise OutputUnavailable(
                f"The backend has deleted {names_of(self._outputs.missing)}, also after the graph "
                "ran once more."
            )

    async def _try(self, graph: Graph, prompt_id: str) -> AsyncGenerator[Event, None]:
        """One attempt: submit, follow to the end, bring home what it made."""
        socket = self._backend.socket
        if not await socket.opened(self._backend.timeouts.connect):
            yield self._noted(
                "info", f"No live messages from the backend ({socket.last_error}); asking instead."
            )
        with socket.listening(prompt_id) as self._listener:
            expected = expected_nodes(graph, self._backend.known_catalog)
            self._attempt = Attempt(graph, expected, self._clock(), self._usual)
            if not self.is_resumed:
                for note in await self._submit(graph, prompt_id, self._listener):
                    yield note
            self._following = Following(
                self._backend,
                self.prompt_id,
                self._attempt,
                self._listener,
                clock=self._clock,
                is_canceling=lambda: self._is_canceling,
                is_late=self.is_resumed,
            )
            async for event in self._follow(self._following, self._attempt):
                yield event
        self._leave()
        async for event in self._conclude(self._following, self._attempt):
            yield event

    async def _submit(self, graph: Graph, prompt_id: str, listener: Listener) -> list[Noted]:
        """Queue the graph; what the backend will leave out of it is worth a note each."""
        if self._is_canceling:
            raise WasCanceled
        self._is_sent = True
        try:
            accepted = await self._backend.submit(graph, prompt_id, extra_data=self._job.extra_data)
            if accepted.prompt_id != prompt_id:
                self._backend.socket.also(accepted.prompt_id, listener)
            self.prompt_id = accepted.prompt_id
            self._is_accepted = True
        finally:
            self._settle()
        return [self._skipped(node, told) for node, told in accepted.node_errors.items()]

    async def _follow(self, following: Following, attempt: Attempt) -> AsyncIterator[Event]:
        """Tell what happens until the attempt has ended."""
        status, told, place = JobStatus.QUEUED, None, 0
        async for news in following.news():
            if isinstance(news, Trouble):
                yield self._noted(news.level, news.message)
            if isinstance(news, Waiting) and news.position != place:
                place = news.position
                yield StatusChanged(self._job.id, JobStatus.QUEUED, queue_position=place)
            if self._status(attempt) is not status:
                status = self._status(attempt)
                yield StatusChanged(self._job.id, status)
            if (preview := await self._take_what_came_with(news, attempt)) is not None:
                yield PreviewDrawn(self._job.id, preview)
            for output in self._courier.arrived():
                yield OutputSaved(self._job.id, output)
            if attempt.has_started and attempt.standing != told:
                told = attempt.standing
                yield ProgressMade(self._job.id, attempt.progress(self._clock()))

    def _status(self, attempt: Attempt) -> JobStatus:
        if not attempt.has_started:
            return JobStatus.QUEUED
        return JobStatus.CANCELING if self._is_canceling else JobStatus.RUNNING

    async def _take_what_came_with(self, heard: News, attempt: Attempt) -> Preview | None:
        """Send for the outputs that a message announces or holds; a preview is handed back."""
        match heard:
            case Executed(node_id=node, ui=ui):
                await self._courier.send(self._outputs.take(node, ui))
            case Picture(content_type=kind, data=data):
                source = heard.node_id or attempt.node
                catalog = self._backend.known_catalog
                if source is None or not is_live_output(attempt.class_of(source), kind, catalog):
                    return Preview(source, kind, data)
                await self._courier.send(self._outputs.take_picture(source, heard))
            case _:
                pass
        return None

    async def _conclude(self, following: Following, attempt: Attempt) -> AsyncIterator[Event]:
        """Read the history, bring home what is still there, and raise if the run failed."""
        for output in self._courier.arrived():
            yield OutputSaved(self._job.id, output)
        entry = following.entry or await settled(self._backend, self.prompt_id)
        if self._is_canceling and isinstance(self._failure(entry, attempt), JobInterrupted):
            raise WasCanceled
        if entry is not None:
            for message in entry.messages:
                if isinstance(message, Cached) and not attempt.cached:
                    attempt.hear(message, self._clock())
            for node, ui in entry.uis.items():
                await self._courier.send(self._outputs.take(node, ui))
        for output in await self._last_arrivals():
            yield OutputSaved(self._job.id, output)
        async for output in self._outputs.take_temp():
            yield OutputSaved(self._job.id, output)
        self._is_reused = any(node in attempt.cached for node in self._nodes_with_outputs())
        if (why := self._failure(entry, attempt)) is not None:
            raise why
        for block in blocked(attempt.last_words):
            yield self._noted("warning", str(block))
        self._check_that_nothing_is_missing(following, entry)

    async def _last_arrivals(self) -> Iterator[Output]:
        """Wait for what is on its way; once the job is canceled, not for long any more."""
        if self._courier.is_idle:
            return self._courier.arrived()
        arrivals = asyncio.ensure_future(self._courier.all())
        wish = asyncio.ensure_future(self._wish_to_cancel.wait())
        try:
            await asyncio.wait({arrivals, wish}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({arrivals}, timeout=_LAST_ARRIVALS)
            if not arrivals.done():
                raise WasCanceled
            return arrivals.result()
        finally:
            wish.cancel()
            arrivals.cancel()

    def _failure(self, entry: HistoryEntry | None, attempt: Attempt) -> JobFailed | None:
        return failure(attempt.last_words, entry, has_outputs=bool(self._outputs.saved))

    def _nodes_with_outputs(self) -> set[str]:
        outputs = {output.node_id for output in self._outputs.saved}
        return outputs | {file.node_id for file in self._outputs.missing}

    def _check_that_nothing_is_missing(
        self, following: Following, entry: HistoryEntry | None
    ) -> None:
        """Raise when a success that was heard in pieces may have left outputs behind."""
        if entry is None and following.was_deaf:
            raise JobLost("The job succeeded, but the history that names its outputs is gone")
        for node_id in sorted(live_nodes(self._job.graph) | self._outputs.live_nodes):
            if not following.heard_all_of(node_id):
                raise OutputUnavailable(
                    f"Node {node_id} ({self._current.class_of(node_id)}) sends its pictures only "
                    "live, and the connection was lost meanwhile. Save them with SaveImage to be "
                    "safe"
                )

    @property
    def _current(self) -> Attempt:
        assert self._attempt is not None
        return self._attempt

    def _ended(self, status: JobStatus, error: JobError | None = None) -> StatusChanged:
        now = self._clock()
        timings = Timings()
        if self._attempt is not None:
            timings = Timings(
                queued=self._attempt.seconds_queued(now),
                running=self._attempt.seconds_running(now),
                nodes=self._attempt.seconds_by_node,
            )
        return StatusChanged(
            self._job.id,
            status,
            error=error,
            outputs_reused=self._is_reused,
            timings=timings,
        )

    def _noted(self, level: str, message: str, **details: str) -> Noted:
        return Noted(self._job.id, "warning" if level == "warning" else "info", message, details)

    def _skipped(self, node: str, told: Mapping[str, object]) -> Noted:
        errors = told.get("errors")
        reasons = [
            f"{error.get('message')} ({error.get('details')})"
            for error in (errors if isinstance(errors, list) else [])
            if isinstance(error, dict)
        ]
        kind = self._current.class_of(node) or "unknown"
        return self._noted(
            "warning",
            f"Outputs that need node {node} ({kind}) are left out: {'; '.join(reasons)}",
            node_id=node,
        )
