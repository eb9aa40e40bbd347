"""The application with keys, asked in this process by callers of different keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from comfyserve.host import Host, open_host
from comfyserve.server.app import create_app
from comfyserve.settings import BackendSettings, Settings

NOWHERE = "http://127.0.0.1:9"
"""An address at which no ComfyUI answers, so that jobs wait."""

ROOT = "http://127.0.0.1:8189"
GRAPH = {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 3}}}


class Asked:
    """An application that runs, and a client of it for each caller."""

    def __init__(self, app: FastAPI, stack: AsyncExitStack) -> None:
        self.app = app
        self._stack = stack

    @property
    def host(self) -> Host:
        """What it holds open."""
        host: Host = self.app.state.host
        return host

    async def by(self, **headers: str) -> httpx.AsyncClient:
        """A client that sends these headers; underscores stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        # Raised by a test's own mistake, an error shall be seen as what it is.
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        client = httpx.AsyncClient(transport=transport, base_url=ROOT, headers=named)
        return await self._stack.enter_async_context(client)

    async def with_key(self, name: str, **may: Any) -> httpx.AsyncClient:
        """A client that sends a new key, which may do so much."""
        return await self.by(authorization=f"Bearer {await self.secret(name, **may)}")

    async def secret(self, name: str, **may: Any) -> str:
        """The secret of a new key."""
        return (await self.host.access.create(name, **may)).secret


@asynccontextmanager
async def asked(folder: Path, **settings: Any) -> AsyncIterator[Asked]:
    """The application with its data in *folder*, for the time of the block."""
    told = {"data": folder, "grace": 1.0, "backends": (BackendSettings(NOWHERE),), **settings}
    chosen = Settings(**told)
    app = create_app(lambda counts: open_host(chosen, watch=counts.watch), chosen)
    async with app.router.lifespan_context(app), AsyncExitStack() as stack:
        yield Asked(app, stack)


async def submitted(client: httpx.AsyncClient, **others: Any) -> dict[str, Any]:
    """A job that the client handed in; it waits."""
    answer = await client.post("/api/v2/jobs", json={"workflow": GRAPH, **others})
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def uploaded(client: httpx.AsyncClient, content: bytes = b"fox", **said: Any) -> Any:
    """An asset that the client brought."""
    form = {"content_type": "text/plain", "file_path": "fox.txt", **said}
    answer = await client.post("/api/v2/assets", data=form, files={"file": ("fox.txt", content)})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """The status of an answer, and the code in its error body."""
    return answer.status_code, answer.json()["error"]["code"]
