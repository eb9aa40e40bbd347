"""One job on one backend, from its files to its last output. ComfyUI's words stop here.

The backend's socket tells early what happens; `/queue` and `/history` are asked whenever it is
lost, silent or done, so a lost message can neither hang a job nor falsify its end.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Final

from comfyserve.comfy.attempt import Attempt
from comfyserve.comfy.backend import Backend, Gone, Running, Waiting
from comfyserve.comfy.protocol import (
    Cached,
    Executed,
    Message,
    Picture,
    QueueLength,
)
from comfyserve.comfy.records import HistoryEntry
from comfyserve.comfy.socket import Arrived, Heard, Listener, Nudged, SocketLost, SocketOpened
from comfyserve.comfy.verdict import blocked, failure
from comfyserve.errors import (
    BackendError,
    BackendUnreachable,
    JobFailed,
    JobInterrupted,
    JobLost,
    JobRemoved,
    OutputUnavailable,
)
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import Job, JobError, JobStatus, Preview, Timings
from comfyserve.outputs import Courier, Outputs, Sink, names_of
from comfyserve.workflows.graph import Graph, Node, nodes_of, upstream, with_inputs
from comfyserve.workflows.node_catalog import NodeCatalog

__all__ = ["Execution", "Sink", "cancel", "run"]

_LAST_WORD: Final = 0.5
"""Seconds to wait for the very last message once a run has said how it ended."""

_SETTLE: Final = (0.0, 0.02, 0.1, 0.4, 1.0)
"""Pauses in seconds while the history of an ended prompt is still empty."""

_EMPTYING: Final = 0.3
"""Seconds a server's worker takes to wake and empty its cache; nothing tells when it has."""


def run(backend: Backend, job: Job, sink: Sink, *, keep_temp: bool = False) -> Execution:
    """Run *job* on *backend* and bring its outputs into *sink*.

    ``async for event in run(...)`` tells what happens, ending with a terminal `StatusChanged`;
    a job that fails is told, not raised. Raised are `GraphRejected` and the other
    `BackendError`s while the backend has not accepted the job, and `OutputUnwritable` at any
    time. To stop listening leaves the job alone; `Execution.cancel` cancels it.
    """
    return Execution(backend, job, sink, keep_temp=keep_temp)


async def cancel(backend: Backend, job_id: str) -> None:
    """Cancel a job that somebody else follows, or nobody; unknown ids change nothing."""
    await backend.cancel(job_id)


class _Canceled(Exception):
    """The job is off the backend, as asked."""


class Execution:
    """One job on its way through one backend; iterate it once."""

    def __init__(
        self,
        backend: Backend,
        job: Job,
        sink: Sink,
        *,
        keep_temp: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prompt_id = job.id
        self._backend = backend
        self._job = job
        self._outputs = Outputs(backend, sink, keep_temp=keep_temp)
        self._clock = clock
        self._attempt: Attempt | None = None
        self._listener: Listener | None = None
        self._is_canceling = False
        self._is_accepted = False
        self._is_reused = False
        self._was_deaf = False
        self._entry: HistoryEntry | None = None

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        return self._events()

    async def cancel(self) -> None:
        """Ask for this job, and no other, to end; its last event tells whether it did in time."""
        self._is_canceling = True
        if self._is_accepted:
            await self._backend.cancel(self.prompt_id)
        if self._listener is not None:
            self._listener.put_now(Nudged())

    async def _events(self) -> AsyncGenerator[Event, None]:
        yield StatusChanged(self._job.id, JobStatus.QUEUED)
        try:
            async with aclosing(self._attempts()) as events:
                async for event in events:
                    yield event
        except _Canceled:
            yield self._ended(JobStatus.CANCELED)
        except JobFailed as error:
            yield self._ended(JobStatus.FAILED, JobError.of(error))
        except BackendError as error:
            if not self._is_accepted:
                raise
            lost = OutputUnavailable(f"An output could not be brought home: {error.reason}")
            yield self._ended(JobStatus.FAILED, JobError.of(lost))
        else:
            yield self._ended(JobStatus.SUCCEEDED)

    async def _attempts(self) -> AsyncGenerator[Event, None]:
        graph = await self._with_files()
        async with Courier(self._wake) as self._courier:
            async with aclosing(self._try(graph, self._job.id)) as events:
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
        if not self._is_reused:
            raise OutputUnavailable(f"The backend made {lost}, but no longer has it.")
        catalog = await self._backend.node_catalog()
        for node in _readable(graph).values():
            kind = catalog.get(node.class_type)
            if kind is not None and kind.is_paid:
                raise OutputUnavailable(
                    f"The backend has deleted {lost}, and running the graph again would pay for "
                    f"{node} again. Change an input to do so."
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

    async def _with_files(self) -> Graph:
        """Upload the job's files and put the names they got into the graph."""
        names: dict[tuple[str, str], str] = {}
        for file in sorted(self._job.files, key=lambda file: file.mask_of is not None):
            original = None
            if file.mask_of is not None:
                node, name = file.mask_of
                original = names.get(file.mask_of) or self._job.graph[node]["inputs"][name]
            taken = await self._backend.upload(file.upload, mask_of=original)
            names.update(dict.fromkeys(file.targets, taken))
        return with_inputs(self._job.graph, names) if names else self._job.graph

    async def _try(self, graph: Graph, prompt_id: str) -> AsyncGenerator[Event, None]:
        """One attempt: submit, follow to the end, bring home what it made."""
        socket = self._backend.socket
        if not await socket.opened(self._backend.timeouts.connect):
            yield self._noted(
                "info", f"No live messages from the backend ({socket.last_error}); asking instead."
            )
        with socket.listening(prompt_id) as self._listener:
            self._entry = None
            self._attempt = Attempt(graph, self._expected_nodes(graph), self._clock())
            for note in await self._submit(graph, prompt_id, self._listener):
                yield note
            async for event in self._follow(self._listener, self._attempt):
                yield event
        async for event in self._conclude(self._attempt):
            yield event

    async def _submit(self, graph: Graph, prompt_id: str, listener: Listener) -> list[Noted]:
        """Queue the graph; what the backend will leave out of it is worth a note each."""
        if self._is_canceling:
            raise _Canceled
        accepted = await self._backend.submit(graph, prompt_id, extra_data=self._job.extra_data)
        if accepted.prompt_id != prompt_id:
            self._backend.socket.also(accepted.prompt_id, listener)
        self.prompt_id = accepted.prompt_id
        self._is_accepted = True
        await self._cancel_if_asked()
        return [self._skipped(node, told) for node, told in accepted.node_errors.items()]

    async def _cancel_if_asked(self) -> None:
        """A wish to cancel that came while the graph was on its way there."""
        if self._is_canceling:
            await self._backend.cancel(self.prompt_id)

    def _expected_nodes(self, graph: Graph) -> list[str]:
        """The nodes that lead to an output; all of them where nobody knows the outputs."""
        nodes = _readable(graph)
        catalog = self._backend.known_catalog
        ends = [node.id for node in nodes.values() if _is_output(catalog, node.class_type)]
        return list(upstream(nodes, ends)) if ends else list(nodes)

    async def _follow(self, listener: Listener, attempt: Attempt) -> AsyncIterator[Event]:
        """Tell what happens until the attempt has ended."""
        status, told, asked_at = JobStatus.QUEUED, None, self._clock()
        place: int | None = None
        away_since: float | None = None
        while not attempt.has_ended:
            heard = await listener.hear(self._patience(attempt, away_since))
            if isinstance(heard, SocketLost):
                self._was_deaf = True
                yield self._noted("info", f"Live messages were lost ({heard.reason}).")
            if self._must_ask(heard, attempt, self._clock() - asked_at):
                asked_at = self._clock()
                try:
                    position = await self._ask(attempt, is_silent=heard is None)
                    away_since = None
                except BackendError as error:
                    away_since = away_since if away_since is not None else asked_at
                    self._give_up_after(error, asked_at - away_since)
                    continue
                if position is not None and position != place:
                    place = position
                    yield StatusChanged(self._job.id, JobStatus.QUEUED, queue_position=position)
            elif isinstance(heard, Message):
                attempt.hear(heard, self._clock())
            now_is = self._status(attempt)
            if now_is is not status:
                status = now_is
                yield StatusChanged(self._job.id, status)
            if (preview := await self._take_what_came_with(heard, attempt)) is not None:
                yield PreviewDrawn(self._job.id, preview)
            for output in self._courier.arrived():
                yield OutputSaved(self._job.id, output)
            if attempt.has_started and attempt.standing != told:
                told = attempt.standing
                yield ProgressMade(self._job.id, attempt.progress(self._clock()))

    def _patience(self, attempt: Attempt, away_since: float | None) -> float:
        """How long to wait for a message before the server itself is asked."""
        timeouts = self._backend.timeouts
        if attempt.last_words:
            return min(_LAST_WORD, timeouts.silence)
        if self._is_canceling or away_since is not None or not self._backend.socket.is_open:
            return timeouts.poll
        return timeouts.silence

    def _must_ask(self, heard: Heard | None, attempt: Attempt, since: float) -> bool:
        match heard:
            case None | SocketLost() | SocketOpened() | Nudged():
                return True
            case QueueLength():
                return not attempt.has_started and since >= self._backend.timeouts.poll
            case _:
                return False

    async def _ask(self, attempt: Attempt, *, is_silent: bool) -> int | None:
        """Learn the truth from the server; the place in its queue while the job waits there."""
        knew_start, knew_end = attempt.has_started, bool(attempt.last_words)
        socket = self._backend.socket
        found = await self._backend.whereabouts(self.prompt_id)
        now = self._clock()
        match found:
            case HistoryEntry():
                self._entry = found
                attempt.end(now)
            case Running():
                attempt.start(now)
            case Waiting(position=position):
                return position
            case Gone():
                self._explain_absence(attempt)
                attempt.end(now)
        told_too_little = not (knew_end if attempt.has_ended else knew_start)
        if is_silent and told_too_little and socket.is_open:
            self._was_deaf = True
            await socket.reopen()
        return None

    def _explain_absence(self, attempt: Attempt) -> None:
        """Raise why the server no longer knows the job, unless its end was heard."""
        if attempt.last_words:
            return
        if self._is_canceling:
            raise _Canceled
        if attempt.has_started or self._was_deaf:
            raise JobLost(
                "The backend no longer knows the job. It was restarted, or its history was cleared",
            )
        raise JobRemoved("Someone else removed the job from the backend's queue")

    def _give_up_after(self, error: BackendError, seconds: float) -> None:
        """Raise when the backend has been away for too long to believe in its return."""
        refused = isinstance(error, BackendUnreachable) and error.refused
        timeouts = self._backend.timeouts
        if seconds >= (timeouts.lost if refused else timeouts.away):
            raise JobLost(
                f"The backend was lost while the job was there: {error.reason}"
            ) from error

    def _status(self, attempt: Attempt) -> JobStatus:
        if not attempt.has_started:
            return JobStatus.QUEUED
        return JobStatus.CANCELING if self._is_canceling else JobStatus.RUNNING

    async def _take_what_came_with(self, heard: Heard | None, attempt: Attempt) -> Preview | None:
        """Send for the outputs that a message announces or holds; a preview is handed back."""
        match heard:
            case Executed(node_id=node, ui=ui):
                await self._courier.send(self._outputs.take(node, ui))
            case Picture(content_type=kind, data=data):
                source = heard.node_id or attempt.node
                if source is None or not self._is_live_output(attempt.class_of(source), kind):
                    return Preview(source, kind, data)
                await self._courier.send(self._outputs.take_picture(source, heard))
            case _:
                pass
        return None

    def _is_live_output(self, class_type: str | None, content_type: str) -> bool:
        """Nodes like SaveImageWebsocket send their picture over the socket and nowhere else."""
        if class_type is None or content_type != "image/png":
            return False
        return _is_output(self._backend.known_catalog, class_type) or _is_live(class_type)

    async def _conclude(self, attempt: Attempt) -> AsyncIterator[Event]:
        """Read the history, bring home what is still there, and raise if the run failed."""
        entry = self._entry or await self._settled()
        if entry is not None:
            for message in entry.messages:
                if isinstance(message, Cached) and not attempt.cached:
                    attempt.hear(message, self._clock())
            for node, ui in entry.uis.items():
                await self._courier.send(self._outputs.take(node, ui))
        for output in await self._courier.all():
            yield OutputSaved(self._job.id, output)
        async for output in self._outputs.take_temp():
            yield OutputSaved(self._job.id, output)
        self._is_reused = any(node in attempt.cached for node in self._nodes_with_outputs())
        for event in self._judge(attempt, entry):
            yield event
        self._check_live_outputs(attempt)

    async def _settled(self) -> HistoryEntry | None:
        """The history of a prompt that has just ended, which may take a moment to be there."""
        for pause in _SETTLE:
            await asyncio.sleep(pause)
            try:
                entry = await self._backend.history(self.prompt_id)
            except BackendError:
                continue
            if entry is not None:
                return entry
        return None

    def _nodes_with_outputs(self) -> set[str]:
        outputs = {output.node_id for output in self._outputs.saved}
        return outputs | {file.node_id for file in self._outputs.missing}

    def _judge(self, attempt: Attempt, entry: HistoryEntry | None) -> list[Event]:
        """Raise why the run failed, or note what kept it from being whole."""
        words = attempt.last_words
        why = failure(words, entry, has_outputs=bool(self._outputs.saved))
        if isinstance(why, JobInterrupted) and self._is_canceling:
            raise _Canceled
        if why is not None:
            raise why
        return [self._noted("warning", str(block)) for block in blocked(words)]

    def _check_live_outputs(self, attempt: Attempt) -> None:
        """Pictures that travel only over the socket are lost with it."""
        if not self._was_deaf:
            return
        delivered = {output.node_id for output in self._outputs.saved}
        for node in _readable(self._job.graph).values():
            if _is_live(node.class_type) and node.id not in delivered:
                raise OutputUnavailable(
                    f"Node {node.id} ({node.class_type}) sends its pictures only live, and the "
                    "connection was lost meanwhile. Save them with SaveImage to be safe."
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


def _readable(graph: Graph) -> dict[str, Node]:
    """The nodes that are nodes; whether the others are errors is for the backend to say."""
    entries = {
        node: entry
        for node, entry in graph.items()
        if isinstance(entry, Mapping)
        and isinstance(entry.get("class_type"), str)
        and isinstance(entry.get("inputs"), Mapping)
    }
    return nodes_of(entries)


def _is_output(catalog: NodeCatalog | None, class_type: str) -> bool:
    kind = catalog.get(class_type) if catalog is not None else None
    return kind is not None and kind.is_output


def _is_live(class_type: str) -> bool:
    return "websocket" in class_type.lower()
