"""Workflows as the callers of one server see them: addresses as they know it, backends by id."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import Request, Response

from comfyserve.access import Caller
from comfyserve.catalog import Catalog, Entry, Inspected, Problem, workflow_detail, workflow_item
from comfyserve.catalog.documents import Document
from comfyserve.host import Host
from comfyserve.server.documents import encoded
from comfyserve.server.links import Links
from comfyserve.server.requests import caller_of, host_of, links_of

CACHED: Final = {"Cache-Control": "private, no-cache"}
"""Ask each time whether it changed; nobody between us keeps what is for one caller."""


_PROCESS: Final = secrets.token_hex(8)
"""Tells the tags of this process from those of the one before."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is of the catalogue for one caller at one moment."""

    entries: Sequence[Entry]
    problems: Sequence[Problem]


@dataclass(frozen=True, slots=True)
class Shown:
    """What one caller is shown of the catalogue."""

    catalog: Catalog
    caller: Caller
    links: Links
    backends: Mapping[str, str]

    @classmethod
    def to(cls, request: Request) -> Shown:
        """What the caller of this request is shown."""
        host = host_of(request)
        return cls(host.catalog, caller_of(request), links_of(request), backend_ids(host))

    def seen(self) -> Seen:
        """What the caller may see as it is now. What is wrong with the folder itself is for those
        who manage the server."""
        entries = [entry for entry in self.catalog.entries() if self.caller.may_run(entry.name)]
        problems = [
            problem
            for problem in self.catalog.problems()
            if (self.caller.is_admin if problem.name is None else self.caller.may_run(problem.name))
        ]
        return Seen(entries, problems)

    def list(self, seen: Seen) -> Document:
        """The workflows by name, and what is wrong with any of them."""
        return {
            "workflows": [self._item(entry) for entry in seen.entries],
            "problems": [{"name": one.name, "message": one.message} for one in seen.problems],
        }

    def list_tag(self) -> str:
        """What stays the same as long as the list does, in this process."""
        key = self.caller.key
        scope = None if key is None else (key.workflows, key.is_admin)
        backends = sorted(self.backends.items())
        # The links to thumbnails are others once those before are about to end.
        links = self.links.thumbnail("", "")
        told = (_PROCESS, self.catalog.revision, links, scope, backends)
        return tag_of(repr(told).encode(errors="replace"))

    async def detail(self, entry: Entry) -> Document:
        """All that the caller has to know of one workflow."""
        described = await self.catalog.described(entry.name) if entry.workflow else None
        return workflow_detail(
            entry,
            described,
            self.catalog.drift(entry.name),
            thumbnail_url=self._thumbnail(entry),
            named=self._named,
        )

    def inspected(self, found: Inspected) -> Document:
        """What a workflow would be if it were on offer, and which backends it fits."""
        document = workflow_detail(found.entry, found.workflow, found.drift, named=self._named)
        unfit = {one.backend for one in found.drift}
        fits = [
            {"backend": self._named(backend), "fits": backend not in unfit}
            for backend in self.catalog.nodes
        ]
        return {key: document[key] for key in document if key not in _OF_OFFERS} | {"fits": fits}

    def _item(self, entry: Entry) -> Document:
        return workflow_item(
            entry,
            self.catalog.drift(entry.name),
            thumbnail_url=self._thumbnail(entry),
            named=self._named,
        )

    def _thumbnail(self, entry: Entry) -> str | None:
        if entry.thumbnail is None:
            return None
        return self.links.thumbnail(entry.name, entry.thumbnail_version[:16])

    def _named(self, backend: str) -> str:
        return self.backends.get(backend, "")


def backend_ids(host: Host) -> dict[str, str]:
    """The ids of the backends by their names, which hold their addresses."""
    return {member.name: member.id for member in host.fleet.members}


def tag_of(content: bytes) -> str:
    """An entity tag that tells these bytes from others."""
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def tagged(request: Request, document: Document) -> Response:
    """The document, or that it is the one which the caller has."""
    content = encoded(document)
    tag = tag_of(content)
    if has_tag(request, tag):
        return unchanged(tag)
    headers = {"ETag": tag, **CACHED}
    return Response(content, 200, headers, "application/json")


def unchanged(tag: str) -> Response:
    """What the caller has is what there is."""
    return Response(status_code=304, headers={"ETag": tag, **CACHED})


def has_tag(request: Request, tag: str) -> bool:
    """Whether the caller says that he has what has this tag."""
    told = request.headers.get("If-None-Match")
    tags = [one.strip().removeprefix("W/") for one in (told or "").split(",")]
    return tag in tags or "*" in tags


_OF_OFFERS: Final = (
    *("source", "available", "version", "changed_at", "problem", "thumbnail_url"),
    *("public", "drifted"),
)
"""What only a workflow on offer has."""
