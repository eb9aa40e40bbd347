"""The engine that is measured against, and the jobs that it can run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

from tests.engines import running_engine


@dataclass(frozen=True, slots=True)
class Engine:
    """A ComfyUI, or the built-in engine, which has nodes made for tests."""

    url: str
    has_test_nodes: bool

    @property
    def name(self) -> str:
        return "the built-in engine" if self.has_test_nodes else f"the ComfyUI at {self.url}"


@contextmanager
def engine_at(url: str | None) -> Iterator[Engine]:
    """The engine at *url*; without one, the built-in engine for as long as the context lasts."""
    if url is not None:
        with urlopen(f"{url}/object_info", timeout=60) as answer:
            yield Engine(url.rstrip("/"), "TestEmit" in json.load(answer))
        return
    with running_engine(test_nodes=True, max_upload_size=1000) as running:
        yield Engine(running.url, has_test_nodes=True)


@contextmanager
def engines(count: int) -> Iterator[Sequence[Engine]]:
    """So many built-in engines, each a process of its own, for as long as the context lasts."""
    with ExitStack() as stack:
        running = (stack.enter_context(running_engine(test_nodes=True)) for _ in range(count))
        yield [Engine(each.url, has_test_nodes=True) for each in running]


def file_graph(name: str, pattern: str, size: int) -> dict[str, Any]:
    """A test node that writes a file: *pattern* over and over."""
    emitted = {"key": "images", "kind": "files", "name": name, "pattern": pattern, "size": size}
    return {"1": {"class_type": "TestEmit", "inputs": emitted}}


def bytes_of(pattern: str, size: int) -> bytes:
    """What `file_graph` writes."""
    return (pattern.encode() * (size // len(pattern) + 1))[:size]
