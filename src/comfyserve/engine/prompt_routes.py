"""`/prompt`, `/queue`, `/history`, `/interrupt` and `/free`."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from comfyserve.engine.answers import Refused, done, read_json, read_object, refusal
from comfyserve.engine.folders import Folders
from comfyserve.engine.prompt_queue import Chore, Prompt, PromptQueue
from comfyserve.engine.registry import Registry
from comfyserve.engine.validation import validate

# Secrets that clients send for partner nodes; this engine has none, so it does not keep them.
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


class PromptRoutes:
    """The desk where prompts are handed in and asked about."""

    def __init__(self, queue: PromptQueue, registry: Registry, folders: Folders) -> None:
        self.queue = queue
        self.registry = registry
        self.folders = folders
        self._counter = 0

    def all(self) -> list[web.RouteDef]:
        return [
            web.get("/prompt", self.queue_size),
            web.post("/prompt", self.submit),
            web.get("/queue", self.list_queue),
            web.post("/queue", self.change_queue),
            web.get("/history", self.list_history),
            web.get("/history/{prompt_id}", self.history_entry),
            web.post("/history", self.change_history),
            web.post("/interrupt", self.interrupt),
            web.post("/free", self.free),
        ]

    async def queue_size(self, request: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self.queue.remaining}})

    async def submit(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        if not isinstance(body, dict):
            raise no_prompt()
        number = self._number(body)
        graph = _graph(body)
        prompt_id = _prompt_id(body.get("prompt_id"))
        extra_data = _extra_data(body)
        verdict = validate(graph, self.registry, self.folders, _targets(body))
        if verdict.error is not None:
            return refusal(verdict.error, verdict.node_errors)
        self.queue.put(Prompt(number, prompt_id, graph, extra_data, verdict.outputs))
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def _number(self, body: Mapping[str, Any]) -> float:
        """The place in the queue: as given, else after all others, or before them for `front`."""
        if "number" in body:
            return _finite_number(body["number"])
        number = -self._counter if body.get("front") else self._counter
        self._counter += 1
        return number

    async def list_queue(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "queue_running": [prompt.listed() for prompt in self.queue.running()],
                "queue_pending": [prompt.listed() for prompt in self.queue.pending()],
            }
        )

    async def change_queue(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        if body.get("clear"):
            self.queue.clear()
        self.queue.delete(_ids(body))
        return done()

    async def list_history(self, request: web.Request) -> web.Response:
        most = _query_number(request, "max_items")
        offset = _query_number(request, "offset")
        entries = list(self.queue.history().items())
        if offset is None or offset < 0:
            start = 0 if most is None else max(0, len(entries) - max(0, most))
        else:
            start = offset
        end = len(entries) if most is None else start + max(0, most)
        return web.json_response(dict(entries[start:end]))

    async def history_entry(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        history = self.queue.history()
        found = {prompt_id: history[prompt_id]} if prompt_id in history else {}
        return web.json_response(found)

    async def change_history(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        if body.get("clear"):
            self.queue.forget()
        self.queue.forget(_ids(body))
        return done()

    async def interrupt(self, request: web.Request) -> web.Response:
        """Interrupt what runs; with a prompt_id only that one. No JSON means whatever runs."""
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            body = {}
        if not isinstance(body, dict):
            raise Refused("invalid_json", "The request body must be a JSON object")
        prompt_id = body.get("prompt_id")
        self.queue.interrupt(str(prompt_id) if prompt_id else None)
        return done()

    async def free(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        chore = Chore(
            free_memory=bool(body.get("free_memory")),
            unload_models=bool(body.get("unload_models")),
        )
        if chore != Chore():
            self.queue.free(chore)
        return done()


def no_prompt() -> Refused:
    return Refused("no_prompt", "No prompt provided", "No prompt provided")


def _graph(body: Mapping[str, Any]) -> dict[str, Any]:
    if "prompt" not in body:
        raise no_prompt()
    graph = body["prompt"]
    if not isinstance(graph, dict):
        found = "null" if graph is None else type(graph).__name__
        raise Refused(
            "invalid_prompt",
            "Cannot execute because the prompt is not an object of nodes.",
            f"It is {found}. Expected ComfyUI's API format: node ids with class_type and inputs.",
        )
    return graph


def _prompt_id(given: object) -> str:
    """The caller's id if it is a UUID in its one canonical spelling, else a new one for None."""
    if given is None:
        return str(uuid.uuid4())
    if isinstance(given, str):
        try:
            if str(uuid.UUID(given)) == given:
                return given
        except ValueError:
            pass
    raise Refused(
        "invalid_prompt_id",
        "prompt_id must be a valid UUID",
        f"Got {given!r}. It must be a lowercase UUID with hyphens; leave it out to be given one.",
    )


def _extra_data(body: Mapping[str, Any]) -> dict[str, Any]:
    """What comes beside the graph, with the owner in it and without secrets."""
    given = body.get("extra_data", {})
    if not isinstance(given, dict):
        raise Refused("invalid_extra_data", "extra_data must be an object")
    if not isinstance(given.get("extra_pnginfo") or {}, dict):
        raise Refused("invalid_extra_data", "extra_data.extra_pnginfo must be an object")
    extra_data = {name: value for name, value in given.items() if name not in SECRETS}
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    owner = extra_data.get("client_id")
    if owner is None:
        extra_data.pop("client_id", None)
    elif not isinstance(owner, str):
        raise Refused(
            "invalid_client_id", "client_id must be a string", f"Got {type(owner).__name__}."
        )
    return {**extra_data, "create_time": int(time.time() * 1000)}


def _targets(body: Mapping[str, Any]) -> list[str] | None:
    targets = body.get("partial_execution_targets")
    if targets is None or isinstance(targets, list):
        return targets
    raise Refused("invalid_targets", "partial_execution_targets must be a list of node ids")


def _finite_number(given: object) -> float:
    try:
        number = float(given) if isinstance(given, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Refused("invalid_number", "number must be a finite number", f"Got {given!r:.100}.")
    return number


def _ids(body: Mapping[str, Any]) -> list[str]:
    given = body.get("delete")
    return [each for each in given if isinstance(each, str)] if isinstance(given, list) else []


def _query_number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise Refused("invalid_query", f"{name} must be an integer", f"Got {text!r}.") from None
