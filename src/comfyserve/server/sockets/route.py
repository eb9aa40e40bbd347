"""The route ``/api/ws``: a connection is taken, talked with, and closed with the reason."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from comfyserve.server.sockets.endings import LEFT, STOPPING, TOO_SLOW, Ending
from comfyserve.server.sockets.session import Session
from comfyserve.server.sockets.sockets import Sockets

PATH: Final = "/api/ws"

HANG_UP: Final = "comfyserve.websocket.hang_up"
"""The scope extension by which a server closes a connection whose client does not read: told the
code and the reason, it sends them past all that waits, and cuts the connection if need be."""

CLOSED_WITHIN: Final = 2.0
"""Seconds that a client has to make room for the frame that tells why it is closed."""

router = APIRouter()


@router.websocket(PATH)
async def talk(websocket: WebSocket) -> None:
    """Talk with a client until one of both is through."""
    sockets: Sockets = websocket.app.state.sockets
    await websocket.accept()
    if sockets.is_stopping:
        await _close(websocket, STOPPING)
        return
    session = Session(websocket, sockets)
    with sockets.listed(session):
        await session.run(partial(_close, websocket))


async def _close(websocket: WebSocket, ending: Ending) -> None:
    if ending is LEFT:
        return
    hang_up = websocket.scope.get("extensions", {}).get(HANG_UP)
    if ending is TOO_SLOW and hang_up is not None:
        hang_up(ending.code, ending.reason)
        return
    with suppress(TimeoutError, OSError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(CLOSED_WITHIN):
            await websocket.close(ending.code, ending.reason)
            return
    if hang_up is not None:
        hang_up(ending.code, ending.reason)
