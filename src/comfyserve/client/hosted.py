"""A comfyserve: it keeps and runs the jobs; the client hands them in and brings home outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfyserve.client.api import Api
from comfyserve.client.asset_uploads import AssetUploads
from comfyserve.client.hosted_run import HostedRun
from comfyserve.client.submission import CallWish, GraphWish
from comfyserve.comfy.http import Http, Timeouts
from comfyserve.errors import BackendAnswerInvalid
from comfyserve.jobs import Job
from comfyserve.outputs import Sink
from comfyserve.workflows.node_catalog import NodeCatalog


class Hosted:
    """One comfyserve; see `servers.Server`.

    One that is official and no more does not tell its nodes: workflows are read and bound there
    without limits and choices.
    """

    def __init__(self, http: Http, timeouts: Timeouts, *, is_official: bool) -> None:
        self.api = Api(http, timeouts, is_official=is_official)
        self.names_jobs = is_official
        self._uploads = AssetUploads(self.api)
        self._catalog: NodeCatalog | None = None

    @property
    def url(self) -> str:
        """The server's address, without credentials."""
        return self.api.url

    @property
    def known_catalog(self) -> NodeCatalog | None:
        """The node catalogue if somebody asked for it before; costs nothing."""
        return self._catalog

    async def node_catalog(self, *, refresh: bool = False) -> NodeCatalog | None:
        """The nodes of the ComfyUIs behind the server, asked once unless told to *refresh*."""
        if self.api.is_official:
            return None
        if self._catalog is None or refresh:
            document = await self.api.object_info(refresh=refresh)
            if not any(isinstance(node, dict) and "input" in node for node in document.values()):
                raise BackendAnswerInvalid(self.api.url, "GET /api/object_info names no node")
            self._catalog = NodeCatalog.from_json(document)
        return self._catalog

    async def system_stats(self) -> Mapping[str, Any]:
        """What the server says of itself and of the ComfyUIs behind it."""
        return await self.api.health()

    async def cancel(self, job_id: str) -> None:
        """Cancel a job, whoever follows it. Raises `NotFound`."""
        await self.api.cancel(job_id)

    def run(self, job: Job, sink: Sink, *, keep_temp: bool) -> HostedRun:
        """Hand in a job and follow it."""
        return HostedRun(self.api, self._uploads, GraphWish(job), sink, keep_temp=keep_temp)

    def call(self, wish: CallWish, sink: Sink, *, keep_temp: bool) -> HostedRun:
        """Hand in a job of a workflow that the server hosts, and follow it."""
        return HostedRun(self.api, self._uploads, wish, sink, keep_temp=keep_temp)
