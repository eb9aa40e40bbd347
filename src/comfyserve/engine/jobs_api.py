"""`/api/jobs`: queue and history as one list of jobs, the way newer servers offer them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from comfyserve.engine.prompt_queue import Prompt, PromptQueue

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
SHOWN_MEDIA = frozenset({"images", "video", "audio", "3d", "text"})
MODEL_SUFFIXES = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
TEXT_SUFFIXES = (".txt", ".md", ".json")
LONGEST_TEXT = 1024

Job = dict[str, Any]


class JobRoutes:
    """List, get and cancel."""

    def __init__(self, queue: PromptQueue) -> None:
        self.queue = queue

    def all(self) -> list[web.RouteDef]:
        return [
            web.get("/api/jobs", self.list_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
            web.post("/api/jobs/cancel", self.cancel_jobs),
            web.post("/api/jobs/{job_id}/cancel", self.cancel_job),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        try:
            asked = _Asked(request.query)
        except ValueError as error:
            return _bad(str(error))
        jobs = [job for job in self._jobs() if asked.wants(job)]
        jobs.sort(key=asked.sort_key, reverse=asked.newest_first)
        end = None if asked.limit is None else asked.offset + asked.limit
        page = jobs[asked.offset : end]
        return web.json_response(
            {
                "jobs": page,
                "pagination": {
                    "offset": asked.offset,
                    "limit": asked.limit,
                    "total": len(jobs),
                    "has_more": asked.offset + len(page) < len(jobs),
                },
            }
        )

    async def get_job(self, request: web.Request) -> web.Response:
        job_id = request.match_info["job_id"]
        entry = self.queue.history().get(job_id)
        if entry is not None:
            return web.json_response(finished_job(job_id, entry) | _details(entry))
        for job, prompt in self._unfinished():
            if prompt.prompt_id == job_id:
                workflow = {"prompt": prompt.graph, "extra_data": prompt.extra_data}
                return web.json_response(job | {"workflow": workflow})
        return web.json_response({"error": "Job not found"}, status=404)

    async def cancel_job(self, request: web.Request) -> web.Response:
        """Cancel one job. One that ended, or that nobody knows, is no error."""
        return web.json_response({"cancelled": self._cancel(request.match_info["job_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        """Cancel those of the ids in ``job_ids`` that wait or run."""
        try:
            ids = (await request.json())["job_ids"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return _bad('The body must be JSON: {"job_ids": [..]}')
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            return _bad("job_ids must be a list of ids")
        cancelled = [self._cancel(job_id) for job_id in ids]
        return web.json_response({"cancelled": any(cancelled)})

    def _cancel(self, job_id: str) -> bool:
        # In this order: a job that leaves the queue in between is found running.
        return self.queue.delete([job_id]) or self.queue.interrupt(job_id)

    def _jobs(self) -> Iterator[Job]:
        for job, _ in self._unfinished():
            yield job
        for job_id, entry in self.queue.history().items():
            yield finished_job(job_id, entry)

    def _unfinished(self) -> Iterator[tuple[Job, Prompt]]:
        for prompt in self.queue.running():
            yield unfinished_job(prompt, "in_progress"), prompt
        for prompt in self.queue.pending():
            yield unfinished_job(prompt, "pending"), prompt


class _Asked:
    """A query of the list. Raises ValueError with a sentence for what it cannot mean."""

    def __init__(self, query: Mapping[str, str]) -> None:
        words = query.get("status", "").split(",")
        self.statuses = [word.strip().lower() for word in words if word.strip()] or list(STATUSES)
        unknown = [word for word in self.statuses if word not in STATUSES]
        if unknown:
            raise ValueError(
                f"Invalid status value(s): {', '.join(unknown)}. "
                f"Valid values: {', '.join(STATUSES)}"
            )
        self.workflow_id = query.get("workflow_id")
        self.sort_by = _one_of(query, "sort_by", ("created_at", "execution_duration"))
        self.newest_first = _one_of(query, "sort_order", ("desc", "asc")) == "desc"
        self.limit = _integer(query, "limit")
        if self.limit is not None and self.limit <= 0:
            raise ValueError("limit must be a positive integer")
        self.offset = max(0, _integer(query, "offset") or 0)

    def wants(self, job: Job) -> bool:
        same_workflow = not self.workflow_id or job.get("workflow_id") == self.workflow_id
        return job["status"] in self.statuses and same_workflow

    def sort_key(self, job: Job) -> int:
        if self.sort_by == "created_at":
            return int(job["create_time"])
        return int(job.get("execution_end_time", 0)) - int(job.get("execution_start_time", 0))


def unfinished_job(prompt: Prompt, status: str) -> Job:
    """A job that waits or runs."""
    return _without_none(
        {
            "id": prompt.prompt_id,
            "status": status,
            "priority": prompt.number,
            "create_time": prompt.extra_data["create_time"],
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow_id(prompt.extra_data),
        }
    )


def finished_job(job_id: str, entry: Mapping[str, Any]) -> Job:
    """A job from its history entry."""
    number, _, _, extra_data, _ = entry["prompt"]
    said = {kind: data for kind, data in entry["status"]["messages"]}
    ends = ("execution_success", "execution_error", "execution_interrupted")
    end: Job = next((said[kind] for kind in ends if kind in said), {})
    failed = "cancelled" if "execution_interrupted" in said else "failed"
    items = list(_items(entry["outputs"]))
    return _without_none(
        {
            "id": job_id,
            "status": "completed" if entry["status"]["completed"] else failed,
            "priority": number,
            "create_time": extra_data["create_time"],
            "execution_start_time": said.get("execution_start", {}).get("timestamp"),
            "execution_end_time": end.get("timestamp"),
            "execution_error": said.get("execution_error"),
            "outputs_count": len(items),
            "previewable_outputs_count": sum(_is_shown(media, item) for _, media, item in items),
            "preview_output": _preview(entry["outputs"]),
            "workflow_id": _workflow_id(extra_data),
        }
    )


def _details(entry: Mapping[str, Any]) -> Job:
    _, _, graph, extra_data, _ = entry["prompt"]
    return {
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": graph, "extra_data": extra_data},
    }


def _items(outputs: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every output that is a file: its node, its key, and what the node said of it."""
    for node_id, shown in outputs.items():
        for media, items in shown.items():
            if media == "animated" or not isinstance(items, list):
                continue
            for item in items:
                if isinstance(item, dict):
                    yield node_id, media, item


def _preview(outputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The output that stands for the job: saved media, else any media, else a text."""
    shown = [each for each in _items(outputs) if _is_shown(each[1], each[2])]
    shown.sort(key=lambda each: (_is_text(each[1], each[2]), each[2].get("type") != "output"))
    for node_id, media, item in shown:
        return {"mediaType": media, **item, "nodeId": node_id}
    for node_id, said in outputs.items():
        texts = said.get("text")
        if isinstance(texts, list) and texts and not isinstance(texts[0], dict):
            text = str(texts[0])
            cut = {"truncated": True} if len(text) > LONGEST_TEXT else {}
            about = {"nodeId": node_id, "mediaType": "text"}
            return {"content": text[:LONGEST_TEXT], **cut, **about}
    return None


def _is_shown(media: str, item: Mapping[str, Any]) -> bool:
    kind = str(item.get("format", ""))
    name = str(item.get("filename", "")).lower()
    return (
        media in SHOWN_MEDIA
        or kind.startswith(("video/", "audio/"))
        or name.endswith(MODEL_SUFFIXES + TEXT_SUFFIXES)
    )


def _is_text(media: str, item: Mapping[str, Any]) -> bool:
    return media == "text" or str(item.get("filename", "")).lower().endswith(TEXT_SUFFIXES)


def _workflow_id(extra_data: Mapping[str, Any]) -> object:
    workflow = (extra_data.get("extra_pnginfo") or {}).get("workflow")
    return workflow.get("id") if isinstance(workflow, dict) else None


def _without_none(job: Job) -> Job:
    return {name: value for name, value in job.items() if value is not None}


def _one_of(query: Mapping[str, str], name: str, words: tuple[str, str]) -> str:
    word = query.get(name, words[0]).lower()
    if word not in words:
        raise ValueError(f"{name} must be '{words[0]}' or '{words[1]}'")
    return word


def _integer(query: Mapping[str, str], name: str) -> int | None:
    try:
        return int(query[name]) if name in query else None
    except ValueError:
        raise ValueError(f"{name} must be an integer") from None


def _bad(sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=400)
