"""What the engine is and has: `/object_info`, `/system_stats`, `/models` and their like."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

from aiohttp import web

from comfyserve.engine.folders import Folders
from comfyserve.engine.registry import Registry

NAME = "comfyserve built-in engine"
SPOKEN_VERSION = "0.3.64"
"""The ComfyUI version whose protocol is spoken; clients look for one."""

MODEL_FOLDERS = {"checkpoints": "ckpt_name", "embeddings": None}
"""The model folders there are, and the node input that lists what is in each."""


class InfoRoutes:
    """Read-only facts."""

    def __init__(self, registry: Registry, folders: Folders, max_upload_size: int) -> None:
        self.registry = registry
        self.folders = folders
        self.features = {
            "supports_preview_metadata": True,
            "max_upload_size": max_upload_size,
        }

    def all(self) -> list[web.RouteDef]:
        facts = {
            "/features": self.features,
            "/embeddings": [],
            "/extensions": [],
            "/models": list(MODEL_FOLDERS),
            "/settings": {},
            "/users": {"storage": "server", "migrated": False},
            "/workflow_templates": {},
        }
        return [
            web.get("/", self.front_page),
            web.get("/object_info", self.object_info),
            web.get("/object_info/{name}", self.node_info),
            web.get("/system_stats", self.system_stats),
            web.get("/models/{folder}", self.models),
            *(web.get(path, _telling(fact)) for path, fact in facts.items()),
        ]

    async def front_page(self, request: web.Request) -> web.Response:
        return web.Response(
            text=f"{NAME} {own_version()}: a small ComfyUI-compatible server. It has no page; "
            "open comfyserve's page, or point a ComfyUI client at this address.\n"
        )

    async def object_info(self, request: web.Request) -> web.Response:
        return web.json_response(self.registry.object_info(self.folders))

    async def node_info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = {name: self.registry[name]} if name in self.registry else {}
        return web.json_response(Registry(found.values()).object_info(self.folders))

    async def models(self, request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in MODEL_FOLDERS:
            raise web.HTTPNotFound(text=f"there is no model folder {folder!r}")
        listed_by = MODEL_FOLDERS[folder]
        listed = self.registry.choices(listed_by, self.folders) if listed_by else []
        return web.json_response(listed)

    async def system_stats(self, request: web.Request) -> web.Response:
        total, free = memory()
        device = {
            "name": f"{NAME} (CPU)",
            "type": "cpu",
            "index": None,
            "vram_total": total,
            "vram_free": free,
            "torch_vram_total": total,
            "torch_vram_free": free,
        }
        system = {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": SPOKEN_VERSION,
            "python_version": sys.version,
            "pytorch_version": "not used",
            "embedded_python": False,
            "argv": [],
            "engine": NAME,
            "engine_version": own_version(),
            "machine": platform.machine(),
        }
        return web.json_response({"system": system, "devices": [device]})


def _telling(document: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that always gives the same document."""

    async def tell(request: web.Request) -> web.Response:
        return web.json_response(document)

    return tell


def own_version() -> str:
    try:
        return metadata.version("comfyserve")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def memory() -> tuple[int, int]:
    """Bytes of memory the machine has, and has free; zeros where the system does not tell."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, 0
