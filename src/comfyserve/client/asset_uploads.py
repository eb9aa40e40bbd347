"""A job's files as assets of a comfyserve, and their references in the graph."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from comfyserve.assets import InputPath, Upload, content_hash
from comfyserve.client.api import Api
from comfyserve.client.wire import reference
from comfyserve.comfy.uploads import file_name, prepare
from comfyserve.jobs import Job
from comfyserve.workflows.graph import Graph, with_inputs
from comfyserve.workflows.paths import value_at


class AssetUploads:
    """Brings files to one server; bytes that it has already are not sent again."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def referred_to(self, job: Job) -> Graph:
        """The job's graph with references where its files are needed, once the server has them."""
        references: dict[InputPath, object] = {}
        for file in job.files:
            name, asset = await self._asset(file.upload)
            for target in file.targets:
                mask_of: object = file.mask_of
                if mask_of == target:  # one place for both, so the mask brings its image along
                    mask_of = references.get(target) or value_at(job.graph, target)
                references[target] = reference(asset, name, mask_of)
        return with_inputs(job.graph, references) if references else job.graph

    async def asset_id(self, upload: Upload) -> str:
        """The asset that has these bytes, once the server has them."""
        _, asset = await self._asset(upload)
        return str(asset["id"])

    async def _asset(self, upload: Upload) -> tuple[str, Mapping[str, Any]]:
        digest, content_type = await asyncio.to_thread(prepare, upload)
        name, hash = file_name(upload, digest, content_type, None), content_hash(digest)
        async with self._locks[hash]:  # two jobs with the same file send it once
            asset = await self._api.asset_by_hash(hash, name)
            if asset is None:
                asset = await self._api.upload(
                    upload, file_path=name, content_type=content_type, hash=hash
                )
        with self._api.reading("the upload"):
            return name, {"id": str(asset["id"]), "hash": asset.get("hash")}
