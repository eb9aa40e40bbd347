"""The least a program can do to run a job through a comfyserve: one session, and its events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.budgets import WrongResult

TERMINAL = frozenset({"succeeded", "failed", "canceled", "expired"})


@dataclass(frozen=True, slots=True)
class ServerClient:
    """A persistent connection to one server."""

    url: str
    session: aiohttp.ClientSession

    async def run(self, graph: Mapping[str, Any]) -> bytes:
        """Run *graph* and return the bytes of its first output."""
        return await self.first_content(await self.submit(graph))

    async def first_content(self, job_id: str) -> bytes:
        """The bytes of a job's first output, once it succeeded. Raises `WrongResult`."""
        output = await self.first_output(job_id)
        async with self.session.get(output["url"]) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def submit(self, graph: Mapping[str, Any]) -> str:
        """Hand in *graph*; the job's id."""
        body = {"workflow": graph}
        async with self.session.post(f"{self.url}/api/v2/jobs", json=body) as answer:
            if answer.status != 201:
                raise WrongResult(await answer.text())
            job_id: str = (await answer.json())["id"]
        return job_id

    async def first_output(self, job_id: str) -> Mapping[str, Any]:
        """The first output of a job, once it succeeded. Raises `WrongResult` where it did not."""
        first: Mapping[str, Any] | None = None
        status = "never over"
        async with aclosing(self.events(job_id)) as events:
            async for kind, data in events:
                if kind == "output" and first is None:
                    first = data
                elif kind == "status":
                    status = data["status"]
        if first is None or status != "succeeded":
            raise WrongResult(f"job {job_id} is {status} with the output {first}")
        return first

    async def events(self, job_id: str) -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        """The job's events, each with its kind, until the last."""
        kind = ""
        async with self.session.get(f"{self.url}/api/v2/jobs/{job_id}/events") as stream:
            stream.raise_for_status()
            async for line in stream.content:
                if line.startswith(b"event:"):
                    kind = line[6:].strip().decode()
                elif line.startswith(b"data:"):
                    yield kind, json.loads(line[5:])

    async def cancel(self, job_id: str) -> None:
        """Ask for the job's end."""
        async with self.session.post(f"{self.url}/api/v2/jobs/{job_id}/cancel") as answer:
            answer.raise_for_status()

    async def upload(self, name: str, content: bytes) -> Mapping[str, Any]:
        """Send a file; what stands for it in a graph."""
        form = aiohttp.FormData()
        form.add_field("content_type", "image/png")
        form.add_field("file_path", name)
        form.add_field("file", content, filename=name, content_type="image/png")
        async with self.session.post(f"{self.url}/api/v2/assets", data=form) as answer:
            answer.raise_for_status()
            asset = await answer.json()
        return {"__type": "core/ASSET", "info": {"id": asset["id"]}}


@asynccontextmanager
async def connect(url: str, key: str | None = None) -> AsyncIterator[ServerClient]:
    """Open the session, and close it; *key* goes along with every request."""
    timeout = aiohttp.ClientTimeout(total=300)
    # A preview is one line, and may be larger than what is read at once by default.
    async with aiohttp.ClientSession(
        timeout=timeout,
        read_bufsize=2**22,
        connector=aiohttp.TCPConnector(limit=0),
        headers=None if key is None else {"Authorization": f"Bearer {key}"},
    ) as session:
        yield ServerClient(url, session)
