"""`comfyserve serve`: the server in front of a ComfyUI, from its settings to its last request."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comfyserve import __version__
from comfyserve.cli.engine_process import lasting_engine
from comfyserve.comfy.http import Http, Timeouts
from comfyserve.denials import AddressUnusable, ExtraMissing
from comfyserve.errors import BackendError, EngineUnavailable
from comfyserve.refusals import SettingsInvalid
from comfyserve.settings import FILE_NAME, BackendSettings, Settings, load

USUAL_BACKEND: Final = "http://127.0.0.1:8188"

_BRIEFLY: Final = Timeouts(connect=1.0, answer=2.0)
_BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asked for: settings by name, those not given None, and the file they named."""

    flags: Mapping[str, object]
    file: Path | None = None


def settings_from(options: Options) -> Settings:
    """The settings that hold. Raises `SettingsInvalid`."""
    if options.file is not None and not options.file.is_file():
        raise SettingsInvalid([f"There is no file {options.file}."])
    return load(file=options.file or Path(FILE_NAME), environment=os.environ, flags=options.flags)


async def serve(options: Options) -> None:
    """Serve until a signal asks to stop, then let running jobs end for a while.

    Raises `SettingsInvalid`, `WorkflowFolderMissing`, `AddressUnsafe`, `AddressUnusable`,
    `ExtraMissing`, `EngineUnavailable`, and what the host raises when the data cannot be used.
    """
    settings = settings_from(options)
    _need_server_extra()
    from comfyserve.catalog import check_folder
    from comfyserve.cli import web_server

    if settings.workflows is not None:
        check_folder(settings.workflows)

    await web_server.prepare(settings)
    stop = _stop_signal()
    with closing(_listener(settings.host, settings.port)) as listener:
        async with _with_backend(settings) as (complete, backend):

            def ready() -> None:
                _welcome(listener, settings, backend)

            await web_server.answer(complete, listener, ready, stop)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The fastest event loop that is there; None for Python's own."""
    try:
        import uvloop
    except ModuleNotFoundError:  # as on Windows
        return None
    return uvloop.new_event_loop


@asynccontextmanager
async def _with_backend(settings: Settings) -> AsyncIterator[tuple[Settings, str]]:
    """The settings with a backend in them, and which it is, for people."""
    if settings.backends:
        yield settings, ", ".join(_shown(one.url) for one in settings.backends)
    elif await _is_comfyui(USUAL_BACKEND):
        named = replace(settings, backends=(BackendSettings(USUAL_BACKEND),))
        yield named, f"{USUAL_BACKEND}, found there"
    else:
        _say(f"No ComfyUI answers at {USUAL_BACKEND}, so the built-in engine starts ..")
        async with _engine() as url:
            named = replace(settings, backends=(BackendSettings(url),))
            yield named, f"the built-in engine, {url}"


@asynccontextmanager
async def _engine() -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(lasting_engine(_say))
        except EngineUnavailable as error:
            raise EngineUnavailable(
                f"{error.reason.rstrip('.')}. Name a ComfyUI with --backend, or start one"
            ) from error
        yield url


async def _is_comfyui(url: str) -> bool:
    http = Http(url, headers={}, token=None, verify_tls=True, timeouts=_BRIEFLY)
    await http.open()
    try:
        return "system" in await http.json("GET", "/system_stats")
    except BackendError:
        return False
    finally:
        await http.close()


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that nobody else takes the port meanwhile."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        # Python adds the address to its words; that of a name that nobody has it leaves alone.
        by_number = None if isinstance(error, socket.gaierror) else error.errno
        reason = error.strerror if by_number is None else os.strerror(by_number)
        raise AddressUnusable(host, port, reason or str(error)) from error


def _stop_signal() -> asyncio.Event:
    """Set by the first signal that asks to stop; the second one does not wait for anything."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def asked(number: int) -> None:
        if stop.is_set():
            # All that counts is on disk, and the engine ends with us.
            os._exit(128 + number)
        _say("Stopping: running jobs may end first. Ask again to stop at once.")
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if (number := getattr(signal, name, None)) is None:
            continue
        try:
            loop.add_signal_handler(number, asked, number)
        except NotImplementedError:  # on Windows
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(asked, n) and None)
    return stop


def _welcome(listener: socket.socket, settings: Settings, backend: str) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    known = settings.public_url or url
    _say(f"comfyserve {__version__}")
    for name, value in {
        "address": known,
        "docs": f"{known}/docs",
        "data": os.path.abspath(settings.data),
        "workflows": settings.workflows and os.path.abspath(settings.workflows),
        "backend": backend,
    }.items():
        if value:
            _say(f"  {name:9} {value}")
    print(f"comfyserve listening on {url}", flush=True)


def _shown(url: str) -> str:
    """The address without what may be a password."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _need_server_extra() -> None:
    gc.disable()  # what is imported stays: looking through it for what may go is wasted
    try:
        import comfyserve.cli.web_server  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "comfyserve":
            raise
        raise ExtraMissing("server", error.name) from error
    finally:
        gc.freeze()
        gc.enable()
