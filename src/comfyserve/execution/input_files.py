"""The files that a job brings along: uploaded, and named in its graph as the backend took them."""

from __future__ import annotations

from comfyserve.assets import InputPath
from comfyserve.comfy.backend import Backend
from comfyserve.jobs import Job
from comfyserve.workflows.graph import Graph, with_inputs
from comfyserve.workflows.paths import value_at


async def with_files(backend: Backend, job: Job) -> Graph:
    """Upload the job's files and put the names they got into the graph."""
    names: dict[InputPath, str] = {}
    for file in sorted(job.files, key=lambda file: file.mask_of is not None):
        original = None
        if file.mask_of is not None:
            original = names.get(file.mask_of) or value_at(job.graph, file.mask_of)
        taken = await backend.upload(file.upload, mask_of=original)
        names.update(dict.fromkeys(file.targets, taken))
    return with_inputs(job.graph, names) if names else job.graph
