"""The client for blocking code: the async one, on a thread of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from comfyserve.client.async_client import AsyncClient, cancel_quickly, may_go_on
from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob
from comfyserve.client.loop_thread import LoopThread
from comfyserve.client.output_files import OutputFile
from comfyserve.client.workflow_inputs import WorkflowSource
from comfyserve.comfy.http import Timeouts
from comfyserve.events import Event
from comfyserve.jobs import JobStatus, Metadata, Progress, Timings
from comfyserve.workflows.workflow import Bound, Workflow

if TYPE_CHECKING:
    from comfyserve.client.hosted_workflows import AsyncHostedWorkflow, Content

T = TypeVar("T")


class Client:
    """Runs workflows on a ComfyUI or a comfyserve; use it with ``with``, or `close` it.

    Takes what `AsyncClient` takes, and does what it does. It may be used from several threads.
    Ctrl-C while it waits for a job cancels exactly that job on its server.
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
        self._client = AsyncClient(
            server,
            headers=headers,
            token=token,
            verify_tls=verify_tls,
            timeout=timeout,
            timeouts=timeouts,
            output_dir=output_dir,
        )
        self._thread = LoopThread(self._client, name="comfyserve client")

    @property
    def server(self) -> str:
        """The server's address."""
        return self._client.server

    def run(
        self,
        workflow: WorkflowSource,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: str | os.PathLike[str] | None = None,
        keep_temp: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> FinishedJob:
        """Run a workflow and return what it made; see `AsyncClient.run`."""
        handle = self.submit(workflow, inputs, output_dir=output_dir, keep_temp=keep_temp, **named)
        return handle.result(self._client.timeout if timeout is None else timeout)

    def submit(
        self,
        workflow: WorkflowSource,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: str | os.PathLike[str] | None = None,
        keep_temp: bool = False,
        **named: Any,
    ) -> JobHandle:
        """Start a job and return its handle at once; see `AsyncClient.submit`."""
        submitting = self._client.submit(
            workflow, inputs, output_dir=output_dir, keep_temp=keep_temp, **named
        )
        return JobHandle(self._thread.call(submitting), self._thread, self.server)

    @property
    def workflows(self) -> HostedWorkflows:
        """The workflows that a comfyserve hosts, by name: ``client.workflows["portrait"]``."""
        return HostedWorkflows(self._client, self._thread)

    def cancel(self, job_id: str) -> None:
        """Cancel exactly this job on the server, in its queue or while it runs."""
        self._thread.call(self._client.cancel(job_id))

    def describe(self, workflow: WorkflowSource) -> Workflow:
        """The workflow with its parameters, as the server's nodes describe them."""
        return self._thread.call(self._client.describe(workflow))

    def bind(self, workflow: WorkflowSource, inputs: Mapping[str, Any] | None = None) -> Bound:
        """The graph that `submit` would run with these inputs, and what it needs."""
        return self._thread.call(self._client.bind(workflow, inputs))

    def system_stats(self) -> Mapping[str, Any]:
        """What the server says of itself; see `AsyncClient.system_stats`."""
        return self._thread.call(self._client.system_stats())

    def close(self) -> None:
        """Stop listening; the server's jobs go on unless they were canceled."""
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class HostedWorkflows:
    """All workflows that the server hosts, for blocking code; see `AsyncHostedWorkflows`."""

    def __init__(self, client: AsyncClient, thread: LoopThread) -> None:
        self._client = client
        self._thread = thread

    def __getitem__(self, name: str) -> HostedWorkflow:
        """The workflow of that name; nobody is asked yet whether there is one."""
        return HostedWorkflow(self._client.workflows[name], self._client, self._thread)

    def __iter__(self) -> Iterator[str]:
        """The names of what is hosted."""
        return iter([str(item["name"]) for item in self.list()])

    def list(self) -> list[dict[str, Any]]:
        """What is hosted, by name: the documents of ``GET /api/workflows``."""
        return self._thread.call(self._client.workflows.list())

    def publish(self, name: str, file: Content, sidecar: Content | None = None) -> dict[str, Any]:
        """Host a workflow's file under this name; see `AsyncHostedWorkflows.publish`."""
        return self._thread.call(self._client.workflows.publish(name, file, sidecar))

    def withdraw(self, name: str) -> None:
        """Host it no longer; see `AsyncHostedWorkflows.withdraw`."""
        self._thread.call(self._client.workflows.withdraw(name))


class HostedWorkflow:
    """One hosted workflow, for blocking code; call it to run it: ``workflow(prompt="a fox")``."""

    def __init__(
        self, workflow: AsyncHostedWorkflow, client: AsyncClient, thread: LoopThread
    ) -> None:
        self.name = workflow.name
        self._workflow = workflow
        self._client = client
        self._thread = thread

    @property
    def schema(self) -> dict[str, Any]:
        """What it takes, as the JSON Schema of an object. Raises `WorkflowNotFound`."""
        return self._thread.call(self._workflow.schema())

    def describe(self) -> dict[str, Any]:
        """All that the server tells of it; see `AsyncHostedWorkflow.describe`."""
        return self._thread.call(self._workflow.describe())

    def validate(self, inputs: Mapping[str, Any] | None = None, **named: Any) -> dict[str, Any]:
        """What would come of a call; see `AsyncHostedWorkflow.validate`."""
        return self._thread.call(self._workflow.validate(inputs, **named))

    def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: str | os.PathLike[str] | None = None,
        keep_temp: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> FinishedJob:
        """Run it and return what it made; see `AsyncHostedWorkflow.__call__`."""
        handle = self.submit(inputs, output_dir=output_dir, keep_temp=keep_temp, **named)
        return handle.result(self._client.timeout if timeout is None else timeout)

    def submit(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: str | os.PathLike[str] | None = None,
        keep_temp: bool = False,
        metadata: Metadata | None = None,
        priority: int | None = None,
        **named: Any,
    ) -> JobHandle:
        """Start a job and return its handle; see `AsyncHostedWorkflow.submit`."""
        submitting = self._workflow.submit(
            inputs,
            output_dir=output_dir,
            keep_temp=keep_temp,
            metadata=metadata,
            priority=priority,
            **named,
        )
        return JobHandle(self._thread.call(submitting), self._thread, self._client.server)


class JobHandle:
    """One submitted job, for blocking code; see `AsyncJobHandle`.

    Ctrl-C while one of its methods waits cancels the job on its server.
    """

    def __init__(self, handle: AsyncJobHandle, thread: LoopThread, server: str) -> None:
        self._handle = handle
        self._thread = thread
        self._server = server

    @property
    def id(self) -> str:
        """The job's id; see `AsyncJobHandle.id`."""
        return self._handle.id

    @property
    def status(self) -> JobStatus:
        """Where the job stands."""
        return self._handle.status

    @property
    def progress(self) -> Progress:
        """How far the job is."""
        return self._handle.progress

    @property
    def outputs(self) -> tuple[OutputFile, ...]:
        """The outputs saved so far."""
        return self._handle.outputs

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The inputs really used."""
        return self._handle.inputs

    @property
    def seeds(self) -> Mapping[str, int]:
        """The seeds really used, by address."""
        return self._handle.seeds

    @property
    def outputs_reused(self) -> bool:
        """The server had everything from before; known at the end."""
        return self._handle.outputs_reused

    @property
    def timings(self) -> Timings:
        """How long the job took, or has taken by now; see `AsyncJobHandle.timings`."""
        return self._handle.timings

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the events after number *after*, in order, until the job's last one."""
        stream = self._handle.events(after)
        while (event := self._await(_next(stream))) is not None:
            yield event

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait until the job ended, well or not; see `AsyncJobHandle.wait`."""
        return self._await(self._handle.wait(timeout))

    def result(self, timeout: float | None = None) -> FinishedJob:
        """Wait for the job to succeed, and return what it made; see `AsyncJobHandle.result`."""
        return self._await(self._handle.result(timeout))

    def cancel(self) -> None:
        """Cancel exactly this job on its server; one that ended stays as it is."""
        self._thread.call(self._handle.cancel())

    def _await(self, waiting: Coroutine[Any, Any, T]) -> T:
        try:
            return self._thread.call(waiting)
        except KeyboardInterrupt as error:
            if not self._thread.call(cancel_quickly(self._handle)):
                error.add_note(may_go_on(self.id, self._server))
            raise


async def _next(stream: AsyncGenerator[Event]) -> Event | None:
    return await anext(stream, None)
