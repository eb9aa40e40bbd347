"""The async client: workflows in, outputs out, on one ComfyUI or comfyserve."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob
from comfyserve.client.output_folder import OutputFolder
from comfyserve.client.servers import Address, Run, Server, open_server
from comfyserve.client.spool import Keeper, Spool
from comfyserve.client.workflow_inputs import Workflows, WorkflowSource
from comfyserve.comfy.http import Timeouts
from comfyserve.errors import ComfyServeError, NoComfyserve
from comfyserve.events import StatusChanged
from comfyserve.jobs import Job
from comfyserve.outputs import Sink
from comfyserve.workflows.workflow import Bound, Workflow

if TYPE_CHECKING:
    from comfyserve.client.hosted import Hosted
    from comfyserve.client.hosted_workflows import AsyncHostedWorkflows
    from comfyserve.client.submission import CallWish

DEFAULT_SERVER = "http://127.0.0.1:8188"
"""Where ComfyUI listens unless it is told otherwise."""

CANCEL_TIMEOUT = 5.0
"""Seconds to tell a server that a job is canceled because nobody waits for it any more."""


class AsyncClient:
    """Runs workflows on the server at *server*; use it with ``async with``.

    That is a ComfyUI, or a comfyserve in front of some; which of them is found out when it is
    first needed, and makes no difference to what can be done. *server* defaults to the
    environment's ``COMFYSERVE_SERVER``, then to `DEFAULT_SERVER`; it may hold a path prefix.
    *headers* and *token* are for whoever guards it. *timeout* is how many
    seconds `run` waits unless it is told otherwise, *timeouts* how long single requests may take.
    Outputs are saved in *output_dir*; without one, in a temporary folder of the client's own.

    Leaving the block stops listening, and leaves the server's jobs alone: cancel the ones that
    should not go on.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        verify_tls: bool = True,
        timeout: float | None = None,
        timeouts: Timeouts | None = None,
        output_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.server = server or os.environ.get("COMFYSERVE_SERVER") or DEFAULT_SERVER
        self.timeout = timeout
        self.output_dir = output_dir
        self._address = Address(
            self.server, headers or {}, token, verify_tls, timeouts or Timeouts()
        )
        self._address.http()  # an address that no server can have is better known at once
        self._workflows = Workflows()
        self._server: Server | None = None
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()
        self._random = random.Random()
        self._spool = Spool()
        self._followed: dict[asyncio.Task[None], AsyncJobHandle] = {}
        self._canceling: set[asyncio.Task[None]] = set()
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        try:
            await self._tell_cancellations()
        finally:
            for task, handle in self._followed.items():
                handle.leave()
                task.cancel()
            await asyncio.gather(*self._followed, return_exceptions=True)
            await self._opened.aclose()
            await asyncio.to_thread(self._spool.close)

    async def _tell_cancellations(self) -> None:
        """Let the server hear of jobs that are being canceled right now."""
        await asyncio.sleep(0)  # a run that was canceled just before starts to tell it only now
        if self._canceling:
            await asyncio.wait(self._canceling, timeout=CANCEL_TIMEOUT)

    async def run(
        self,
        workflow: WorkflowSource,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: str | os.PathLike[str] | None = None,
        keep_temp: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - the sync client's too
        **named: Any,
    ) -> FinishedJob:
        """Run a workflow with *inputs* (or *named* ones) and return what it made.

        Raises what `submit` and `AsyncJobHandle.result` raise. After *timeout* seconds that is
        `JobTimedOut`, and the job goes on; canceling this call cancels the job on its server. Where
        the server cannot be told in time, a note on the `asyncio.CancelledError` says so.
        """
        handle = await self.submit(
            workflow, inputs, output_dir=output_dir, keep_temp=keep_temp, **named
        )
        return await self._finish(handle, timeout)

    async def submit(
        self,
        workflow: WorkflowSource,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: str | os.PathLike[str] | None = None,
        keep_temp: bool = False,
        **named: Any,
    ) -> AsyncJobHandle:
        """Start a job and return its handle at once.

        A file input is a path, bytes, an open binary file, or an output of an earlier job. Outputs
        go to *output_dir*, else to the client's; temporary ones only with *keep_temp*, or where
        nothing else was saved.

        Raises `WorkflowUnreadable`, `GraphInvalid`, `InvalidInputs`, `OutputUnwritable` where
        *output_dir* takes no files, or `BackendError`; what the server says of the graph comes
        with the handle's result.
        """
        given = {**(inputs or {}), **named}
        ready = await self.bind(workflow, given)
        job = Job(str(uuid.uuid4()), ready.graph, ready.files, ready.seeds)
        sink, keeper = self._sink(output_dir)
        server = await self._at_server()
        run = server.run(job, sink, keep_temp=keep_temp)
        handle = self._start(run, job, ready.inputs, keeper, given)
        if server.names_jobs:
            await self._told(handle)
        return handle

    @property
    def workflows(self) -> AsyncHostedWorkflows:
        """The workflows that a comfyserve hosts, by name: ``client.workflows["portrait"]``."""
        from comfyserve.client.hosted_workflows import AsyncHostedWorkflows

        return AsyncHostedWorkflows(self._at_hosted, self._call, self._finish)

    async def cancel(self, job_id: str) -> None:
        """Cancel exactly this job on the server, in its queue or while it runs."""
        server = await self._at_server()
        for handle in self._followed.values():
            if handle.id == job_id:
                return await handle.cancel()
        await server.cancel(job_id)

    async def describe(self, workflow: WorkflowSource) -> Workflow:
        """The workflow with its parameters, as the server's nodes describe them."""
        return await self._workflows.described(workflow, await self._at_server())

    async def bind(
        self, workflow: WorkflowSource, inputs: Mapping[str, Any] | None = None
    ) -> Bound:
        """The graph that `submit` would run with these inputs, and what it needs."""
        server = await self._at_server()
        return await self._workflows.bound(workflow, inputs or {}, server, self._random)

    async def system_stats(self) -> Mapping[str, Any]:
        """What the server says of itself; a ComfyUI tells its version, memory and devices."""
        return await (await self._at_server()).system_stats()

    async def _at_server(self) -> Server:
        """The server, which is opened once it is known what it is."""
        if not self._open:
            raise RuntimeError("the client is not open; use it with 'async with AsyncClient(..)'")
        async with self._opening:
            if self._server is None:
                opened = await self._opened.enter_async_context(open_server(self._address))
                self._server = opened
            return self._server

    async def _at_hosted(self) -> Hosted:
        """The server, which has to be a comfyserve."""
        from comfyserve.client.hosted import Hosted

        server = await self._at_server()
        if not isinstance(server, Hosted) or server.api.is_official:
            raise NoComfyserve(server.url, "hosts no workflows by name")
        return server

    async def _call(
        self,
        wish: CallWish,
        given: object,
        output_dir: str | os.PathLike[str] | None,
        keep_temp: bool,
    ) -> AsyncJobHandle:
        """Start a job of a hosted workflow; what the server has against it is raised."""
        sink, keeper = self._sink(output_dir)
        run = (await self._at_hosted()).call(wish, sink, keep_temp=keep_temp)
        handle = self._start(run, Job(wish.id, {}), {}, keeper, given)
        await self._told(handle)
        if run.taken is None:
            await handle.result()  # raises why the server did not take it
        else:
            handle.learn(run.taken.get("inputs") or {}, run.taken.get("seeds") or {})
        return handle

    def _sink(
        self, output_dir: str | os.PathLike[str] | None
    ) -> tuple[Sink, Callable[[str], Keeper] | None]:
        """Where outputs go, and what keeps them there where that is the client's own folder."""
        chosen = output_dir or self.output_dir
        if chosen is None:
            self._spool.prepare()
            return self._spool, self._spool.keeper
        folder = OutputFolder(chosen)
        folder.prepare()
        return folder, None

    def _start(
        self,
        run: Run,
        job: Job,
        inputs: Mapping[str, Any],
        keeper: Callable[[str], Keeper] | None,
        given: object,
    ) -> AsyncJobHandle:
        handle = AsyncJobHandle(job, inputs, lambda: self._cancel(run, job.id), keeper)
        task = asyncio.create_task(_follow(run, handle, given), name=f"job {job.id}")
        self._followed[task] = handle
        task.add_done_callback(self._followed.pop)
        return handle

    async def _finish(
        self,
        handle: AsyncJobHandle,
        timeout: float | None,  # noqa: ASYNC109 - as `run`
    ) -> FinishedJob:
        """Wait for the job; whoever stops waiting does not want it any more."""
        try:
            return await handle.result(self.timeout if timeout is None else timeout)
        except asyncio.CancelledError as error:
            if not await cancel_quickly(handle):
                error.add_note(may_go_on(handle.id, self.server))
            raise

    async def _told(self, handle: AsyncJobHandle) -> None:
        """Wait until the server has the job, or will not take it: then its id is final."""
        try:
            async with aclosing(handle.events()) as events:
                async for event in events:
                    if isinstance(event, StatusChanged):
                        return
        except asyncio.CancelledError as error:
            if not await cancel_quickly(handle):
                error.add_note(may_go_on(handle.id, self.server))
            raise

    async def _cancel(self, run: Run, job_id: str) -> None:
        telling = asyncio.create_task(run.cancel(), name=f"cancel {job_id}")
        self._canceling.add(telling)
        telling.add_done_callback(self._canceling.discard)
        await telling


async def cancel_quickly(handle: AsyncJobHandle) -> bool:
    """Cancel a job nobody waits for any more; True only once its server was told."""
    try:
        async with asyncio.timeout(CANCEL_TIMEOUT):
            await handle.cancel()
    except (TimeoutError, ComfyServeError):
        return False
    return True


def may_go_on(job_id: str, server: str) -> str:
    """What a person should know when a server could not be told to cancel."""
    return f"{server} could not be told to cancel job {job_id}, which may go on there."


async def _follow(run: Run, handle: AsyncJobHandle, inputs: object) -> None:
    # The inputs stay referred to, so that a spooled file among them lives until it was sent.
    try:
        async with aclosing(aiter(run)) as events:
            async for event in events:
                handle.hear(event)
    except Exception as error:  # it belongs to those who wait for the job
        handle.fail(error)
