"""Chromium without a window, told what to do over its DevTools protocol.

A page is used by one caller at a time: a command is sent, and whatever comes before its answer
is either kept (what the page wrote to its console) or not for us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
START_SECONDS = 60.0
COMMAND_SECONDS = 120.0
END_SECONDS = 15.0

BECOMES_TRUE = """
(async () => {
  while (!(%s)) await new Promise((again) => setTimeout(again, 100))
})()
"""

# Nothing but this machine may be reached: a recording depends on the pinned packages alone.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--window-size=1600,1000",
    "--remote-debugging-port=0",
)


class BrowserError(Exception):
    """The browser could not be started, or could not do what it was told."""


class Page:
    """One open page; `console` holds the warnings and errors that it wrote since last emptied."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.console: list[str] = []
        self._socket = socket
        self._session_id: str | None = None
        self._commands = 0

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise.

        Raises BrowserError with the page's own words where the expression throws.
        """
        answer = await self._command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if thrown := answer.get("exceptionDetails"):
            raise BrowserError(
                thrown.get("exception", {}).get("description") or thrown.get("text", "threw")
            )
        return answer["result"].get("value")

    async def wait_for(self, expression: str, seconds: float = START_SECONDS) -> None:
        """Return as soon as an expression is true; BrowserError when it is not in time."""
        async with _deadline(f"{expression!r} did not become true", seconds):
            await self.evaluate(BECOMES_TRUE % expression)

    async def _open(self, url: str) -> None:
        target = await self._command("Target.createTarget", url="about:blank")
        attached = await self._command(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session_id = attached["sessionId"]
        await self._command("Runtime.enable")
        await self._command("Page.enable")
        await self._command("Page.navigate", url=url)

    async def _close_browser(self) -> None:
        self._session_id = None
        await self._command("Browser.close")

    async def _command(self, method: str, **params: Any) -> dict[str, Any]:
        self._commands += 1
        message: dict[str, Any] = {"id": self._commands, "method": method, "params": params}
        if self._session_id is not None:
            message["sessionId"] = self._session_id
        async with _deadline(f"no answer to {method}", COMMAND_SECONDS):
            await self._socket.send_json(message)
            while (heard := json.loads(await self._socket.receive_str())).get("id") != message[
                "id"
            ]:
                self._note(heard)
        if error := heard.get("error"):
            raise BrowserError(f"{method}: {error.get('message')}")
        result: dict[str, Any] = heard["result"]
        return result

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" if params["type"] in ("warning", "error"):
                self.console.append(" ".join(_said(part) for part in params["args"]))
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.console.append(
                    details.get("exception", {}).get("description") or details["text"]
                )


@contextlib.asynccontextmanager
async def open_page(url: str, program: str | None = None) -> AsyncIterator[Page]:
    """A page at *url* in a browser of its own, with an empty profile; both end with the block."""
    program = program or find_program()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *OPTIONS,
            f"--user-data-dir={profile}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            endpoint = await _endpoint(Path(profile), process)
            async with (
                aiohttp.ClientSession(trust_env=False) as session,
                session.ws_connect(endpoint, max_msg_size=0, autoping=True) as socket,
            ):
                page = Page(socket)
                await page._open(url)
                yield page
                await page._close_browser()
        finally:
            await _end(process)


def find_program() -> str:
    """The path of an installed Chromium (or Chrome, or Edge); BrowserError when there is none."""
    for name in PROGRAMS:
        if path := shutil.which(name):
            return path
    raise BrowserError(
        f"No browser was found (looked for {', '.join(PROGRAMS)}). Install Chromium "
        "or name a program with --browser."
    )


async def _endpoint(profile: Path, process: asyncio.subprocess.Process) -> str:
    """Where the browser listens: it writes port and path into a file of its profile."""
    told = profile / "DevToolsActivePort"
    async with _deadline("the browser did not say where it listens", START_SECONDS):
        while True:
            if process.returncode is not None:
                raise BrowserError(f"The browser ended at once, with status {process.returncode}.")
            lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
            if len(lines) >= 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _deadline(complaint: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as late:
        raise BrowserError(f"{complaint} within {seconds:g} seconds") from late


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _said(part: dict[str, Any]) -> str:
    """A console argument as text: its value, or how the browser describes an object."""
    return str(part.get("value", part.get("description", part.get("type"))))
