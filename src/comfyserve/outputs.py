"""What nodes showed, brought home: each output once, byte for byte, into a sink."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Protocol, Self

from blake3 import blake3

from comfyserve.assets import HEAD_SIZE, Saved, content_hash, content_type, media_kind, safe_name
from comfyserve.comfy.backend import Backend
from comfyserve.comfy.protocol import Picture
from comfyserve.comfy.records import ShownFile, ShownText, shown
from comfyserve.errors import BackendUnreachable, FileUnavailable
from comfyserve.jobs import Output

_MOST_ERRANDS: Final = 32
_TRIES: Final = 3
_PAUSE: Final = 0.5


class Writer(Protocol):
    """Takes the bytes of one output; *location* says where they are once all went well."""

    @property
    def location(self) -> str:
        """A path or a blob's key; known when the context ended without an error."""

    async def write(self, chunk: bytes) -> None:
        """Keep the next bytes."""


class Sink(Protocol):
    """Where outputs go: a folder, or blobs.

    What is not completed leaves nothing behind. A disk that will not take the bytes raises
    `comfyserve.errors.OutputUnwritable`.
    """

    def open(self, name: str, subfolder: str, temp: bool) -> AbstractAsyncContextManager[Writer]:
        """A place for an output of that name, which is only a wish and may be hostile."""


class Outputs:
    """The outputs of one job: fetched as they are announced, none twice, none forgotten."""

    def __init__(self, backend: Backend, sink: Sink, *, keep_temp: bool) -> None:
        self.saved: list[Output] = []
        self.missing: list[ShownFile] = []
        self.live_nodes: set[str] = set()
        self._backend = backend
        self._sink = sink
        self._keep_temp = keep_temp
        self._taken: set[tuple[str, str, int]] = set()
        self._files: set[tuple[str, str, str]] = set()
        self._deferred: dict[tuple[str, str, int], ShownFile] = {}
        self._pictures = 0

    async def take(self, node_id: str, ui: Mapping[str, Any]) -> AsyncIterator[Output]:
        """Bring home what a node showed; what is only temporary waits for `take_temp`."""
        for thing in shown(node_id, ui):
            slot = (thing.node_id, thing.key, thing.index)
            if slot in self._taken:
                continue
            if isinstance(thing, ShownText):
                self._taken.add(slot)
                yield await self._save_text(thing)
            elif self._keep_temp or thing.folder == "output":
                if (output := await self._take_file(thing)) is not None:
                    yield output
            else:
                self._deferred[slot] = thing

    async def take_temp(self) -> AsyncIterator[Output]:
        """Bring home the temporary files if nothing else was saved: they are the result then."""
        if any(not _is_note(output) for output in self.saved) or self.missing:
            return
        for thing in self._deferred.values():
            if (output := await self._take_file(thing)) is not None:
                yield output

    async def take_picture(self, node_id: str, picture: Picture) -> AsyncIterator[Output]:
        """Keep a picture that came over the socket and is stored nowhere else."""
        self._pictures += 1
        self.live_nodes.add(node_id)
        ending = ".jpg" if picture.content_type == "image/jpeg" else ".png"
        name = f"node_{safe_name(node_id)}_{self._pictures:05}{ending}"
        kept = await self._keep(_once(picture.data), name, "", temp=False)
        yield self._saved(kept, node_id, "images", name, index=self._pictures - 1)

    def try_again(self) -> None:
        """Forget which files were missing, as another attempt will make them."""
        self.missing.clear()
        self._files.clear()
        self._deferred.clear()

    async def _take_file(self, file: ShownFile) -> Output | None:
        place = (file.filename, file.subfolder, file.folder)
        slot = (file.node_id, file.key, file.index)
        if slot in self._taken or place in self._files:
            return None
        self._files.add(place)
        try:
            kept = await self._fetch(file)
        except FileUnavailable:
            self.missing.append(file)
            return None
        self._taken.add(slot)
        return self._saved(
            kept,
            file.node_id,
            file.key,
            file.filename,
            subfolder=file.subfolder,
            temp=file.folder != "output",
            index=file.index,
        )

    async def _fetch(self, file: ShownFile) -> Saved:
        for tries_left in reversed(range(_TRIES)):
            try:
                async with self._backend.open_file(file) as chunks:
                    return await self._keep(
                        chunks, file.filename, file.subfolder, temp=file.folder != "output"
                    )
            except BackendUnreachable:
                if not tries_left:
                    raise
                await asyncio.sleep(_PAUSE)
        raise AssertionError("the last try returns or raises")

    async def _save_text(self, text: ShownText) -> Output:
        name = f"node_{safe_name(text.node_id)}_{safe_name(text.key)}_{text.index + 1}.txt"
        kept = await self._keep(_once(text.text.encode(errors="replace")), name, "", temp=False)
        return self._saved(kept, text.node_id, text.key, name, index=text.index)

    async def _keep(
        self, chunks: AsyncIterable[bytes], name: str, subfolder: str, *, temp: bool
    ) -> Saved:
        digest, size, head = blake3(), 0, b""
        async with self._sink.open(name, subfolder, temp) as writer:
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                if len(head) < HEAD_SIZE:
                    head += chunk[: HEAD_SIZE - len(head)]
                await writer.write(chunk)
        return Saved(
            location=writer.location,
            size_bytes=size,
            hash=content_hash(digest.hexdigest()),
            content_type=content_type(head, name),
        )

    def _saved(
        self,
        kept: Saved,
        node_id: str,
        key: str,
        name: str,
        *,
        subfolder: str = "",
        temp: bool = False,
        index: int = 0,
    ) -> Output:
        output = Output(
            node_id=node_id,
            key=key,
            name=name,
            type=media_kind(kept.content_type),
            content_type=kept.content_type,
            size_bytes=kept.size_bytes,
            hash=kept.hash,
            location=kept.location,
            subfolder=subfolder,
            temp=temp,
            index=index,
        )
        self.saved.append(output)
        return output


class Courier:
    """Fetches outputs in the background, one after the other, while the job goes on.

    *wake* is called whenever one has arrived. Leaving the context gives up what is on its way.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._errands: asyncio.Queue[AsyncIterator[Output]] = asyncio.Queue(_MOST_ERRANDS)
        self._here: deque[Output] = deque()
        self._sent = 0

    @property
    def is_idle(self) -> bool:
        """Nothing is on its way."""
        return self._sent == 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run_errands(), name="outputs")
        self._task.add_done_callback(lambda _: self._wake())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def send(self, errand: AsyncIterator[Output]) -> None:
        """Have the outputs that *errand* yields fetched; waits while too many are on their way."""
        self._sent += 1
        if self._errands.full():
            await self._unless_failed(self._errands.put(errand))
            return
        if self._task.done():
            self._task.result()
        self._errands.put_nowait(errand)

    def arrived(self) -> Iterator[Output]:
        """The outputs that came since the last time, in the order of their announcement.

        Raises what keeps the next one from coming.
        """
        while self._here:
            yield self._here.popleft()
        if self._task.done():
            self._task.result()

    async def all(self) -> Iterator[Output]:
        """Wait for everything on its way; raises what kept an output from coming."""
        await self._unless_failed(self._errands.join())
        return self.arrived()

    async def _run_errands(self) -> None:
        while True:
            async for output in await self._errands.get():
                self._here.append(output)
                self._wake()
            self._sent -= 1
            self._errands.task_done()

    async def _unless_failed(self, wait: Coroutine[Any, Any, None]) -> None:
        """Wait, or raise the error that ended the errands for good."""
        waiting = asyncio.ensure_future(wait)
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        finally:
            waiting.cancel()


def names_of(files: Iterable[ShownFile]) -> str:
    """The files as they are called in a sentence."""
    return ", ".join(repr(file.filename) for file in files)


def _is_note(output: Output) -> bool:
    """A string that a node showed is worth keeping, but is no result that was saved."""
    return output.type == "text" and output.name.startswith("node_")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
