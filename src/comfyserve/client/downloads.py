"""Outputs of a comfyserve, brought home byte for byte while the job goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from blake3 import blake3

from comfyserve.assets import content_hash
from comfyserve.client.api import Api
from comfyserve.errors import OutputUnavailable, RequestRefused
from comfyserve.jobs import Output
from comfyserve.outputs import Sink
from comfyserve.refusals import HashMismatch, NotFound

_TRIES: Final = 3


class Downloads:
    """The outputs of one job: each brought into *sink* as it is announced.

    Temporary ones are the result where nothing else was saved; else they come only with
    *keep_temp*.
    """

    def __init__(self, api: Api, sink: Sink, *, keep_temp: bool) -> None:
        self._api = api
        self._sink = sink
        self._keep_temp = keep_temp
        self._deferred: list[Output] = []
        self._has_result = False

    async def take(self, output: Output) -> AsyncIterator[Output]:
        """Bring an output home; one that is only temporary waits for `take_temp`."""
        if output.temp and not self._keep_temp:
            self._deferred.append(output)
            return
        self._has_result |= not _is_note(output)
        yield await self._fetched(output)

    async def take_temp(self) -> AsyncIterator[Output]:
        """Bring home the temporary outputs if there is nothing else: they are the result then."""
        for output in [] if self._has_result else self._deferred:
            yield await self._fetched(output)

    async def _fetched(self, output: Output) -> Output:
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._kept(output)
            except HashMismatch as error:
                if not tries_left:
                    told = f"{output.name!r} cannot be had as the server announced it: {error}"
                    raise OutputUnavailable(told) from error
            except (NotFound, RequestRefused) as error:
                told = f"The server made {output.name!r}, but no longer has it"
                raise OutputUnavailable(told) from error
        raise AssertionError("the last try returns or raises")

    async def _kept(self, output: Output) -> Output:
        digest, size = blake3(), 0
        async with self._sink.open(output.name, output.subfolder, output.temp) as writer:
            async with aclosing(self._api.content(output.id or "", output.size_bytes)) as pieces:
                async for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    await writer.write(piece)
            found = content_hash(digest.hexdigest())
            if output.hash not in ("", found):
                raise HashMismatch(output.hash, found)
        return replace(output, location=writer.location, size_bytes=size, hash=found)


def _is_note(output: Output) -> bool:
    """A string that a node showed is worth keeping, but is no result that was saved."""
    return output.type == "text" and output.name.startswith("node_")
