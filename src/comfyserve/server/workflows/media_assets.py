"""The files of a call, found or brought home: assets of its caller, each of the kind needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from posixpath import basename
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from comfyserve.access import Caller
from comfyserve.asset_library import Minted, UploadDetails
from comfyserve.assets import HEAD_SIZE, Asset, content_type, media_kind, safe_name
from comfyserve.denials import PayloadTooLarge
from comfyserve.errors import ComfyServeError, InputProblem, InvalidInputs
from comfyserve.host import Host
from comfyserve.jobs import Output
from comfyserve.refusals import NotFound
from comfyserve.server.workflows.call_inputs import BoundCall
from comfyserve.server.workflows.media_values import (
    AssetNamed,
    At,
    Inline,
    Kept,
    MediaValue,
    OutputOf,
    ToCome,
)
from comfyserve.unbroken import unbroken
from comfyserve.workflows.parameters import Parameter

_AT_ONCE: Final = 4
"""How many files of one call are fetched at a time."""

_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image",),
    "mask": ("image",),
    "video": ("video",),
    # A video's sound is taken too.
    "audio": ("audio", "video"),
}
"""Which kinds of content an input takes, by its own kind; one that is not here takes any."""

_UNKNOWN: Final = "application/octet-stream"

_WORDS: Final[Mapping[str, str]] = {"image": "a picture", "video": "a video", "audio": "a sound"}


@dataclass(frozen=True, slots=True)
class Looked:
    """What is wrong with the files of a call, and the ids of assets that are not there."""

    problems: tuple[InputProblem, ...]
    missing: tuple[str, ...]


class CallAssets:
    """The assets of one call; in a block that fails, or that is told to, new ones are forgotten.

    They belong to the caller and last as long as any upload about which nothing was said.
    """

    def __init__(self, host: Host, caller: Caller) -> None:
        self._host = host
        self._owner = caller.owner
        self._minted: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            await unbroken(self.forget())

    async def forget(self) -> None:
        """Forget the assets that were made for this call; their bytes go with the next sweep."""
        while self._minted:
            with suppress(ComfyServeError):  # a job may have it already, or nobody any more
                await self._host.asset_library.delete(self._minted.pop(), self._owner)

    async def keep(
        self, chunks: AsyncIterator[bytes], name: str, declared_type: str | None = None
    ) -> Asset:
        """Keep a file that comes with the call. Raises like `AssetLibrary.upload`."""
        details = UploadDetails(safe_name(name), declared_type)
        minted: Minted = await self._host.asset_library.upload_told_later(
            chunks, lambda: details, owner=self._owner
        )
        self._minted.append(minted.asset.id)
        return minted.asset

    async def gather(self, call: BoundCall) -> dict[str, Asset]:
        """The asset for each file of the call, by its parameter.

        Raises `InvalidInputs` with a sentence for each that cannot be had or is of another kind.
        """
        places = asyncio.Semaphore(_AT_ONCE)
        problems: list[InputProblem] = []
        found: dict[str, Asset] = {}

        async def take(name: str, value: MediaValue) -> None:
            async with places:
                try:
                    asset = await self._asset(call.parameters[name], value)
                    found[name] = _fitting(call.parameters[name], asset)
                except (ValueError, PayloadTooLarge, NotFound) as error:
                    problems.append(InputProblem(name, _sentence(name, error)))

        await _all(*(lambda n=name, v=value: take(n, v) for name, value in call.media.items()))
        if problems:
            raise InvalidInputs(sorted(problems, key=lambda problem: problem.name))
        return found

    async def look(self, call: BoundCall) -> Looked:
        """What `gather` would say, as far as it can be told without keeping or fetching."""
        problems: list[InputProblem] = []
        missing: list[str] = []
        for name, value in call.media.items():
            parameter = call.parameters[name]
            try:
                match value:
                    case AssetNamed() | OutputOf():
                        _fitting(parameter, await self._asset(parameter, value))
                    case Inline(content, declared):
                        told = content_type(content[:HEAD_SIZE])
                        _refuse_type(parameter, declared if told == _UNKNOWN else told)
                    case At(url):
                        self._host.url_inputs.check(url)
                    case _:
                        continue
            except NotFound as error:
                if error.kind == "asset":
                    missing.append(error.id)
                else:
                    problems.append(InputProblem(name, _sentence(name, error)))
            except ValueError as error:
                problems.append(InputProblem(name, _sentence(name, error)))
        return Looked(tuple(problems), tuple(dict.fromkeys(missing)))

    async def _asset(self, parameter: Parameter, value: MediaValue) -> Asset:
        match value:
            case Kept(asset):
                return asset
            case AssetNamed(id):
                return await self._host.asset_library.get(id, self._owner)
            case OutputOf():
                return await self._output(parameter, value)
            case Inline(content, content_type):
                return await self.keep(_once(content), parameter.name, content_type)
            case At(url):
                return await self._fetched(url)
            case ToCome():
                raise ValueError(f"{parameter.name} is a file that did not come.")

    async def _fetched(self, url: str) -> Asset:
        name = basename(unquote(urlsplit(url).path)) or "file"

        async def keep(chunks: AsyncIterator[bytes]) -> Asset:
            return await self.keep(chunks, name)

        return await self._host.url_inputs.fetch(url, keep)

    async def _output(self, parameter: Parameter, wanted: OutputOf) -> Asset:
        standing = await self._host.job_queue.get(wanted.job_id, self._owner)
        record = standing.record
        outputs = [one for one in record.outputs if _may_be(parameter, one, wanted.node_id)]
        if wanted.index < len(outputs) and (id := outputs[wanted.index].id) is not None:
            return await self._host.asset_library.get(id, self._owner)
        where = "" if wanted.node_id is None else f" of node {wanted.node_id[:40]!r}"
        has = f"has {len(outputs)} such outputs{where}" if outputs else f"has none{where}"
        state = "" if record.status.is_terminal else f" so far; it is {record.status}"
        raise ValueError(
            f"{parameter.name} takes {_wanted(parameter)} of job {wanted.job_id}, which {has}"
            f"{state}."
        )


def _may_be(parameter: Parameter, output: Output, node_id: str | None) -> bool:
    return _takes(parameter, output.content_type) and node_id in (None, output.node_id)


def _takes(parameter: Parameter, content_type: str) -> bool:
    families = _FAMILIES.get(parameter.kind)
    return families is None or media_kind(content_type) in families


def _fitting(parameter: Parameter, asset: Asset) -> Asset:
    if not asset.size_bytes:
        raise ValueError(f"{parameter.name} is a file without any bytes.")
    _refuse_type(parameter, asset.content_type)
    return asset


def _refuse_type(parameter: Parameter, content_type: str) -> None:
    if not _takes(parameter, content_type):
        wanted = _wanted(parameter)
        raise ValueError(f"{parameter.name} takes {wanted}, but what came is {content_type}.")


def _wanted(parameter: Parameter) -> str:
    family = _FAMILIES.get(parameter.kind, ("file",))[0]
    return _WORDS.get(family, "a file")


def _sentence(name: str, error: Exception) -> str:
    match error:
        case NotFound():
            advice = " Upload it anew." if error.kind == "asset" else ""
            return f"{name}: {error}{advice}"
        case PayloadTooLarge():
            return f"{name} is too large: at most {error.most:,} bytes are taken."
        case _:
            return str(error)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _all(*works: Callable[[], Awaitable[None]]) -> None:
    """Do all at once; the first that fails ends the others, and is raised as it is."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        for task in asyncio.as_completed(tasks):
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
