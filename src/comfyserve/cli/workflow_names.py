"""`comfyserve run NAME`: a workflow that the server hosts, where there is no file of that name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfyserve.client.async_client import AsyncClient
from comfyserve.errors import NoComfyserve, WorkflowUnreadable, nearest
from comfyserve.refusals import WorkflowNotFound

if TYPE_CHECKING:
    from comfyserve.client.hosted_workflows import AsyncHostedWorkflow

_MOST_FILES = 1000


async def hosted_under(
    client: AsyncClient, word: str
) -> tuple[AsyncHostedWorkflow, Mapping[str, Any]] | None:
    """The hosted workflow that *word* names, with its schema; None where it is a file's path.

    A file of that name comes first. Raises `WorkflowUnreadable` where there is neither.
    """
    if not _could_be_name(word):
        return None
    try:
        workflow = client.workflows[word]
        return workflow, await workflow.schema()
    except NoComfyserve:
        return None
    except WorkflowNotFound as error:
        found = "does not exist, and the server hosts no workflow of that name"
        raise WorkflowUnreadable(word, found, _meant(word, error.nearest)) from None


def _could_be_name(word: str) -> bool:
    """Whether it may be a workflow's name: no path, and nothing here that could be read."""
    is_path = "/" in word or "\\" in word or not word.strip(".")
    return not is_path and word.isprintable() and (os.path.isdir(word) or not os.path.exists(word))


def _meant(word: str, hosted: tuple[str, ...]) -> str:
    names = [f"{name!r} there" for name in hosted[:2]]
    names += [f"the file {name!r}" for name in nearest(word, _files_here(), 1)]
    return f"Did you mean {' or '.join(names)}?" if names else ""


def _files_here() -> list[str]:
    try:
        with os.scandir(Path()) as entries:
            found = [entry.name for entry, _ in zip(entries, range(_MOST_FILES), strict=False)]
    except OSError:
        return []
    return sorted(found)
