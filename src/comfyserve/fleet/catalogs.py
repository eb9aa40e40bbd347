"""The node catalogues of all backends, each read and kept only once."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

from comfyserve.workflows.needs import Lack, Needs, lacks
from comfyserve.workflows.node_catalog import NodeCatalog

_MOST_REMEMBERED: Final = 4096
"""Pools of jobs that a catalogue was held against and remembers."""

_LARGEST: Final = 64 << 20
"""Bytes of a kept catalogue that is still believed."""


class Known:
    """What a backend told of its nodes: the *catalog*, and the document it was read from."""

    def __init__(self, digest: str, packed: bytes, catalog: NodeCatalog) -> None:
        self.digest = digest
        self.packed = packed
        self.catalog = catalog
        self._fits: dict[str, bool] = {}

    def fits(self, pool: str, needs: Needs) -> bool:
        """Whether a backend with these nodes has what the jobs of that pool need."""
        if (fits := self._fits.get(pool)) is None:
            if len(self._fits) >= _MOST_REMEMBERED:
                self._fits.clear()
            fits = self._fits[pool] = next(lacks(needs, self.catalog), None) is None
        return fits

    def lacks(self, needs: Needs) -> tuple[Lack, ...]:
        """What it does not have of them."""
        return tuple(lacks(needs, self.catalog))

    def body(self) -> bytes:
        """The document as the backend sent it."""
        return _unpacked(self.packed)

    def document(self) -> Mapping[str, Any]:
        """The document, read; slow where there are many nodes."""
        return _document(self.body())


class Catalogs:
    """Those that somebody holds; the same nodes are the same `NodeCatalog`, whoever has them."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, Known] = WeakValueDictionary()
        self._lock = asyncio.Lock()

    async def read(self, body: bytes) -> Known:
        """What the answer to ``GET /object_info`` says. Raises `ValueError` where it says nothing.

        A body that was read before costs no more than its hash.
        """
        return await self._read(body, None)

    async def unpack(self, packed: bytes) -> Known:
        """What was kept as `Known.packed`. Raises `ValueError` where it is broken."""
        body = await asyncio.to_thread(_unpacked, packed)
        return await self._read(body, packed)

    async def _read(self, body: bytes, packed: bytes | None) -> Known:
        digest = await asyncio.to_thread(_digest, body)
        # One after the other, so that what is the same is noticed.
        async with self._lock:
            if (known := self._known.get(digest)) is None:
                others = [other.catalog for other in self._known.values()]
                known = await asyncio.to_thread(_known, digest, body, packed, others)
                self._known[digest] = known
        return known


def _known(digest: str, body: bytes, packed: bytes | None, others: list[NodeCatalog]) -> Known:
    catalog = NodeCatalog.from_json(_document(body))
    catalog = next((other for other in others if other == catalog), catalog)
    return Known(digest, packed or gzip.compress(body, 6, mtime=0), catalog)


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if not any(isinstance(node, dict) and "input" in node for node in document.values()):
        raise ValueError("it names no node")
    return document


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        body = unpacker.decompress(packed, _LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        raise ValueError("it is cut off, or far too long")
    return body


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
